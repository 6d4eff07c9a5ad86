import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from corrector.errors import UserError
from probes.scanning.curves import (
    NEAR,
    Resamples,
    auroc_curve,
    layer_auroc,
    onset,
    rank_correlation,
    saturation,
    share_curve,
    shuffled_fits,
    spearman_curve,
)

N_LAYERS, D = 5, 16


def generator(seed=0):
    return np.random.default_rng(seed)


def classes(seed, n_train=80, n_test=60, first=2, size=2.0):
    """(positives, negatives) [layer, item, d] of train and of test; a direction is present from layer `first` on."""
    rng = generator(seed)
    axis = rng.normal(size=D)
    axis /= np.linalg.norm(axis)
    out = []
    for n in (n_train, n_test):
        pos, neg = rng.normal(size=(2, N_LAYERS, n, D))
        pos[first:] += size * axis
        out.append((pos, neg))
    return out


def fitted_curve(train, test, problems=None, n_shuffles=200, n_resamples=200):
    directions = (train[0] - train[1]).mean(1)
    pos, neg = (np.einsum("lnd,ld->nl", h, directions) for h in test)
    null = shuffled_fits(train[0] - train[1], *test, n_shuffles, generator(1))
    names = problems or [f"p{i}" for i in range(pos.shape[0])]
    return auroc_curve(pos, neg, Resamples.of(names, n_resamples, generator(2)), null)


def test_a_direction_present_from_layer_2_on_has_onset_2():
    found = fitted_curve(*classes(0))
    assert found.onset == 2 and found.saturation >= 2
    assert found.onset_draws.count(2) >= 0.8 * len(found.onset_draws) and min(found.saturation_draws) >= 2
    assert max(found.value[:2]) < found.null_high < min(found.low[2:])
    assert found.null_low < 0.5 < found.null_high and found.n_items == found.n_problems == 60


def test_shuffled_labels_have_no_onset():
    (pos, neg), test = classes(0)
    swap = generator(3).random((1, pos.shape[1], 1)) < 0.5
    shuffled = np.where(swap, neg, pos), np.where(swap, pos, neg)
    swap = generator(4).random((1, test[0].shape[1], 1)) < 0.5
    found = fitted_curve(shuffled, (np.where(swap, test[1], test[0]), np.where(swap, test[0], test[1])))
    assert found.onset is None and found.saturation is None
    assert found.onset_draws.count(None) > len(found.onset_draws) / 2


def test_noise_leaves_the_band_as_seldom_as_it_should():
    """The band is of whole curves, so looking at many layers finds no more than 2.5 % onsets by chance."""
    found = [fitted_curve(*classes(seed, 30, 25, first=N_LAYERS), n_resamples=2) for seed in range(80)]
    assert sum(f.onset is not None for f in found) <= 7  # P(more than 7 of 80 at 2.5 %) is .001
    assert sum(min(f.value) < f.null_low for f in found) <= 7


def test_the_band_does_not_grow_with_the_signal():
    """Where labels are shuffled in the train pairs alone, a strong axis makes every AUROC near 0 or 1."""
    train, test = classes(0, size=40.0, first=0)
    found = fitted_curve(train, test)
    assert found.value == (1.0,) * N_LAYERS and found.null_high < 0.75 and found.onset == 0
    signs = generator(1).choice([-1.0, 1.0], (50, train[0].shape[1]))
    directions = signs @ (train[0] - train[1])[0]
    true_labels = layer_auroc(test[0][0] @ directions.T, test[1][0] @ directions.T)
    assert np.quantile(true_labels, 0.975) > 0.99


def test_auroc_is_the_area_under_the_curve_with_ties():
    rng = generator(0)
    pos, neg = rng.integers(0, 4, (30, 3)).astype(float), rng.integers(0, 3, (20, 3)).astype(float)
    truth = [roc_auc_score([1] * 30 + [0] * 20, np.concatenate([pos[:, k], neg[:, k]])) for k in range(3)]
    assert layer_auroc(pos, neg) == pytest.approx(truth)


def test_a_resamples_auroc_is_that_of_the_repeated_pairs():
    rng = generator(5)
    pos, neg = rng.normal(size=(2, 12, 2)).round(1)
    problems = [f"p{i % 5}" for i in range(12)]
    resamples = Resamples.of(problems, 20, generator(6))
    found = auroc_curve(pos, neg, resamples, np.full((3, 2), 0.5))
    draws = []
    for weights in resamples.weights.astype(int):
        repeated = np.repeat(np.arange(12), weights[resamples.codes])
        draws.append(layer_auroc(pos[repeated], neg[repeated]))
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    assert found.low == pytest.approx(low) and found.high == pytest.approx(high)
    assert found.onset_draws == tuple(onset(d, found.null_high) for d in np.array(draws))


def test_rank_correlation_is_spearmans():
    rng = generator(0)
    scores, y = rng.integers(0, 6, (25, 3)).astype(float), rng.integers(0, 5, 25).astype(float)
    assert rank_correlation(scores, y) == pytest.approx([spearmanr(scores[:, k], y).statistic for k in range(3)])
    assert np.isnan(rank_correlation(np.ones((25, 1)), y)).all()


def test_extent_is_found_where_it_is_planted_and_not_before():
    rng = generator(0)
    y = rng.random(50)
    scores = rng.normal(size=(50, 4))
    scores[:, 3] += 6 * y
    resamples = Resamples.of([f"p{i}" for i in range(50)], 100, generator(1))
    found = spearman_curve(scores, y, resamples, 200, generator(2))
    assert found.statistic == "spearman" and found.onset == found.saturation == 3
    assert found.onset_draws.count(3) >= 90 and set(found.saturation_draws) == {3}
    shuffled = spearman_curve(scores, rng.permutation(y), resamples, 200, generator(2))
    assert shuffled.onset is None
    with pytest.raises(UserError, match="correlates with nothing"):
        spearman_curve(scores, np.ones(50), resamples, 100, generator(2))


def test_share_has_no_band_and_saturates_near_its_largest():
    hits = np.array([[0, 1, 1], [0, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=float)
    found = share_curve(hits, Resamples.of(["a", "b", "b", "c"], 500, generator(0)))
    assert found.value == (0.25, 0.75, 1.0) and found.null_high is None and found.onset is None
    assert found.saturation == 2 and set(found.saturation_draws) == {1, 2}  # 1 where the miss is not drawn
    assert found.high[0] > 0.25 and found.low[0] == 0.0


def test_onset_and_saturation_layers():
    values = np.array([0.5, 0.7, 0.9, 0.95, 0.96])
    assert onset(values, 0.65) == 1 and onset(values, 0.96) is None and onset(values, None) is None
    assert saturation(values, 0.65) == 3 and values[3] >= values[4] - NEAR
    assert saturation(values, 0.96) is None and saturation(values, None) == 3
    assert saturation(np.array([0.5, np.nan]), 0.1) is None
    low = np.array([0.55, 0.565, 0.56])
    assert onset(low, 0.56) == saturation(low, 0.56) == 1  # never a layer below the band


def test_curves_of_the_same_problems_share_their_resamples():
    names = ["b", "a", "c", "b"]
    one, two = (Resamples.of(x, 50, generator(9)) for x in (names, [*names, *names]))
    assert np.array_equal(one.weights, two.weights) and two.codes.tolist() == [*one.codes, *one.codes]
    with pytest.raises(UserError, match="1 problems give no interval"):
        Resamples.of(["a", "a"], 5, generator(0))


def test_the_record_of_a_curve_is_plain():
    row = dataclasses.asdict(fitted_curve(*classes(1), n_resamples=10))
    assert len(row["value"]) == N_LAYERS and len(row["onset_draws"]) == 10
    assert all(type(x) is float for x in (*row["value"], row["null_high"]))
    assert all(x is None or type(x) is int for x in (*row["onset_draws"], row["saturation"]))
