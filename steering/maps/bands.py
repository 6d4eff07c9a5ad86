"""Bands of neighbouring layers: which there are, what they write, which steers best; and the means of a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from corrector.statistics import bootstrap_mean, item_slopes
from steering.sweeping.cells import mean
from steering.vectors import SteeringVector

WELL_FORMED = 0.95
"""Least share of well-formed corrections that a band must keep at both ends on validation to be chosen first."""
MEANS = ("edit_ratio", "copied", "well_formed", "false_rewrite", "missed_rewrite", "kl")
"""What map.jsonl holds of a cell, each with `_low` and `_high`."""
Row = dict[str, Any]


def bands(layers: Sequence[int], longest: int) -> list[tuple[int, ...]]:
    """All runs of up to `longest` neighbouring layers, short ones first, each from its lowest layer up."""
    have, out = {*layers}, list[tuple[int, ...]]()
    for width in range(1, longest + 1):
        for first in sorted(have):
            band = tuple(range(first, first + width))
            if have.issuperset(band):
                out.append(band)
    return out


def dose(vector: SteeringVector, layers: Sequence[int], coef: float, operator: str = "add") -> float | None:
    """|coef|·Σ ‖v‖ / mean‖h‖ over the layers: a band writes at each, so its doses add.

    None for operators but add, and where the vector's card does not know a layer's dose.
    """
    known = vector.card.get("layers", {})
    if coef == 0:
        return 0.0
    if operator != "add" or any("dose" not in known.get(str(k), {}) for k in layers):
        return None
    return abs(coef) * sum(float(known[str(k)]["dose"]) for k in layers)


def choose(rows: Sequence[Row], vector: SteeringVector, operator: str = "add") -> list[Row]:
    """Every band with its validation slope per dose; `chosen` marks the best of each width, `best` the best of all.

    Slope: edit ratio per coef by least squares over the unsteered and the end coefficients; for operators without a
    dose the slope itself decides. Bands that keep WELL_FORMED at both ends go before those that do not.
    """
    ends = sorted({r["coef"] for r in rows if r["coef"]})
    plain = [r["edit_ratio"] for r in rows if r["direction"] == "none"]
    out: list[Row] = []
    for layers in dict.fromkeys(tuple(r["layers"]) for r in rows if r["direction"] != "none"):
        mine = [r for r in rows if tuple(r["layers"]) == layers]
        cells = {0.0: plain, **{c: [r["edit_ratio"] for r in mine if r["coef"] == c] for c in ends}}
        slope = float(item_slopes([*cells], np.array([*cells.values()]).T).mean())
        formed = min(mean([r for r in mine if r["coef"] == c], "well_formed") for c in ends)
        unit = dose(vector, layers, 1.0, operator)
        out.append(
            {
                **{"layers": list(layers), "slope": slope, "dose": unit, "well_formed": formed},
                "slope_per_dose": slope / unit if unit else None,
            }
        )

    def merit(band: Row) -> tuple[bool, float]:
        per_dose = band["slope_per_dose"]
        return band["well_formed"] >= WELL_FORMED, band["slope"] if per_dose is None else per_dose

    best = max(out, key=merit)
    for band in out:
        same = [b for b in out if len(b["layers"]) == len(band["layers"])]
        band |= {"chosen": band is max(same, key=merit), "best": band is best}
    return out


def means(rows: Sequence[Row], seed: int = 0) -> Row:
    """MEANS of a cell with 95 % bootstrap intervals over problems; None where no item has what is averaged.

    `false_rewrite`: share edited of the `n_right` items that were right; `missed_rewrite`: share copied of the
    `n_wrong` that were wrong.
    """
    right, wrong = ([r for r in rows if r["is_wrong"] is flag] for flag in (False, True))
    out: Row = {"n": len(rows), "n_questions": len({r["problem"] for r in rows})}
    out |= {"n_right": len(right), "n_wrong": len(wrong)}
    for name in MEANS:
        of = {"false_rewrite": right, "missed_rewrite": wrong}.get(name, rows)
        column = "copied" if name.endswith("rewrite") else name
        known = [(float(r[column]), r["problem"]) for r in of if r[column] is not None]
        values = [1 - v if name == "false_rewrite" else v for v, _ in known]
        interval = bootstrap_mean(values, [p for _, p in known], seed=seed) if known else None
        for part, key in (("", "mean"), ("_low", "low"), ("_high", "high")):
            value = getattr(interval, key) if interval else None
            out[name + part] = None if value is None or math.isnan(value) else value
    return out
