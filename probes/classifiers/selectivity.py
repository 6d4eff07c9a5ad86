"""Selectivity: how much better a probe does on a label than on a random one that only memory could give."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from corrector.errors import UserError
from probes.separability import resample


@dataclass(frozen=True)
class Difference:
    """A difference of two mean accuracies with the ends of its 95 % interval; nan ends from a single problem."""

    value: float
    low: float
    high: float


def control_labels(problems: Iterable[str], share: float, seed: int = 0) -> dict[str, bool]:
    """The control task: a label a problem, 1 for the given share of problems whose hash with the seed is smallest.

    With `share` the real label's share of positives, both tasks have the same majority class. Items of one problem
    have one label, so a probe can learn it only by telling the problems apart. Source: 1909.03368, section 2.
    """
    names = sorted(set(problems), key=lambda p: hashlib.sha256(f"control/{seed}/{p}".encode()).digest())
    n_positive = round(share * len(names))
    return {name: i < n_positive for i, name in enumerate(names)}


def difference(
    real: Bool[np.ndarray, " n"],
    problems: Sequence[str],
    control: Bool[np.ndarray, " m"],
    control_problems: Sequence[str],
    seed: int = 0,
    n_resamples: int = 1000,
) -> Difference:
    """Selectivity = mean(real) - mean(control), both hits of the same kind of classifier fitted on the train items.

    `real` are hits on test items, whose questions are new. `control` are hits on unseen items of the *train*
    problems: on new problems a control label is a coin flip whatever the probe, and selectivity would say nothing of
    how much the probe can memorise. (In the paper train and test share word types in the same way.) The interval is
    of resampled problems, each side on its own. Raises UserError where a side is empty.
    """
    if not len(real) or not len(control):
        raise UserError(f"selectivity of {len(real)} real and {len(control)} control items; give some of each")
    generator = np.random.default_rng(seed)
    sides = [_means(hits, ids, generator, n_resamples) for hits, ids in ((real, problems), (control, control_problems))]
    low, high = np.quantile(sides[0] - sides[1], [0.025, 0.975])
    return Difference(float(real.mean() - control.mean()), float(low), float(high))


def _means(
    hits: np.ndarray, problems: Sequence[str], generator: np.random.Generator, n: int
) -> Float[np.ndarray, " resample"]:
    index = {p: i for i, p in enumerate(sorted(set(problems)))}
    if len(index) < 2:
        return np.full(n, np.nan)
    codes = [index[p] for p in problems]
    weights = resample(list(index), n, generator)
    return (weights @ np.bincount(codes, weights=hits)) / (weights @ np.bincount(codes))
