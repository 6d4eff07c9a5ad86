import numpy as np
import pytest
import torch

from corrector.errors import UserError
from corrector.tasks.base import Pair
from corrector.tasks.dialogue import Dialogue
from probes.classifiers.baselines import (
    as_corrector,
    default_upstream,
    nll_in_prompt,
    nll_of_upstream,
    surface,
    untrained,
)
from probes.classifiers.items import Items
from probes.classifiers.labels import Target
from probes.classifiers.models import fitter
from probes.classifiers.transfer import Space, align, matched_layers, on_shuffled, on_target, probe_at, ways

N = {"train": 200, "validation": 60, "test": 80, "seen": 0}


def spaces(d_target, seed=0):
    """A space with a label along one axis, and the same items seen through a random map plus noise."""
    rng = np.random.default_rng(seed)
    y = {part: rng.random(n) < 0.5 for part, n in N.items()}
    problems = {part: tuple(f"{part}{i // 2}" for i in range(n)) for part, n in N.items()}
    target = Target("is_wrong", {p: np.arange(n) for p, n in N.items()}, y, problems, y["train"])
    source = {part: rng.normal(size=(n, 10)) * np.linspace(3, 1, 10) for part, n in N.items()}
    for part in N:
        source[part][:, 4] += 4 * y[part]
    w = np.linalg.qr(rng.normal(size=(max(10, d_target), max(10, d_target))))[0][:10, :d_target]
    other = {part: h @ w + 7 + 0.1 * rng.normal(size=(len(h), d_target)) for part, h in source.items()}
    targets = {"is_wrong": target}
    return Space("a", (0,), {("last", 0): source}, targets), Space("b", (3,), {("last", 3): other}, targets)


def probed(source, target, way="none"):
    probe, _ = probe_at(source, "is_wrong", "last", 0, fitter("logistic"))
    if way == "shuffled":
        return on_shuffled(probe, source, target, "is_wrong", ("last", 0), 0)
    return on_target(probe, way, source, target, "is_wrong", ("last", 0), 0, 50)


def test_a_probe_reads_a_rotated_model_once_it_is_aligned():
    source, target = spaces(10)
    assert ways(source, target, 0, "corrector") == ("raw", "aligned", "shuffled")
    own = probed(source, source)["auroc"]
    assert own > 0.94 and probed(source, target, "aligned")["auroc"] > own - 0.02
    assert probed(target, source, "aligned")["auroc"] > 0.94
    assert abs(probed(source, target, "raw")["auroc"] - 0.5) < own - 0.55


def test_maps_of_shuffled_items_give_either_sign_of_the_largest_axis():
    source, target = spaces(10)
    null = probed(source, target, "shuffled")
    assert null["n_shuffles"] == 20 and 0.2 < null["auroc"] < 0.8 and null["high"] - null["low"] > 0.4
    assert null == probed(source, target, "shuffled")
    assert null["accuracy_low"] <= null["accuracy"] <= null["accuracy_high"]


def test_unlike_widths_are_aligned_by_least_squares_and_never_compared_raw():
    source, target = spaces(16)
    assert ways(source, target, 0, "corrector") == ("aligned", "shuffled")
    for a, b in ((source, target), (target, source)):
        assert probed(a, b, "aligned")["auroc"] > 0.94
        assert abs(probed(a, b, "shuffled")["auroc"] - 0.5) < 0.35
    assert ways(source, source, 0, "corrector") == ("none",) == ways(source, target, 0, "task")


def test_align_finds_a_rotation_exactly_and_is_orthogonal():
    rng = np.random.default_rng(0)
    h = rng.normal(size=(50, 8))
    q = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    found = align(h, h @ q + 3)
    np.testing.assert_allclose(found.w, q, atol=1e-10)
    np.testing.assert_allclose(found(h), h @ q + 3, atol=1e-10)
    noisy = align(h, rng.normal(size=(50, 8)))
    np.testing.assert_allclose(noisy.w @ noisy.w.T, np.eye(8), atol=1e-10)
    with pytest.raises(UserError, match="aligning 1 with 1 items"):
        align(h[:1], h[:1])


def test_layers_are_matched_by_relative_depth():
    assert matched_layers((0, 1, 2, 3, 4, 5), 6, 6) == (0, 1, 2, 3, 4, 5)
    assert matched_layers((0, 2, 5), 6, 4) == (0, 1, 3) and matched_layers((0,), 1, 4) == (0,)


def pairs():
    texts = [("Tom has 3 pens", "", "he has 3 pens."), ("how many", "he gets 3 pens.", "so she has 4 apples.")]
    return [Pair(f"p{i}", *t, t[2]) for i, t in enumerate(texts)]


def test_perplexities_equal_a_plain_forward(tiny_lm):
    for pair, own, up in zip(pairs(), nll_in_prompt(tiny_lm, pairs()), nll_of_upstream(tiny_lm, pairs()), strict=True):
        encoded = tiny_lm.encode(pair.question, pair.prefix, pair.last)
        ids = torch.tensor([encoded.ids])
        start, end = encoded.spans["last"]
        logp = tiny_lm.model(ids).logits[0].double().log_softmax(-1)
        plain = -torch.stack([logp[i - 1, ids[0, i]] for i in range(start, end)]).mean()
        assert own[0] == pytest.approx(float(plain), abs=1e-5)
        lead = " " if pair.prefix else ""
        text = f"<q>{pair.question}<p>{pair.prefix}"
        prompt, whole = (
            tiny_lm.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, text + lead + pair.last)
        )
        logp = tiny_lm.model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        assert whole[: len(prompt)] == prompt
        plain = -torch.stack([logp[i - 1, whole[i]] for i in range(len(prompt), len(whole))]).mean()
        assert up[0] == pytest.approx(float(plain), abs=1e-5)


def test_words_that_the_upstream_cannot_write_are_counted_and_left_out_of_its_perplexity(make_lm):
    lm = make_lm()
    known, unknown = (Pair("p", "how many", "", last, last) for last in ("he has 3 pens.", "he has 3 zebras."))
    got = nll_of_upstream(lm, [known, unknown])
    assert got[:, 1].tolist() == [0, pytest.approx(1 / 6)]
    assert lm.tokenizer.tokenize("he has 3 zebras.") == ["he", " has", " ", "3", "<unk>", "."]
    with pytest.raises(UserError, match="'zebras' is not in this model's vocabulary"):
        nll_of_upstream(lm, [Pair("p", "zebras", "", "he", "he")])


def test_surface_features_are_what_they_are_called(tiny_lm):
    a, b = pairs()
    items = Items((a,), (b,), (Pair("p2", "Mia", "", "yes.", "yes."),), ())
    made = {baseline.name: baseline for baseline in surface(tiny_lm, tiny_lm, Dialogue(), items)}
    assert list(made) == ["prior", "length", "position", "perplexity_corrector", "perplexity_upstream", "bag_of_words"]
    assert made["length"].features["train"].tolist() == [[14.0]]
    assert made["position"].features["train"].tolist() == [[0.0, 0.0]]
    assert made["position"].features["validation"].tolist() == [[1.0, 15.0]]
    assert made["bag_of_words"].features["train"].sum() == 5 and made["bag_of_words"].features["seen"].shape[0] == 0
    assert "perplexity_upstream" not in {b.name for b in surface(tiny_lm, None, Dialogue(), items)}


def test_an_untrained_model_has_the_shape_and_nothing_else(tiny_lm):
    state = torch.get_rng_state()
    fresh, again, other = untrained(tiny_lm, 1), untrained(tiny_lm, 1), untrained(tiny_lm, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert fresh.fingerprint == again.fingerprint != other.fingerprint and fresh.fingerprint != tiny_lm.fingerprint
    shapes = [{k: tuple(w.shape) for k, w in lm.model.state_dict().items()} for lm in (fresh, tiny_lm)]
    assert shapes[0] == shapes[1] and fresh.encode("Tom", "", "he") == tiny_lm.encode("Tom", "", "he")


def test_another_model_reads_the_correctors_prompt(make_lm):
    lm, other = make_lm(), make_lm(template_name="plain")
    assert as_corrector(other, lm).encode("Tom", "", "he").ids == lm.encode("Tom", "", "he").ids


def test_a_task_without_a_shipped_upstream_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"question": "a", "prefix": "", "last": "b", "correction": "c"}')
    from corrector.tasks.jsonl import Jsonl

    assert default_upstream(Dialogue()) == "dialogue-upstream"
    with pytest.raises(UserError, match="'jsonl' ships no upstream"):
        default_upstream(Jsonl(str(tmp_path / "a.jsonl")))
