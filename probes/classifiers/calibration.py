"""Calibration: whether predicted probabilities are the frequencies they claim to be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from corrector.errors import UserError

BINS = 10


def ece(p: Float[np.ndarray, " n"], y: Bool[np.ndarray, " n"], bins: int = BINS) -> float:
    """Expected calibration error Σ_b (n_b / n) |mean(y in b) - mean(p in b)|, bins of equal width over [0, 1].

    p is the probability of the positive class, so 0 is perfect and 1 the worst. Raises UserError as `brier`.
    Source: Naeini et al. 2015, in its form for binary classifiers.
    """
    _check(p, y)
    at = np.minimum((p * bins).astype(int), bins - 1)
    gaps = np.bincount(at, weights=y, minlength=bins) - np.bincount(at, weights=p, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def brier(p: Float[np.ndarray, " n"], y: Bool[np.ndarray, " n"]) -> float:
    """Mean (p - y)², in [0, 1]; 0.25 is a coin flip. Raises UserError for no items or p outside [0, 1]."""
    _check(p, y)
    return float(((p - y) ** 2).mean())


def _check(p: np.ndarray, y: np.ndarray) -> None:
    if not len(p) or len(p) != len(y):
        raise UserError(f"calibration of {len(p)} probabilities and {len(y)} labels; give one of each an item")
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError("calibration of numbers outside 0..1; give probabilities")
