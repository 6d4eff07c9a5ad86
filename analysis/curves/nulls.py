"""The curve against null directions: slopes of random and orthogonal controls, their band, z and permutation p."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.summary import CORRECTION, Records, item_values, select
from corrector.statistics import TIE, Interval, bootstrap_mean, item_slopes, null_p, z_score

NULLS = ("random", "orthogonal")
"""Families of directions drawn by chance. Fits on shuffled labels may land on the vector itself and are none."""
LEAST_BAND = 20
"""Fewest null directions whose 2.5 and 97.5 % quantiles are drawn as a band."""
BAND = (0.025, 0.975)


def family(direction: str) -> str:
    """`random` of `random-07`; a name that ends in no number is its own family."""
    stem, _, number = direction.rpartition("-")
    return stem if number.isdigit() else direction


def is_null(direction: str) -> bool:
    """Whether a direction was drawn by chance."""
    return family(direction) in NULLS


def against_nulls(records: Records, rows: Any, usable: list[float], n_candidates: int) -> dict[str, Any]:
    """The curve's slope beside those of the controls, on the usable coefficients that all null directions have.

    `z` is (slope - mean of nulls) / their standard deviation; None where they have no spread, and `z_absent` says why.
    `p` is the permutation p, (1 + k) / (1 + n) with k of n null directions as steep or steeper, either way, ties
    included; `p_least` = 1 / (1 + n). A slope of which the own interval holds 0 ties with nulls that all are 0.

    p is of the layer and span that were steered and is not multiplied by `n_candidates`, the settings that they were
    chosen from: the choice was made on validation pairs, so what favoured a setting there by the luck of items does not
    come back on test pairs, and the slope's interval holds as it is. One thing neither covers: the vector chose where
    it does most, the nulls are written where the vector chose. That correction needs nulls at every setting, which a
    sweep does not measure: `analysis.map` does, over layers.
    """
    others = [d for d in dict.fromkeys(rows["direction"]) if d != CORRECTION]
    covered = {d: sorted({*select(rows, direction=d)["coef"]} & {*usable}) for d in others}
    covered = {d: [float(c) for c in coefs] for d, coefs in covered.items() if len(coefs) >= 2}
    nulls = [d for d in covered if is_null(d)]
    common = sorted({*usable}.intersection(*(covered[d] for d in nulls))) if nulls else []

    def slope(direction: str, coefs: list[float]) -> float:
        mean = float(item_slopes(coefs, item_values(records, rows, direction, coefs)[0]).mean())
        return mean if abs(mean) > TIE else 0.0  # rounding must not make a ratio of 1e17

    out: dict[str, Any] = {"control_slopes": {d: slope(d, coefs) for d, coefs in covered.items() if d not in nulls}}
    if len(common) < 2:
        return {**out, "random_slopes": {}, "orthogonal_slopes": {}, "n_null": 0}
    null = {d: slope(d, common) for d in nulls}
    values, problems = item_values(records, rows, CORRECTION, common)
    own, largest = bootstrap_mean(item_slopes(common, values), problems), max(abs(v) for v in null.values())
    z = z_score(own.mean, [*null.values()])
    return {
        **out,
        **{f"{name}_slopes": {d: v for d, v in null.items() if family(d) == name} for name in NULLS},
        "n_null": len(null),
        "compared": common,
        "largest_random_slope": largest,
        "ratio": over(abs(own.mean), largest),
        "z": z,
        "z_absent": no_spread(len(null), largest) if math.isnan(z) else "",
        "p": null_p(told_apart(own, largest), [*null.values()]),
        "p_least": 1 / (1 + len(null)),
        "n_candidates": n_candidates,
    }


def told_apart(slope: Interval, largest: float) -> float:
    """A slope as nulls rank it: 0 where all nulls are 0 (`largest`) and its own interval holds 0 or is unknown.

    Nulls that do not move at all have no scale to judge a slope by; then only its own interval can.
    """
    return slope.mean if largest > 0 or slope.low > TIE or slope.high < -TIE else 0.0


def no_spread(n: int, largest: float) -> str:
    """Why n null slopes, the largest of this size, have no standard deviation."""
    if n == 1:
        return "one null direction has no spread"
    return f"all {n} null directions have one slope" if largest > 0 else f"none of {n} null directions moves the curve"


def null_band(table: Any) -> dict[str, Any] | None:
    """`coef`, `low`, `high`: the 2.5 and 97.5 % quantiles of the null directions' mean edit ratios at each coefficient.

    Coefficients that fewer than LEAST_BAND of them have are left out; None where that leaves fewer than two.
    `table` is one task's summary.
    """
    nulls = table.loc[[is_null(d) for d in table["direction"]]].dropna(subset="edit_ratio")
    band: dict[str, Any] = {"coef": [], "low": [], "high": [], "n": nulls["direction"].nunique()}
    for coef, rows in nulls.groupby("coef"):
        if len(rows) >= LEAST_BAND:
            low, high = np.quantile(rows["edit_ratio"].to_numpy(dtype=float), BAND)
            band["coef"].append(float(coef))
            band["low"].append(float(low))
            band["high"].append(float(high))
    return band if len(band["coef"]) > 1 else None


def over(a: float, b: float) -> float:
    """The ratio a / b; nan where b is not above 0."""
    return a / b if b > 0 else float("nan")
