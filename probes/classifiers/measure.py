"""Everything that is said of one classifier on one label: fitted on train, measured on test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from corrector.errors import UserError
from corrector.statistics import bootstrap_mean
from probes.capture import Activations
from probes.classifiers.calibration import brier, ece
from probes.classifiers.labels import Target
from probes.classifiers.mdl import online_code
from probes.classifiers.models import Classifier, Fit, Matrix
from probes.classifiers.selectivity import difference
from probes.directions import Direction
from probes.separability import Separability, auroc, separability

Features = Mapping[str, Float[np.ndarray, "_ d"]]
"""A matrix a part (train, validation, test, seen), a row an item."""


def measure(features: Features, target: Target, fit: Fit, seed: int = 0, n_resamples: int = 1000) -> dict[str, Any]:
    """The metrics of a row of probes.jsonl.

    Fitted on train items; `auroc_validation` is what a layer is chosen by; all else is of test items, but the online
    code, which is of train labels. `control_accuracy` is of the same fit to the control task, on unseen items of the
    train problems (see `selectivity.difference`), and None with selectivity where there are no such items.
    """
    x = {part: features[part][rows] for part, rows in target.kept.items()}
    problems = target.problems["train"]
    fitted = fit(x["train"], target.y["train"], problems)
    code = online_code(fit, x["train"], target.y["train"], problems, seed)
    return {
        "auroc_validation": auroc_of(fitted, x["validation"], target.y["validation"]),
        **quality(fitted, x["test"], target.y["test"], target.problems["test"], seed, n_resamples),
        **_selectivity(x, target, fit, fitted, seed, n_resamples),
        "mdl_bits": code.bits,
        "uniform_bits": code.uniform_bits,
        "compression": code.compression,
        "c": fitted.c,
        "n_train": len(problems),
        "n_problems_train": len(set(problems)),
    }


def quality(
    fitted: Classifier,
    x: Matrix,
    y: Bool[np.ndarray, " n"],
    problems: Sequence[str],
    seed: int = 0,
    n_resamples: int = 1000,
) -> dict[str, Any]:
    """AUROC and accuracy at p = 0.5, each with its interval over problems, calibration, and what they rest on.

    One seed gives the same resamples for every classifier on the same items, so rows compare pairwise.
    """
    scores = fitted.scores(x)
    p, hits = fitted.probability(x), (scores > 0) == y
    area = _area(scores, y, problems, seed, n_resamples)
    accuracy = bootstrap_mean(hits.astype(float), list(problems), n_resamples, seed)
    return {
        "auroc": area.auroc,
        "low": area.low,
        "high": area.high,
        "accuracy": accuracy.mean,
        "accuracy_low": _finite(accuracy.low),
        "accuracy_high": _finite(accuracy.high),
        "ece": ece(p, y),
        "brier": brier(p, y),
        "n": len(y),
        "n_positive": int(y.sum()),
        "n_problems": len(set(problems)),
    }


def _area(scores: np.ndarray, y: np.ndarray, problems: Sequence[str], seed: int, n_resamples: int) -> Separability:
    """AUROC of given scores with its interval: a score is an activation of width 1 and its direction is 1.

    The scores enter as ranks, which float32 holds exactly and AUROC cannot tell from them.
    """
    if not np.isfinite(scores).all():
        raise UserError("scores that are not finite; look at the activations")
    ranks = torch.from_numpy(rankdata(scores, "dense")).float()[:, None, None]
    pos, neg = (
        Activations(ranks[y == side], (0,), "", "", tuple(p for p, at in zip(problems, y, strict=True) if at == side))
        for side in (True, False)
    )
    rng = np.random.default_rng(seed)
    return separability({0: Direction(torch.ones(1), "scores")}, pos, neg, rng, n_resamples)[0]


def _selectivity(
    x: Features, target: Target, fit: Fit, fitted: Classifier, seed: int, n_resamples: int
) -> dict[str, Any]:
    names = ("control_accuracy", "selectivity", "selectivity_low", "selectivity_high")
    if not len(x["seen"]) or len(set(target.control.tolist())) < 2:
        return dict.fromkeys(names)
    control = fit(x["train"], target.control, target.problems["train"])
    hits = (control.scores(x["seen"]) > 0) == target.y["seen"]
    real = (fitted.scores(x["test"]) > 0) == target.y["test"]
    gap = difference(real, target.problems["test"], hits, target.problems["seen"], seed, n_resamples)
    return dict(
        zip(names, (float(hits.mean()), gap.value, _finite(gap.low), _finite(gap.high)), strict=True),
    )


def auroc_of(fitted: Classifier, x: Matrix, y: Bool[np.ndarray, " n"]) -> float:
    """AUROC of a classifier's scores, without an interval. Raises UserError where a class is empty."""
    scores = fitted.scores(x)
    return auroc(scores[y], scores[~y])


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
