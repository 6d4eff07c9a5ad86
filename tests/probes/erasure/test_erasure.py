import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from corrector.errors import UserError
from corrector.tasks.base import Pair
from probes.capture import capture_tokens
from probes.erasure import (
    Eraser,
    Items,
    complement,
    decision_gap,
    fit_eraser,
    leace,
    mean_projection,
    measure,
    probe_auroc,
    probe_scores,
    random_eraser,
    shuffled_labels,
    size_matched,
)
from probes.erasure.erasers import checked
from probes.separability import resample
from probes.spans import sequence

D = 16


def planted(n=800, seed=0, signal=3.0):
    """Correlated states whose class means differ along one axis; the labels are of unequal size."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    labels = torch.rand(n, generator=g) < 0.4
    h = torch.randn(n, D, generator=g, dtype=torch.float64) @ mixing / math.sqrt(D) + 5
    h[:, 3] += signal * labels.double()
    return h, labels


def covariance(h, labels):
    return (h - h.mean(0)).T @ (labels.double() - labels.double().mean()) / len(h)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


ERASERS = {
    "leace": leace,
    "leace without shrinkage": lambda h, z: leace(h, z, shrinkage=False),
    "mean_projection": mean_projection,
    "shuffled_labels": lambda h, z: shuffled_labels(h, z, generator()),
    "complement": complement,
    "matched": lambda h, z: size_matched(h, z, 0.3, generator()),
    "random": lambda h, z: random_eraser(h, 3, generator()),
}
RANKS = {"complement": D - 1, "matched": 3, "random": 3}
GUARDING = list(ERASERS)[:3]


@pytest.mark.parametrize("name", GUARDING)
def test_a_probe_that_succeeds_before_erasure_is_at_chance_after_it(name):
    h, z = planted()
    held, held_z = planted(2000, seed=1)
    before = LogisticRegression(C=10, max_iter=1000).fit(h, z)
    assert before.score(h, z) > 0.95 and before.score(held, held_z) > 0.95
    eraser = ERASERS[name](h, z)
    after = LogisticRegression(C=10, max_iter=1000).fit(eraser(h), z)
    chance = float((~z).double().mean())
    assert after.score(eraser(h), z) == pytest.approx(chance, abs=1e-9)
    assert after.score(eraser(held), held_z) == pytest.approx(float((~held_z).double().mean()), abs=1e-9)
    # A probe of other states than the eraser's finds next to nothing either.
    other, other_z = planted(seed=2)
    scores = [probe_scores(f(other)[:, None], other_z, f(held)[:, None]) for f in (lambda x: x, eraser)]
    found, left = (probe_auroc(s, held_z.tolist(), [str(i % 200) for i in range(2000)])[0] for s in scores)
    assert found.low > 0.98 and 0.44 < left.auroc < 0.58


@pytest.mark.parametrize("name", GUARDING)
@pytest.mark.parametrize("n", [800, D // 2])
def test_erased_states_do_not_covary_with_the_labels(name, n):
    h, z = planted(n)
    assert covariance(h, z).abs().max() > 0.1
    assert covariance(ERASERS[name](h, z)(h), z).abs().max() < 1e-8


@pytest.mark.parametrize("name", ["shuffled_labels", "random", "complement", "matched"])
def test_nulls_leave_the_concept(name):
    h, z = planted()
    erased = ERASERS[name](h, z)(h)
    assert covariance(erased, z).abs().max() > 0.3
    assert LogisticRegression(max_iter=5000).fit(erased, z).score(erased, z) > 0.9


@pytest.mark.parametrize("name", ERASERS)
def test_an_eraser_is_idempotent_keeps_the_mean_and_writes_a_new_tensor(name):
    h, z = planted()
    eraser, before = ERASERS[name](h, z), h.clone()
    once = eraser(h)
    assert torch.equal(h, before) and not torch.equal(once, h)
    torch.testing.assert_close(eraser(once), once, atol=1e-10, rtol=0)
    torch.testing.assert_close(once.mean(0), h.mean(0), atol=1e-10, rtol=0)
    torch.testing.assert_close(eraser.right.T @ eraser.left, torch.eye(eraser.rank, dtype=torch.float64))
    assert eraser.rank == RANKS.get(name, 1) and eraser.d == D
    assert torch.linalg.matrix_rank(once - h, atol=1e-8) == eraser.rank
    centred = h - h.mean(0)
    assert eraser.moved == pytest.approx(float((once - h).square().sum() / centred.square().sum()), rel=1e-9)
    gone = 1 - float((once - h.mean(0)).square().sum() / centred.square().sum())
    assert eraser.removed == pytest.approx(gone, rel=1e-9) and eraser.scale == 1
    torch.testing.assert_close(eraser(h, 0.25), h + 0.25 * (once - h))
    assert torch.equal(eraser(h, 0.0), h)


def by_numpy(h, z):
    """LEACE as the paper writes it, theorem 4.2: x - W⁺ P W (x - μ), by an eigendecomposition of the covariance."""
    x, y = h.numpy(), z.numpy().astype(float)[:, None]
    mean, centred = x.mean(0), x - x.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
    kept = values > values.max() * 1e-12
    root = vectors[:, kept] * np.sqrt(values[kept])
    whiten, unwhiten = np.linalg.pinv(root), root
    cross = whiten @ (centred.T @ (y - y.mean()) / len(x))
    return x - centred @ (unwhiten @ cross @ np.linalg.pinv(cross) @ whiten).T, mean


@pytest.mark.parametrize("n", [800, D // 2])
def test_leace_equals_an_independent_implementation(n):
    h, z = planted(n)
    wanted, mean = by_numpy(h, z)
    eraser = leace(h, z, shrinkage=False)
    np.testing.assert_allclose(eraser(h).numpy(), wanted, atol=1e-8)
    np.testing.assert_allclose(eraser.mean.numpy(), mean, atol=1e-12)


def test_leace_moves_states_least_of_all_erasers_that_guard_in_every_norm():
    h, z = planted()
    best, centred = leace(h, z, shrinkage=False), h - h.mean(0)
    delta = covariance(h, z)
    g = generator(5)
    rivals = [mean_projection(h, z), leace(h, z)]
    for _ in range(20):
        # Any right side that the concept's direction is not orthogonal to makes a guarding, oblique projection.
        right = torch.randn(D, 1, generator=g, dtype=torch.float64)
        rivals.append(Eraser(delta[:, None] / (right.T @ delta), right, h.mean(0), "oblique"))
    norms = [torch.eye(D, dtype=torch.float64), torch.linalg.pinv(centred.T @ centred / len(h))]
    norms += [a.T @ a for a in torch.randn(3, D, D, generator=g, dtype=torch.float64)]
    for norm in norms:

        def moved(eraser, norm=norm):
            step = eraser(h) - h
            return float((step @ norm * step).sum(1).mean())

        assert all(covariance(r(h), z).abs().max() < 1e-8 for r in rivals)
        assert all(moved(best) <= moved(r) * (1 + 1e-9) for r in rivals)
    assert mean_projection(h, z).moved > 1.1 * best.moved


def test_shrinkage_keeps_the_change_small_where_states_are_few():
    h, z = planted(D + 2)
    held, _ = planted(2000, seed=1)

    def change(shrinkage):
        return float((leace(h, z, shrinkage)(held) - held).square().sum(1).mean())

    assert change(True) < change(False)


def test_classes_of_one_mean_leave_nothing_to_erase():
    h, _ = planted(50)
    both = torch.cat([h, h])
    labels = torch.arange(100) < 50
    eraser = leace(both, labels)
    assert eraser.rank == 0 and torch.equal(eraser(h), h) and eraser.moved == 0
    with pytest.raises(UserError, match="same mean"):
        mean_projection(both, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_states_keep_their_dtype_and_shape(dtype):
    h, z = planted()
    eraser = leace(h, z)
    some = h[:6].to(dtype)
    out = eraser(some.view(2, 3, D))
    assert out.dtype == dtype and out.shape == (2, 3, D)
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 0.1, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(out.view(6, D).double(), eraser(h[:6]), atol=tolerance, rtol=tolerance)


def test_random_erasers_follow_their_generator_and_remove_their_share():
    h, z = planted()
    a, b, c = (random_eraser(h, 4, generator(s)) for s in (0, 0, 1))
    assert torch.equal(a.left, b.left) and not torch.allclose(a.left, c.left)
    torch.testing.assert_close(a.left.T @ a.left, torch.eye(4, dtype=torch.float64))
    assert random_eraser(h, 0, generator()).rank == 0
    white = torch.randn(4000, D, generator=generator(2), dtype=torch.float64)
    assert a(white).var(0).sum() / white.var(0).sum() == pytest.approx(1 - 4 / D, abs=0.02)
    first, again, other = (shuffled_labels(h, z, generator(s)).right for s in (3, 3, 4))
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_the_name_of_a_fit_gives_that_fit():
    h, z = planted()
    for name, wanted in (("leace", leace(h, z)), ("mean_projection", mean_projection(h, z))):
        assert torch.equal(fit_eraser(name, h, z, generator()).right, wanted.right)
    for name in ("shuffled_labels", "complement", "matched"):
        eraser = fit_eraser(name, h, z, generator(), 0.3)
        assert eraser.method == name and torch.equal(eraser.right, ERASERS[name](h, z).right)
    assert fit_eraser("random", h, z, generator()).rank == 1
    with pytest.raises(UserError, match="method='ablate' is not one of leace, mean_projection"):
        fit_eraser("ablate", h, z, generator())


@pytest.mark.parametrize("name", [*GUARDING, "shuffled_labels", "complement", "matched"])
def test_states_that_cannot_be_fitted_are_refused(name):
    h, z = planted(20)
    fit = ERASERS[name]
    with pytest.raises(UserError, match="all 20 labels are True"):
        fit(h, torch.ones(20, dtype=torch.bool))
    with pytest.raises(UserError, match="no states"):
        fit(h[:0], z[:0])
    with pytest.raises(UserError, match="19 labels for 20 states"):
        checked(h, z[:19])  # the fits' own signatures say the same under test
    broken = h.clone()
    broken[7, 2] = float("nan")
    with pytest.raises(UserError, match="NaN or infinity in row 7"):
        fit(broken, z)


def test_random_erasers_refuse_an_impossible_rank_and_broken_states():
    h, _ = planted(20)
    with pytest.raises(UserError, match=r"rank=17 not in 0\.\.16"):
        random_eraser(h, D + 1, generator())
    with pytest.raises(UserError, match="no states"):
        random_eraser(h[:0], 1, generator())
    h[2, 0] = float("inf")
    with pytest.raises(UserError, match="row 2"):
        random_eraser(h, 1, generator())


def test_probe_scores_find_the_planted_layer_alone():
    (h, z), (held, held_z) = planted(), planted(600, seed=1)
    noise = [torch.randn(n, D, generator=generator(n), dtype=torch.float64) for n in (800, 600)]
    scores = probe_scores(torch.stack([noise[0], h], 1), z, torch.stack([noise[1], held], 1))
    blind, seeing = probe_auroc(scores, held_z.tolist(), [f"p{i // 2}" for i in range(600)])
    assert (blind.layer, seeing.layer, seeing.n_problems) == (0, 1, 300)
    assert blind.low < 0.5 < blind.high and seeing.low > 0.98
    assert probe_auroc(scores, [True] * 600, ["p"] * 600) == []
    with pytest.raises(UserError, match="all 800 labels"):
        probe_scores(h[:, None], torch.zeros(800, dtype=torch.bool), held[:, None])


def test_the_decision_gap_is_the_difference_of_two_rates_and_its_interval_a_plain_bootstrap():
    rewrote = [True, True, True, False, False, True]
    now = [True, False, True, True, False, True]
    problems = ["b", "a", "c", "c", "d", "b"]
    gap = decision_gap(now, rewrote, problems, seed=3)
    assert gap.mean == pytest.approx(3 / 4 - 1 / 2) and gap.n == 4
    values = []
    for row in resample(list("abcd"), 2000, np.random.default_rng(3)).astype(int):
        times = dict(zip("abcd", row, strict=True))
        drawn = [i for i in range(6) for _ in range(times[problems[i]])]
        sides = [[now[i] for i in drawn if rewrote[i] is side] for side in (True, False)]
        if all(sides):
            values.append(np.mean(sides[0]) - np.mean(sides[1]))
    assert len(values) < 2000
    assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_the_decision_gap_of_an_untouched_corrector_is_1_and_of_a_blind_one_0():
    rewrote, problems = [True, False] * 4, [f"p{i}" for i in range(8)]
    untouched = decision_gap(rewrote, rewrote, problems)
    assert (untouched.mean, untouched.low, untouched.high) == (1, 1, 1)
    assert decision_gap([True] * 8, rewrote, problems).mean == 0
    assert decision_gap(rewrote, [True] * 8, problems) is None
    alone = decision_gap(rewrote, rewrote, ["p"] * 8)
    assert alone.mean == 1 and math.isnan(alone.low)


def make_row(i, copied, rewrote, is_wrong, probe):
    fixed = {
        "eraser": "leace",
        "layers": [1],
        "rank": 1,
        "moved": 0.2,
        "removed": 0.2,
        "scale": 1.0,
        "wanted": None,
        "matched": None,
        "edit_ratio": 0.5,
        "well_formed": True,
        "kl": 0.1,
    }
    return {**fixed, "problem": f"p{i}", "copied": copied, "rewrote": rewrote, "is_wrong": is_wrong, "probe": probe}


def test_measure_counts_each_rate_over_the_items_that_it_is_of():
    rows = [
        make_row(0, copied=False, rewrote=True, is_wrong=True, probe=[0.0, 2.0, 1.0]),
        make_row(1, copied=True, rewrote=True, is_wrong=True, probe=[1.0, 1.0, 2.0]),
        make_row(2, copied=True, rewrote=False, is_wrong=True, probe=[1.0, 0.0, 3.0]),
        make_row(3, copied=False, rewrote=False, is_wrong=False, probe=[1.0, 0.0, 4.0]),
        make_row(4, copied=False, rewrote=True, is_wrong=None, probe=[2.0, 1.0, 5.0]),
    ]
    line = measure(rows)
    assert line["n"] == 5 and line["rewrites"] == pytest.approx(0.6) and line["copied"] == pytest.approx(0.4)
    assert line["missed_rewrite"] == pytest.approx(2 / 3) and line["false_rewrite"] == 1
    assert line["false_rewrite_low"] is None  # one problem has no interval
    assert line["gap"] == pytest.approx(2 / 3 - 1 / 2) and line["gap_low"] <= line["gap"] <= line["gap_high"]
    assert line["auroc_layers"] == pytest.approx([3 / 6, 6 / 6, 2 / 6])
    assert line["auroc"] == line["auroc_layers"][1] == 1 and line["auroc_last"] == line["auroc_layers"][2]
    assert (line["eraser"], line["layers"], line["rank"], line["moved"]) == ("leace", [1], 1, 0.2)


def test_the_difference_of_two_gaps_is_paired_item_by_item():
    rewrote = [True, False] * 6
    rows = [make_row(i, copied=i % 2 == 1, rewrote=rewrote[i], is_wrong=None, probe=[0.1, 0.1 * i]) for i in range(12)]
    base = [{**r, "copied": r["copied"] or i in (0, 2, 4)} for i, r in enumerate(rows)]  # copies 3 of 6 rewrites
    one, other = measure(rows), measure(base)
    both = measure(rows, leace=base)
    assert both["gap_over"] == pytest.approx(one["gap"] - other["gap"]) == pytest.approx(0.5)
    # With a gap of 1 in every resample the difference varies as the other gap does.
    assert both["gap_over_low"] == pytest.approx(1 - other["gap_high"])
    assert both["gap_over_high"] == pytest.approx(1 - other["gap_low"])
    assert measure(base, leace=base)["gap_over_high"] == 0 and one["gap_over"] is None
    with pytest.raises(ValueError, match="zip"):
        measure(rows, leace=base[1:])


def test_measure_says_none_where_there_is_nothing_to_count():
    rows = [make_row(i, copied=False, rewrote=True, is_wrong=None, probe=[0.1 * i, 0.3]) for i in range(4)]
    line = measure([{**r, "layers": []} for r in rows])
    names = ("gap", "auroc", "auroc_last", "false_rewrite", "missed_rewrite")
    assert all(line[name + end] is None for name in names for end in ("", "_low", "_high"))
    assert line["auroc_layers"] == [] and line["rewrites"] == 1


def test_states_are_read_at_each_items_own_places(tiny_lm):
    pairs = [Pair(f"p{i}", "Tom has 3 pens", "", "he has 3 pens" + " please" * i, "") for i in range(3)]
    sequences = [sequence(tiny_lm, p) for p in pairs]
    places = [[1, 2], [0, len(sequences[1]) - 1], [4]]
    items = Items(sequences, places, torch.tensor([True, False, True]))
    whole = capture_tokens(tiny_lm, sequences, layers=[1, 3], span="prompt")
    for got, wanted, place in zip(items.states(tiny_lm, [1, 3]), whole, places, strict=True):
        assert got.shape == (2, len(place), 32)
        torch.testing.assert_close(got, wanted[:, place], atol=2e-5, rtol=1e-4)
    empty = dataclasses.replace(items, places=[[1], [], [2]])
    with pytest.raises(UserError, match="item 1 has no token"):
        empty.states(tiny_lm, [1])
