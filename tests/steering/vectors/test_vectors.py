import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from corrector.errors import UserError
from steering.vectors import SteeringVector


def vector(lm, layers=range(4), d=32, **changes):
    g = torch.Generator().manual_seed(0)
    directions = {k: torch.randn(d, generator=g) for k in layers}
    card = {"n": 3, "layers": {"0": {"auroc": 0.75}}}
    values = {"method": "diff_means", "site": "resid_post", "span": "prompt_last", "card": card}
    values |= {"fingerprint": lm.fingerprint, "template": lm.template.name, "ref": lm.ref}
    return SteeringVector(directions, **(values | changes))


def test_save_and_load_give_the_same_vector_and_the_same_bytes(tiny_lm, tmp_path):
    v = vector(tiny_lm)
    loaded = SteeringVector.load(v.save(tmp_path / "new" / "a.safetensors"))
    for f in dataclasses.fields(v):
        if f.name != "directions":
            assert getattr(loaded, f.name) == getattr(v, f.name)
    assert loaded.layers == v.layers == (0, 1, 2, 3)
    assert all(torch.equal(loaded.at(k), v.at(k)) for k in v.layers)
    again = loaded.save(tmp_path / "b.safetensors")
    assert again.read_bytes() == (tmp_path / "new" / "a.safetensors").read_bytes()
    loaded.check(tiny_lm)


def test_check_refuses_another_model_unless_forced(tiny_lm, make_lm):
    v, other = vector(tiny_lm), make_lm("llama", seed=1)
    with pytest.raises(UserError) as error:
        v.check(other)
    assert tiny_lm.fingerprint in str(error.value) and other.fingerprint in str(error.value)
    v.check(other, force=True)


@pytest.mark.parametrize(("layers", "d"), [(range(4), 16), (range(5), 32)])
def test_no_force_makes_another_width_or_depth_fit(tiny_lm, layers, d):
    with pytest.raises(UserError, match=r"d=32 and layers 0\.\.3"):
        vector(tiny_lm, layers, d).check(tiny_lm, force=True)


def test_absent_layer_names_the_layers_there_are(tiny_lm):
    with pytest.raises(UserError, match=r"layer=9 not in 0\.\.3; choose --layers in that range"):
        vector(tiny_lm).at(9)
    with pytest.raises(UserError, match="layer=2 not in 1, 3"):
        vector(tiny_lm, layers=(3, 1)).at(2)


def test_broken_vectors_are_refused(tiny_lm):
    good = vector(tiny_lm)
    for broken, message in (
        ({}, "at least one"),
        ({0: good.at(0), 1: good.at(1) / 0}, "layer 1 .* NaN or infinity"),
        ({0: good.at(0), 1: good.at(1)[:4]}, "layer 1 .* shape"),
    ):
        with pytest.raises(UserError, match=message):
            dataclasses.replace(good, directions=broken)


def test_files_that_are_no_steering_vector_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"is no file; make one with python -m steering\.extract"):
        SteeringVector.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("not a tensor in sight")
    save_file({"layer.0": torch.zeros(3)}, tmp_path / "bare.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "weights.safetensors")
    for name in ("text", "bare", "weights"):
        with pytest.raises(UserError, match=f"{name}.safetensors"):
            SteeringVector.load(tmp_path / f"{name}.safetensors")


def pair(lm, **changes):
    a = vector(lm, span="last", card={"n": 3, "contrast": "minimal", "task": "arithmetic"})
    g = torch.Generator().manual_seed(1)
    directions = {k: torch.randn(32, generator=g) for k in range(4)}
    card = {"n": 5, "contrast": "minimal", "task": "dialogue"}
    return a, dataclasses.replace(a, directions=directions, method="lat", card=card, **changes)


def close(a, b):
    assert a.layers == b.layers
    for k in a.layers:
        torch.testing.assert_close(a.at(k), b.at(k), atol=1e-5, rtol=1e-5)


def test_vectors_of_one_model_form_a_vector_space(tiny_lm):
    a, b = pair(tiny_lm)
    close(a + b, b + a)
    close((a + b) - b, a)
    close(2 * a + a * -2.0 + b, b)
    close(0.5 * (a - b), -(0.5 * (b - a)))
    close(a.interpolate(b, 0), a)
    close(a.interpolate(b, 1), b)
    close(a.interpolate(b, 0.25), 0.75 * a + 0.25 * b)
    for k in range(4):
        torch.testing.assert_close((a + b).at(k), a.at(k) + b.at(k), atol=0, rtol=0)


def test_normalised_has_the_norm_and_the_direction(tiny_lm):
    a, _ = pair(tiny_lm)
    for k in a.layers:
        v = a.normalised(3).at(k)
        assert float(v.norm()) == pytest.approx(3, rel=1e-6)
        assert float(torch.cosine_similarity(v, a.at(k), dim=0)) == pytest.approx(1, abs=1e-6)
    close(a.normalised().normalised(), a.normalised(1.0))
    zero = dataclasses.replace(a, directions={1: torch.zeros(32)})
    for make in (zero.normalised, lambda: a.only([1]).without(zero)):
        with pytest.raises(UserError, match="layer 1 of the vector is 0"):
            make()


def test_without_is_orthogonal_idempotent_and_finds_nothing_along_the_other(tiny_lm):
    a, b = pair(tiny_lm)
    rest = a.without(b)
    for k in a.layers:
        assert abs(float(rest.at(k) @ b.at(k))) < 1e-5 * float(a.at(k).norm() * b.at(k).norm())
    close(rest.without(b), rest)
    close(rest.without(-3 * b), rest)
    # What was taken away runs along b.
    for k in a.layers:
        taken = (a - rest).at(k)
        assert abs(float(torch.cosine_similarity(taken, b.at(k), dim=0))) == pytest.approx(1, abs=1e-5)
    with pytest.raises(UserError, match="nothing of layer 0 is left"):
        a.without(-2 * a)


def test_the_card_of_a_result_says_how_it_was_made_and_of_what(tiny_lm, tmp_path):
    a, b = pair(tiny_lm)
    made = (2 * a - b).normalised(3).without(b)
    assert (made.method, made.span, made.fingerprint) == ("combined", "last", tiny_lm.fingerprint)
    assert made.card["operation"] == "a without b" and made.card["contrast"] == "minimal"
    assert "n" not in made.card and "task" not in made.card
    normalised, other = made.card["parents"]
    assert other == b.record() and other["digest"] == b.digest != a.digest and other["card"] == b.card
    assert normalised["card"]["operation"] == "a at norm 3"
    (difference,) = normalised["card"]["parents"]
    assert difference["card"]["operation"] == "a - b"
    assert difference["card"]["parents"][0]["card"]["operation"] == "2 a"
    assert (a + a).method == "diff_means" and (-a).card["task"] == "arithmetic"
    back = SteeringVector.load(made.save(tmp_path / "made.safetensors"))
    assert back.card == made.card and back.digest == made.digest
    assert a.card == {"n": 3, "contrast": "minimal", "task": "arithmetic"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "0" * 16}, "fingerprint='0000"),
        ({"site": "mlp_out"}, "site='resid_post' and site='mlp_out'"),
        ({"template": "chatml"}, "template='lab' and template='chatml'"),
    ],
)
def test_vectors_of_unlike_spaces_are_not_combined(tiny_lm, changes, message):
    a, b = pair(tiny_lm)
    b = dataclasses.replace(b, **changes)
    for combine in (a.__add__, a.__sub__, a.without, lambda other: a.interpolate(other, 0.5)):
        with pytest.raises(UserError, match=message) as error:
            combine(b)
        assert "\n" not in str(error.value)


def test_vectors_of_other_layers_or_widths_are_not_combined(tiny_lm):
    a, b = pair(tiny_lm)
    with pytest.raises(UserError, match=r"layers=\(0, 1, 2, 3\) and layers=\(1, 2\).*only"):
        a + b.only([2, 1])
    close(a.only([1, 2]) + b.only([2, 1]), (a + b).only([1, 2]))
    with pytest.raises(UserError, match=r"layer=7 not in 0\.\.3"):
        a.only([7])
    with pytest.raises(UserError, match="d=32 and d=16"):
        a + vector(tiny_lm, d=16)


def test_numbers_that_are_none_are_refused(tiny_lm):
    a, b = pair(tiny_lm)
    for make in (lambda: a * float("nan"), lambda: a.interpolate(b, float("inf")), lambda: a.normalised(-1)):
        with pytest.raises(UserError, match=r"nan is not finite|inf is not finite|not above 0"):
            make()
