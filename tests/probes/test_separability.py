import numpy as np
import pytest
import torch

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions import diff_means, fit, random_direction
from probes.separability import _replicates, auroc, resample, separability


def test_auroc_counts_wins_and_half_the_ties():
    pos, neg = np.array([1.0, 2.0, 2.0]), np.array([0.0, 2.0])
    assert auroc(pos, neg) == pytest.approx((1 + 2 * 1.5) / 6)
    assert auroc(neg, pos) == pytest.approx(1 - auroc(pos, neg))
    with pytest.raises(UserError, match="0 positives"):
        auroc(pos[:0], neg)
    with pytest.raises(UserError, match="not finite"):
        auroc(np.array([np.nan]), neg)


def test_replicates_equal_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    ids_pos, ids_neg = tuple("aabbcde"), tuple("abccdde")
    pos, neg = rng.integers(0, 4, 7).astype(float) + 1, rng.integers(0, 4, 7).astype(float)
    weights = resample(list("abcde"), 20, rng)
    fast = _replicates(pos, neg, ids_pos, ids_neg, weights)
    for row, value in zip(weights, fast, strict=True):
        count = dict(zip("abcde", row.astype(int), strict=True))
        plain = [np.repeat(x, [count[i] for i in ids]) for x, ids in ((pos, ids_pos), (neg, ids_neg))]
        assert value == pytest.approx(auroc(*plain))


def make(signal, n=60, per_problem=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    ids = tuple(f"p{i // per_problem}" for i in range(n))
    neg, pos = torch.randn(n, 2, 16, generator=g), torch.randn(n, 2, 16, generator=g)
    pos[:, 1, 0] += signal
    return (Activations(h, (0, 1), "resid_post", "last", ids) for h in (pos, neg))


def test_a_planted_signal_is_found_on_held_out_problems_in_its_layer_alone():
    directions = fit("diff_means", *make(2.0, seed=0))
    rows = separability(directions, *make(2.0, seed=1), np.random.default_rng(0))
    noise, signal = rows
    assert (noise.layer, signal.layer, signal.method, signal.n_problems) == (0, 1, "diff_means", 30)
    assert signal.low > 0.8 and signal.low < signal.auroc < signal.high <= 1
    assert noise.low < 0.5 < noise.high
    assert rows == separability(directions, *make(2.0, seed=1), np.random.default_rng(0))


def test_a_random_direction_finds_nothing_on_average():
    pos, neg = make(1.0, n=400)
    g = torch.Generator().manual_seed(0)
    null = [random_direction(16, 1.0, g) for _ in range(20)]
    areas = [separability({1: u}, pos, neg, np.random.default_rng(0), 10)[0].auroc for u in null]
    assert abs(np.mean(areas) - 0.5) < 0.08
    assert max(areas) < auroc(*(diff_means(pos.at(1), neg.at(1)).scores(a.at(1)).numpy() for a in (pos, neg)))


def test_items_of_one_problem_widen_the_interval():
    def width(repeats):
        pos, neg = make(1.0, n=40, per_problem=1)
        h = [a.h.repeat_interleave(repeats, 0) for a in (pos, neg)]
        ids = tuple(i for i in pos.ids for _ in range(repeats))
        pos, neg = (Activations(x, (0, 1), "resid_post", "last", ids) for x in h)
        (row,) = separability({1: diff_means(pos.at(1), neg.at(1))}, pos, neg, np.random.default_rng(0))
        return row.high - row.low

    assert width(1) == pytest.approx(width(6), rel=0.05)  # rows repeated are no new evidence
