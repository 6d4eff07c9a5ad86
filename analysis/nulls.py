"""The curve against null directions: slopes of random and orthogonal controls, their band, z and permutation p."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.summary import CORRECTION, Records, item_values, select
from corrector.statistics import item_slopes, null_p, z_score

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

    `z` is (slope - mean of nulls) / their standard deviation. `p` is the permutation p, (1 + k) / (1 + n) with k of n
    null directions as steep or steeper, either way. `p_corrected` = min(1, p · n_candidates) is Bonferroni's, over the
    layers and positions that the selection tried; none can be below `p_floor` with this many nulls.
    """
    others = [d for d in dict.fromkeys(rows["direction"]) if d != CORRECTION]
    covered = {d: sorted({*select(rows, direction=d)["coef"]} & {*usable}) for d in others}
    covered = {d: [float(c) for c in coefs] for d, coefs in covered.items() if len(coefs) >= 2}
    nulls = [d for d in covered if is_null(d)]
    common = sorted({*usable}.intersection(*(covered[d] for d in nulls))) if nulls else []

    def slope(direction: str, coefs: list[float]) -> float:
        return float(item_slopes(coefs, item_values(records, rows, direction, coefs)[0]).mean())

    out: dict[str, Any] = {"control_slopes": {d: slope(d, coefs) for d, coefs in covered.items() if d not in nulls}}
    if len(common) < 2:
        return {**out, "random_slopes": {}, "orthogonal_slopes": {}, "n_null": 0}
    # A slope below 1e-9 is rounding: a control that moves nothing must not make a ratio of 1e17.
    null = {d: value if abs(value) > 1e-9 else 0.0 for d, value in ((d, slope(d, common)) for d in nulls)}
    own, largest = slope(CORRECTION, common), max(abs(v) for v in null.values())
    p = null_p(own, [*null.values()])
    return {
        **out,
        **{f"{name}_slopes": {d: v for d, v in null.items() if family(d) == name} for name in NULLS},
        "n_null": len(null),
        "compared": common,
        "largest_random_slope": largest,
        "ratio": over(abs(own), largest),
        "z": z_score(own, [*null.values()]),
        "p": p,
        "p_corrected": min(1.0, p * n_candidates),
        "p_correction": "bonferroni",
        "p_floor": min(1.0, n_candidates / (1 + len(null))),
        "n_candidates": n_candidates,
    }


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
