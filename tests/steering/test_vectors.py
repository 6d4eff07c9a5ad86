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
