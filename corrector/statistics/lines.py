"""Lines through points: slopes of items and of their mean, and how straight they are."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from corrector.errors import UserError
from corrector.statistics.bootstrap import bootstrap_mean
from corrector.statistics.numbers import Interval, Numbers, numbers, paired


@dataclass(frozen=True)
class Line:
    """y = intercept + slope·x by least squares; `r2` is nan where y does not vary."""

    slope: float
    intercept: float
    r2: float

    def at(self, x: float) -> float:
        """The line's y at x."""
        return self.intercept + self.slope * x


def line(x: Numbers, y: Numbers) -> Line:
    """Ordinary least squares; UserError unless x takes two values at least."""
    a, b = paired(x, y, "line")
    slope = float(_slope_weights(a) @ b)
    intercept = float(b.mean() - slope * a.mean())
    total = float(((b - b.mean()) ** 2).sum())
    rest = float(((b - intercept - slope * a) ** 2).sum())
    return Line(slope, intercept, 1 - rest / total if total > 1e-24 else float("nan"))


def spearman(x: Numbers, y: Numbers) -> float:
    """Spearman's rank correlation, ties by their mean rank; nan where either side does not vary."""
    a, b = (stats.rankdata(v) for v in paired(x, y, "spearman"))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def item_slopes(coefs: Numbers, values: Float[ndarray, "item coef"]) -> Float[ndarray, " item"]:
    """Least-squares slope of every item over the coefficients; their mean is the slope of the mean curve."""
    x = numbers(coefs, "item_slopes")
    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or table.shape[1] != len(x) or not len(table):
        raise UserError(f"item_slopes got values of shape {table.shape} for {len(x)} coefs; give one row an item")
    numbers(table.ravel(), "item_slopes")
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


def _slope_weights(x: Float[ndarray, " coef"]) -> Float[ndarray, " coef"]:
    centred = x - x.mean()
    square = float((centred**2).sum())
    if square < 1e-24:
        raise UserError(
            f"a slope over coefs {sorted(set(x.tolist()))} is not defined; give two different ones at least"
        )
    return centred / square
