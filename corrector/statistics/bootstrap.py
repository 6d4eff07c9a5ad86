"""Means, ratios and their intervals, from resampling questions, and training seeds beside them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from corrector.errors import UserError
from corrector.statistics.numbers import CONFIDENCE, Interval, Numbers, numbers, paired


def bootstrap_mean(
    values: Numbers,
    groups: Sequence[Hashable] | ndarray | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean over items, with a percentile interval from resampling whole groups (questions) with replacement.

    A resample's mean is Σ of its items / their number, so large groups weigh more, as they do in the mean itself.
    Without groups every value is its own. Deterministic in `seed`, whatever the groups are called.
    Source: Field & Welsh 2007, the cluster bootstrap.
    """
    x = numbers(values, "bootstrap_mean")
    if groups is None:
        sums, sizes = x, np.ones(len(x))
    else:
        if len(groups) != len(x):
            raise UserError(f"bootstrap_mean got {len(x)} values and {len(groups)} groups; give one group a value")
        index: dict[Hashable, int] = {}
        codes = np.array([index.setdefault(g, len(index)) for g in groups])
        sums, sizes = np.bincount(codes, weights=x), np.bincount(codes).astype(float)
    n = len(sums)
    if n < 2:
        return Interval(float(x.mean()), float("nan"), float("nan"), n)
    weights = _resamples(n, n_resamples, seed)
    means = (weights @ sums) / (weights @ sizes)
    low, high = _ends(means)
    return Interval(float(x.mean()), low, high, n)


def bootstrap_ratio(over: Numbers, under: Numbers, n_resamples: int = 2000, seed: int = 0) -> Interval:
    """Σ over / Σ under of paired values, one pair a problem, with a percentile interval from resampled problems."""
    a, b = paired(over, under, "bootstrap_ratio")
    if (b <= 0).any():
        raise UserError(f"bootstrap_ratio divides by {float(b.min())}; give positive values below the line")
    ratio = float(a.sum() / b.sum())
    if (n := len(a)) < 2:
        return Interval(ratio, float("nan"), float("nan"), n)
    weights = _resamples(n, n_resamples, seed)
    low, high = _ends((weights @ a) / (weights @ b))
    return Interval(ratio, low, high, n)


def crossed_mean(values: Float[ndarray, "seed problem"], n_resamples: int = 2000, seed: int = 0) -> Interval:
    """Mean over training seeds and problems; its interval resamples both, each on its own, with replacement.

    So it says how another training on other problems would come out; few seeds make it too narrow (Owen 2007, the
    pigeonhole bootstrap). With one seed only problems are resampled. `n` is the number of problems.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim == 2 and x.shape[1] == 1 and np.isfinite(x).all():
        return Interval(float(x.mean()), float("nan"), float("nan"), 1)
    low, high = _ends(crossed_means(x, n_resamples, seed))
    return Interval(float(x.mean()), low, high, x.shape[1])


def crossed_means(
    values: Float[ndarray, "seed problem"], n_resamples: int = 2000, seed: int = 0
) -> Float[ndarray, " resample"]:
    """The means that `crossed_mean` takes its interval from; arrays of one shape are resampled alike."""
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or not x.size:
        raise UserError(f"crossed_mean got values of shape {x.shape}; give one row a seed, one column a problem")
    if not np.isfinite(x).all():
        raise UserError(f"crossed_mean got {int((~np.isfinite(x)).sum())} missing values; leave their problems out")
    n_seeds, n = x.shape
    means = np.einsum("rs,sp,rp->r", _resamples(n_seeds, n_resamples, seed + 1), x, _resamples(n, n_resamples, seed))
    return means / (n_seeds * n)


def crossed_ratio(
    over: Float[ndarray, "seed problem"], under: Float[ndarray, "seed problem"], n_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Σ over / Σ under of pairs, its interval from resampled training seeds and problems, as `crossed_mean`'s."""
    a, b = np.asarray(over, dtype=float), np.asarray(under, dtype=float)
    if (b <= 0).any():
        raise UserError(f"crossed_ratio divides by {float(b.min())}; give positive values below the line")
    drawn = crossed_means(a, n_resamples, seed) / crossed_means(b, n_resamples, seed)
    low, high = _ends(drawn) if a.shape[1] > 1 else (float("nan"), float("nan"))
    return Interval(float(a.sum() / b.sum()), low, high, a.shape[1])


@lru_cache(maxsize=16)
def _resamples(n: int, n_resamples: int, seed: int) -> Float[ndarray, "resample group"]:
    """How often each group is in each resample. Kept, since a table asks for the same n again and again."""
    drawn = np.random.default_rng(seed).integers(0, n, (n_resamples, n))
    cells = drawn + n * np.arange(n_resamples)[:, None]
    return np.bincount(cells.ravel(), minlength=n * n_resamples).reshape(n_resamples, n).astype(float)


def _ends(drawn: Float[ndarray, " resample"]) -> tuple[float, float]:
    """The percentile interval of resampled values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
