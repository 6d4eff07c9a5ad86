import math
from itertools import pairwise

import numpy as np
import pytest

from corrector.errors import UserError
from probes.classifiers.calibration import brier, ece
from probes.classifiers.labels import Target
from probes.classifiers.mdl import FRACTIONS, online_code
from probes.classifiers.measure import measure, quality
from probes.classifiers.models import Classifier, fitter, prior
from probes.classifiers.selectivity import control_labels, difference

SIZES = {"train": 200, "validation": 60, "test": 100, "seen": 100}


def planted(signal, identity=0.0, d=12, seed=0):
    """Features with a label along axis 0, and with each train problem's own random point, `identity` times."""
    rng = np.random.default_rng(seed)
    problems, y, features = {}, {}, {}
    points = rng.normal(size=(100, d)) * identity
    for part, n in SIZES.items():
        index = np.arange(n) if part == "seen" else np.arange(n) // 2
        problems[part] = tuple(f"{'train' if part == 'seen' else part}-{i}" for i in index)
        y[part] = rng.random(n) < 0.5
        features[part] = rng.normal(size=(n, d))
        features[part][:, 0] += signal * (2 * y[part] - 1)
        if part in ("train", "seen"):
            features[part] += points[index]
    control = control_labels(problems["train"], float(y["train"].mean()))
    y["seen"] = np.array([control[p] for p in problems["seen"]])
    kept = {part: np.arange(n) for part, n in SIZES.items()}
    return features, Target("is_wrong", kept, y, problems, np.array([control[p] for p in problems["train"]]))


@pytest.mark.parametrize("name", ["logistic", "mass_mean", "lda"])
def test_a_planted_label_is_found_and_its_control_is_not(name):
    features, target = planted(2.5)
    row = measure(features, target, fitter(name), n_resamples=100)
    assert row["auroc"] > 0.98 and row["low"] <= row["auroc"] <= row["high"] and row["auroc_validation"] > 0.98
    assert row["accuracy_low"] > 0.9 and abs(row["control_accuracy"] - 0.5) < 0.15
    assert row["selectivity"] == pytest.approx(row["accuracy"] - row["control_accuracy"])
    assert row["selectivity_low"] > 0.25 and row["compression"] > 2 and row["brier"] < 0.08
    assert (row["n"], row["n_problems"], row["n_train"], row["n_problems_train"]) == (100, 50, 200, 100)
    assert row == measure(features, target, fitter(name), n_resamples=100)


@pytest.mark.parametrize("name", ["logistic", "lda"])
def test_features_without_the_label_are_at_chance_and_cost_the_uniform_code(name):
    areas, compressions = [], []
    for seed in range(3):
        features, target = planted(0.0, d=4, seed=seed)
        row = measure(features, target, fitter(name), n_resamples=100)
        assert row["low"] < 0.55 and row["high"] > 0.45
        areas.append(row["auroc"])
        compressions.append(row["compression"])
    assert abs(np.mean(areas) - 0.5) < 0.08 and 0.85 < np.mean(compressions) < 1.03


def test_a_probe_that_can_tell_the_problems_apart_loses_its_selectivity():
    blind = measure(*planted(2.5, d=60), fitter("logistic"), n_resamples=50)
    memory = measure(*planted(2.5, identity=3.0, d=60), fitter("logistic"), n_resamples=50)
    assert memory["control_accuracy"] > 0.8 > 0.65 > blind["control_accuracy"]
    assert memory["selectivity"] < blind["selectivity"] - 0.2


def test_control_labels_are_of_the_problem_balanced_and_from_its_hash():
    names = [f"p{i}" for i in range(40)]
    labels = control_labels(names, 0.25)
    assert sum(labels.values()) == 10 and labels == control_labels([*names[::-1], "p3"], 0.25)
    assert labels != control_labels(names, 0.25, seed=1)
    assert [n for n, on in labels.items() if on] == [n for n, on in control_labels(names, 0.5).items() if on][:10]


def test_selectivity_is_a_difference_of_means_with_an_interval_over_problems():
    real, control = np.array([True] * 9 + [False]), np.array([True, False] * 10)
    ids = [f"p{i}" for i in range(20)]
    got = difference(real, ids[:10], control, ids, n_resamples=2000)
    assert got.value == pytest.approx(0.4) and got.low < 0.2 and 0.55 < got.high < 0.85
    # items repeated within their problem are no new evidence
    again = difference(np.repeat(real, 5), np.repeat(ids[:10], 5).tolist(), control, ids, n_resamples=2000)
    assert (again.low, again.high) == pytest.approx((got.low, got.high), abs=0.05)
    with pytest.raises(UserError, match="10 real and 0 control"):
        difference(real, ids[:10], control[:0], [])


def test_the_online_code_codes_each_block_from_the_blocks_before_it():
    problems = [f"p{i % 32}" for i in range(96)]
    y = np.arange(96) % 3 == 0
    seen = []

    def fit(x, labels, groups):
        seen.append(set(groups))
        assert len(labels) == 3 * len(seen[-1])  # whole problems
        return Classifier(lambda at: np.full(len(at), math.log(1 / 3)))  # p(1) = 1/4

    code = online_code(fit, np.zeros((96, 1)), y, problems)
    assert [len(s) for s in seen] == [2, 4, 8, 16] == [round(32 * f) for f in FRACTIONS[:-1]]
    assert all(a < b for a, b in pairwise(seen))
    first = np.isin(problems, list(seen[0]))
    assert first.sum() == 6
    ones, zeros = int(y[~first].sum()), int((~y[~first]).sum())
    assert code.bits == pytest.approx(6 + ones * 2 + zeros * math.log2(4 / 3))
    assert code.compression == pytest.approx(96 / code.bits) and code.uniform_bits == 96
    with pytest.raises(UserError, match="no labels"):
        online_code(fit, np.zeros((0, 1)), y[:0], [])


def test_a_block_before_which_a_class_is_missing_costs_a_bit_a_label():
    y = np.zeros(64, dtype=bool)
    code = online_code(prior, np.zeros((64, 1)), y, [f"p{i}" for i in range(64)])
    assert code.bits == 64


def test_calibration_of_known_cases():
    y = np.array([True] * 6 + [False] * 4)
    assert ece(np.full(10, 0.9), y) == pytest.approx(0.3)
    assert brier(np.full(10, 0.9), y) == pytest.approx(0.6 * 0.01 + 0.4 * 0.81)
    assert ece(np.full(10, 0.6), y) == pytest.approx(0) and brier(y.astype(float), y) == 0
    assert ece(y.astype(float), y) == 0 == ece(np.array([1.0, 0.0]), np.array([True, False]))
    assert ece(np.array([1.0, 0.0]), np.array([False, True])) == 1
    for p, of in ((np.zeros(0), y[:0]), (np.array([1.2]), y[:1])):
        with pytest.raises(UserError, match="calibration of"):
            ece(p, of)


def test_ece_equals_a_plain_loop_over_bins():
    rng = np.random.default_rng(0)
    p = rng.random(500)
    y = rng.random(500) < p**2
    plain = 0.0
    for b in range(10):
        inside = (p >= b / 10) & (p < (b + 1) / 10)
        plain += inside.mean() * abs(y[inside].mean() - p[inside].mean())
    assert ece(p, y) == pytest.approx(plain) and plain > 0.1


def test_an_overconfident_classifier_is_seen_by_calibration_and_not_by_auroc():
    features, target = planted(0.7)
    honest = fitter("logistic")(features["train"], target.y["train"], target.problems["train"])
    loud = Classifier(lambda at: 10 * honest.scores(at))
    a, b = (quality(c, features["test"], target.y["test"], target.problems["test"]) for c in (honest, loud))
    same = ("auroc", "low", "high", "accuracy", "n", "n_positive")
    assert [a[k] for k in same] == [b[k] for k in same]
    assert b["ece"] > a["ece"] + 0.05 and b["brier"] > a["brier"]
    with pytest.raises(UserError, match="not finite"):
        nan = Classifier(lambda at: np.full(len(at), np.nan))
        quality(nan, features["test"], target.y["test"], target.problems["test"])
