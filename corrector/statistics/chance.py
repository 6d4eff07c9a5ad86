"""What chance alone would give: intervals of rates, and p against pairs that disagree or null directions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from corrector.errors import UserError
from corrector.statistics.numbers import CONFIDENCE, TIE, Interval, Numbers, numbers


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


def z_score(value: float, null: Numbers) -> float:
    """(value - mean of null) / standard deviation of null; nan below two nulls, or where they do not vary."""
    x = numbers(null, "z_score")
    spread = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    return (value - float(x.mean())) / spread if spread > 1e-12 else float("nan")


def null_p(value: float, null: Numbers) -> float:
    """Two-sided p against null values: (1 + #{|null| ≥ |value|}) / (1 + #null), never below 1 / (1 + #null).

    Null values that fall short by rounding (TIE) count as equal, so a value that is 0 but for rounding has p 1.
    """
    x = np.abs(numbers(null, "null_p"))
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
    own = numbers(values, "max_null_p")
    table = np.asarray(null, dtype=float)
    if table.ndim != 2 or table.shape[1] != len(own) or not len(table):
        raise UserError(
            f"max_null_p got nulls of shape {table.shape} for {len(own)} places; give each null a value a place"
        )
    numbers(table.ravel(), "max_null_p")
    both = np.abs(np.vstack([own, table]))
    both[both <= TIE] = 0.0
    scale = np.sqrt((both**2).mean(0))
    t = both / np.where(scale > 0, scale, 1.0)
    largest = t[1:].max(1)
    return (1 + (largest[:, None] >= t[0] - TIE).sum(0)) / (1 + len(table))
