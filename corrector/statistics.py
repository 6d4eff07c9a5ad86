"""Intervals and lines with the question as the unit: items of one question are not independent.

A missing value is not 0 and an empty set has no mean, so both raise UserError.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from corrector.errors import UserError

CONFIDENCE = 0.95
TIE = 1e-9
"""Values that differ by no more are equal but for rounding."""
Numbers = Sequence[float | int | None] | ndarray
"""What the functions take; None is typed only so that it can be refused with a count."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; `n` is how many units (questions) were resampled.

    One unit says nothing about spread: then `low` and `high` are nan.
    """

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Line:
    """y = intercept + slope·x by least squares; `r2` is nan where y does not vary."""

    slope: float
    intercept: float
    r2: float

    def at(self, x: float) -> float:
        """The line's y at x."""
        return self.intercept + self.slope * x


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
    x = _numbers(values, "bootstrap_mean")
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


def bootstrap_ratio(over: Numbers, under: Numbers, n_resamples: int = 2000, seed: int = 0) -> Interval:
    """Σ over / Σ under of paired values, one pair a problem, with a percentile interval from resampled problems."""
    a, b = _paired(over, under, "bootstrap_ratio")
    if (b <= 0).any():
        raise UserError(f"bootstrap_ratio divides by {float(b.min())}; give positive values below the line")
    ratio = float(a.sum() / b.sum())
    if (n := len(a)) < 2:
        return Interval(ratio, float("nan"), float("nan"), n)
    weights = _resamples(n, n_resamples, seed)
    low, high = _ends((weights @ a) / (weights @ b))
    return Interval(ratio, low, high, n)


def wilson(n_hits: int, n: int) -> Interval:
    """Wilson's interval of a rate, which has a width at 0 and 1 too, where the bootstrap's has none."""
    if not 0 <= n_hits <= n or n == 0:
        raise UserError(f"wilson got {n_hits} hits of {n}; there is no rate without trials")
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    p, shrink = n_hits / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / shrink, z / shrink * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), n)


def mcnemar(n_gained: int, n_lost: int) -> float:
    """Two-sided exact p of McNemar's test: of the pairs that disagree, as many go either way.

    p = P(|X - n/2| >= |gained - n/2|), X ~ Binomial(n, 1/2), n = gained + lost; 1 where none disagree.
    Source: McNemar 1947, with the binomial in place of chi-squared.
    """
    if n_gained < 0 or n_lost < 0:
        raise UserError(f"mcnemar got {n_gained} gained and {n_lost} lost; counts are 0 or more")
    n = n_gained + n_lost
    return float(stats.binomtest(n_gained, n, 0.5).pvalue) if n else 1.0


def line(x: Numbers, y: Numbers) -> Line:
    """Ordinary least squares; UserError unless x takes two values at least."""
    a, b = _paired(x, y, "line")
    slope = float(_slope_weights(a) @ b)
    intercept = float(b.mean() - slope * a.mean())
    total = float(((b - b.mean()) ** 2).sum())
    rest = float(((b - intercept - slope * a) ** 2).sum())
    return Line(slope, intercept, 1 - rest / total if total > 1e-24 else float("nan"))


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's rank correlation, ties by their mean rank; nan where either side does not vary."""
    a, b = (stats.rankdata(v) for v in _paired(x, y, "spearman"))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def item_slopes(coefs: Numbers, values: Float[ndarray, "item coef"]) -> Float[ndarray, " item"]:
    """Least-squares slope of every item over the coefficients; their mean is the slope of the mean curve."""
    x = _numbers(coefs, "item_slopes")
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[1] != len(x) or not len(table):
        raise UserError(f"item_slopes got values of shape {table.shape} for {len(x)} coefs; give one row an item")
    _numbers(table.ravel(), "item_slopes")
    return table @ _slope_weights(x)


def slope_bootstrap(
    coefs: Numbers,
    values: Float[ndarray, "item coef"],
    groups: Sequence[Hashable] | ndarray | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Slope of the mean curve, in value per unit of coef, with its interval from resampling questions."""
    return bootstrap_mean(item_slopes(coefs, values), groups, n_resamples, seed)


def z_score(value: float, null: Numbers) -> float:
    """(value - mean of null) / standard deviation of null; nan below two nulls, or where they do not vary."""
    x = _numbers(null, "z_score")
    spread = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return (value - float(x.mean())) / spread if spread > 1e-12 else float("nan")


def null_p(value: float, null: Numbers) -> float:
    """Two-sided p against null values: (1 + #{|null| ≥ |value|}) / (1 + #null), never below 1 / (1 + #null).

    Null values that fall short by rounding (TIE) count as equal, so a value that is 0 but for rounding has p 1.
    """
    x = np.abs(_numbers(null, "null_p"))
    return (1 + int((x >= abs(value) - TIE).sum())) / (1 + len(x))


def max_null_p(values: Numbers, null: Float[ndarray, "null place"]) -> Float[ndarray, " place"]:
    """Two-sided p at each place, corrected for all of them: p_k = (1 + #{i: max_j |t_ij| ≥ |t_k|}) / (1 + n).

    Row i of `null` is one null's values at the same places, t is studentised: divided by s_j, the root mean square of
    the 1 + n numbers at place j (the observed one among them), as places differ in how far anything moves them, and the
    place that moves most would set the bar for all. s_j is the same whichever of the 1 + n is called the observed one,
    so p is exact where they are exchangeable, and P(any p_k ≤ a) ≤ a over the places without an effect, whatever the
    others hold. Bonferroni's p cannot be below places / (1 + n), this one goes down to 1 / (1 + n). Ties count for the
    null (TIE, of t and of what counts as 0). Raises UserError for no nulls, or other places than the values'.
    Source: Westfall & Young 1993, single-step maxT; Nichols & Holmes 2002.
    """
    own = _numbers(values, "max_null_p")
    table = np.asarray(null, dtype=float)
    if table.ndim != 2 or table.shape[1] != len(own) or not len(table):
        raise UserError(
            f"max_null_p got nulls of shape {table.shape} for {len(own)} places; give each null a value a place"
        )
    _numbers(table.ravel(), "max_null_p")
    both = np.abs(np.vstack([own, table]))
    both[both <= TIE] = 0.0
    scale = np.sqrt((both**2).mean(0))
    t = both / np.where(scale > 0, scale, 1.0)
    largest = t[1:].max(1)
    return (1 + (largest[:, None] >= t[0] - TIE).sum(0)) / (1 + len(table))


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


def _slope_weights(x: Float[ndarray, " coef"]) -> Float[ndarray, " coef"]:
    centred = x - x.mean()
    square = float((centred**2).sum())
    if square < 1e-24:
        raise UserError(
            f"a slope over coefs {sorted(set(x.tolist()))} is not defined; give two different ones at least"
        )
    return centred / square


def _numbers(values: Numbers, where: str) -> Float[ndarray, " n"]:
    listed = list(values)
    missing = sum(v is None or v != v for v in listed)
    if missing:
        raise UserError(f"{where} got {missing} missing of {len(listed)} values; drop them first, and count them")
    if not listed:
        raise UserError(f"{where} got no values; there is no number without data")
    return np.asarray(listed, dtype=float)


def _paired(x: Numbers, y: Numbers, where: str) -> tuple[ndarray, ndarray]:
    if len(x) != len(y):
        raise UserError(f"{where} got {len(x)} x and {len(y)} y; give as many of each")
    return _numbers(x, where), _numbers(y, where)
