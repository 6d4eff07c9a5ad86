"""Does the direction steer?  The dose curve's slope on its usable range, against random directions of equal norm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.curves.nulls import against_nulls, null_band, over
from analysis.curves.outcomes import improvement, loop_changes
from analysis.curves.sentences import sentence_dose
from analysis.summary import CORRECTION, Records, item_values, load_records, select, summarise
from corrector.statistics import LEVEL, bootstrap_mean, item_slopes, line, spearman
from steering.sweeping.collapse import WELL_FORMED, usable_range

__all__ = ["LEAST_COEFS", "LEAST_RATIO", "WELL_FORMED", "dose_statistics", "usable_range", "verdict"]

LEAST_COEFS = 3
"""Fewest usable coefficients, 0 among them, on which a curve is judged."""
LEAST_RATIO = 2.0
"""How many times steeper than the steepest random control a curve must be to count as steering."""
STILL = 1e-9
"""Slope up to which an item counts as unmoved: rounding."""


def dose_statistics(run: str | Path | Records, table: pd.DataFrame | None = None) -> dict[str, Any]:
    """`{"run", "finished", "tasks": {task: statistics}}` of a run folder or its Records, in JSON's types.

    Everything is measured on the usable range: the contiguous coefficients around 0 whose corrections are well formed
    in 95 % of the items or more, on validation where selection.json tells (`usable_from`), else on the very rows.
    `slope` is edit ratio per unit of coef, and `slope_all`, `r2_all` are those over all coefficients. Null slopes are
    taken over the same coefficients; where the controls were run on fewer, `ratio`, `z` and `p` compare slopes on the
    `compared` ones. `item_slopes` are in the items' order; `wrong_way` is the share that is negative, `unmoved` that of
    0. Of an operator of which coefficient 0 steers too, `operator` is told, and `unsteered` is of rows of their own;
    `condition` is the sweep's gate, where it had one. What cannot be computed is None.
    """
    records = run if isinstance(run, Records) else load_records(run)
    table = summarise(records) if table is None else table
    tasks = {task: _task_statistics(records, table, task) for task in records.tasks}
    return {"run": records.run.resolve().name, "finished": records.finished, "tasks": tasks}


def _task_statistics(records: Records, table: pd.DataFrame, task: str) -> dict[str, Any]:
    curve = select(table, task=task, direction=CORRECTION).dropna(subset="n_items").set_index("coef").sort_index()
    coefs, unsteered = [float(c) for c in curve.index], records.unsteered(table, task).iloc[0]
    on_test, chosen = usable_range(coefs, curve["well_formed"].tolist()), records.setting(task, "usable")
    # a run that is going on may lack some of the coefficients
    usable = on_test if chosen is None else usable_range(coefs, [float(c in chosen) for c in coefs])
    out: dict[str, Any] = {
        **{key: records.setting(task, key) for key in ("method", "span", "dose")},
        "layers": _layers(records, task),
        "model_organism": bool(records.setting(task, "model_organism")),
        "n_items": int(curve["n_items"].max()),
        "n_questions": int(curve["n_questions"].max()),
        "usable": usable,
        "usable_from": "test" if chosen is None else "validation",
        "usable_on_test": on_test,
        "coef_unit": records.setting(task, "coef_unit") or "natural",
        "unsteered": float(unsteered["edit_ratio"]),
        **_special(records, task),
    }
    rows = select(records.edits, task=task)
    if len(usable) >= 2:
        out |= _curve(records, rows, usable) | _all(coefs, curve["edit_ratio"].tolist())
        ratios = curve.loc[usable, "edit_ratio"]
        out |= {
            "relative": [over(float(ratios.min()), out["unsteered"]), over(float(ratios.max()), out["unsteered"])],
            "copied_at_lowest": float(curve.loc[usable[0], "copied"]),
            "copied_unsteered": float(unsteered["copied"]),
            **against_nulls(records, rows, usable, _candidates(records, task)),
        }
    out["null_band"] = null_band(select(table, task=task))
    out["loop"] = loop_changes(records, task)
    out["improvement"] = improvement(records, task)
    out["sentences"] = sentence_dose(records, task, usable)
    out["steers"], out["reason"] = verdict(out)
    return _without_nan(out)


def _curve(records: Records, rows: Any, coefs: list[float]) -> dict[str, Any]:
    values, problems = item_values(records, rows, CORRECTION, coefs)
    slopes = item_slopes(coefs, values)
    slope, fit = bootstrap_mean(slopes, problems), line(coefs, values.mean(0))
    wrong = bootstrap_mean((slopes < -STILL).astype(float), problems)
    return {
        "slope": slope.mean,
        "slope_low": slope.low,
        "slope_high": slope.high,
        "intercept": fit.intercept,
        "r2": fit.r2,
        "spearman": spearman(coefs, values.mean(0)),
        "wrong_way": wrong.mean,
        "wrong_way_low": wrong.low,
        "wrong_way_high": wrong.high,
        "unmoved": float((np.abs(slopes) <= STILL).mean()),
        "item_slopes": [float(f"{slope:.6g}") for slope in slopes],
    }


def _all(coefs: list[float], ratios: list[float]) -> dict[str, Any]:
    """The line through the mean curve over all coefficients, degenerate ones and all."""
    fit = line(coefs, ratios)
    return {"slope_all": fit.slope, "intercept_all": fit.intercept, "r2_all": fit.r2}


def _special(records: Records, task: str) -> dict[str, Any]:
    """What is asked for seldom: an operator of which coefficient 0 steers too, and the gate of the sweep."""
    found = {"operator": records.setting(task, "operator")} if records.acts_at_zero(task) else {}
    condition = records.setting(task, "condition")
    return {**found, "condition": condition} if condition else found


def _candidates(records: Records, task: str) -> int:
    """How many layers and positions the one that is judged was chosen from; 1 where the run does not tell."""
    tried = [records.setting(task, key) for key in ("candidates", "left_out")]
    return max(1, sum(len(some) for some in tried if isinstance(some, list)))


def verdict(task: dict[str, Any]) -> tuple[bool, str]:
    """Whether the direction steers, and why or why not, in words.

    It does when the slope's interval lies above 0, the slope is twice the largest random one or more, and three
    coefficients or more are usable.
    """
    if len(task["usable"]) < LEAST_COEFS:
        return False, f"only {len(task['usable'])} coefficients keep {WELL_FORMED:.0%} of the corrections well formed"
    slope, low, high = task["slope"], task["slope_low"], task["slope_high"]
    interval = f"slope {slope:.2f} [{low:.2f}, {high:.2f}]"
    reasons: list[str] = []
    if math.isnan(low):
        reasons.append(f"slope {slope:.2f} of one question has no interval")
    elif high < 0:
        reasons.append(f"{interval} has the wrong sign: a positive coefficient edits less")
    elif low <= 0:
        reasons.append(f"the interval of {interval} holds 0")
    n_random = task["n_null"]
    if not n_random:
        reasons.append("there is no random control to compare with")
        compared = ""
    elif task["largest_random_slope"] == 0:
        compared = f"none of {n_random} random directions moves the curve at all"
    else:
        compared = f"it is {task['ratio']:.1f} times the largest of {n_random} random slopes"
        if task["ratio"] < LEAST_RATIO:
            reasons.append(f"{compared}, less than {LEAST_RATIO:g}")
    if reasons:
        return False, "; ".join(reasons)
    few = f"; so few cannot give p below {task['p_least']:.2f}" if task["p_least"] > LEVEL + STILL else ""
    return True, f"{interval} per coef lies above 0, and {compared}{few}"


def _layers(records: Records, task: str) -> Any:
    rows = select(records.edits, task=task, direction=CORRECTION)
    steered = (
        [layers for layers, coef in zip(rows["layers"], rows["coef"], strict=True) if coef] if "layers" in rows else []
    )
    return steered[0] if steered else records.setting(task, "layers")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
