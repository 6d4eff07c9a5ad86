"""Does the direction steer?  The dose curve's slope on its usable range, against random directions of equal norm."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.summary import CORRECTION, Records, load_records, select, summarise
from corrector.errors import UserError
from corrector.statistics import bootstrap_mean, item_slopes, line, null_p, spearman, z_score

WELL_FORMED = 0.95
"""Least share of well-formed corrections at which a coefficient counts as usable."""
LEAST_COEFS = 3
"""Fewest usable coefficients, 0 among them, on which a curve is judged."""
LEAST_RATIO = 2.0
"""How many times steeper than the steepest random control a curve must be to count as steering."""


def dose_statistics(run: str | Path | Records, table: pd.DataFrame | None = None) -> dict[str, Any]:
    """`{"run", "finished", "tasks": {task: statistics}}` of a run folder or its Records, in JSON's types.

    Everything is measured on the usable range: the contiguous coefficients around 0 whose corrections are well formed
    in 95 % of the items or more. `slope` is edit ratio per unit of coef. Random slopes are taken over the same
    coefficients; where the controls were run on fewer, `ratio`, `z` and `p` compare slopes on the `compared` ones.
    `wrong_way` is the share of items whose own slope is negative. What cannot be computed is None.
    """
    records = run if isinstance(run, Records) else load_records(run)
    table = summarise(records) if table is None else table
    tasks = {task: _task_statistics(records, table, task) for task in records.tasks}
    return {"run": records.run.resolve().name, "finished": records.finished, "tasks": tasks}


def usable_range(coefs: list[float], well_formed: list[float]) -> list[float]:
    """The contiguous coefficients around 0 at which the share of well-formed corrections is 0.95 or more.

    Empty when 0 itself is below. Raises UserError without a coefficient 0, for then nothing is a baseline.
    """
    if 0.0 not in coefs:
        raise UserError(f"coefs {coefs} lack 0, the unsteered corrector; add it to --coef")
    good = {coef for coef, share in zip(coefs, well_formed, strict=True) if share >= WELL_FORMED}
    kept: list[float] = []
    for side in (sorted(c for c in coefs if c >= 0), sorted((c for c in coefs if c < 0), reverse=True)):
        if 0.0 not in good:
            return []
        for coef in side:
            if coef not in good:
                break
            kept.append(coef)
    return sorted(kept)


def _task_statistics(records: Records, table: pd.DataFrame, task: str) -> dict[str, Any]:
    curve = select(table, task=task, direction=CORRECTION).dropna(subset="n_items").set_index("coef").sort_index()
    usable = usable_range([float(c) for c in curve.index], curve["well_formed"].tolist())
    out: dict[str, Any] = {
        **{key: records.setting(task, key) for key in ("method", "span", "dose")},
        "layers": _layers(records, task),
        "model_organism": bool(records.setting(task, "model_organism")),
        "n_items": int(curve["n_items"].max()),
        "n_questions": int(curve["n_questions"].max()),
        "usable": usable,
        "unsteered": float(curve.loc[0.0, "edit_ratio"]),
    }
    rows = select(records.edits, task=task)
    if len(usable) >= 2:
        out |= _curve(records, rows, usable)
        ratios = curve.loc[usable, "edit_ratio"]
        out |= {
            "relative": [_over(float(ratios.min()), out["unsteered"]), _over(float(ratios.max()), out["unsteered"])],
            "copied_at_lowest": float(curve.loc[usable[0], "copied"]),
            "copied_unsteered": float(curve.loc[0.0, "copied"]),
            **_against_random(records, rows, usable),
        }
    out["steers"], out["reason"] = verdict(out)
    return _without_nan(out)


def _curve(records: Records, rows: Any, coefs: list[float]) -> dict[str, Any]:
    values, problems = _items(records, rows, CORRECTION, coefs)
    slopes = item_slopes(coefs, values)
    slope, fit = bootstrap_mean(slopes, problems), line(coefs, values.mean(0))
    return {
        "slope": slope.mean,
        "slope_low": slope.low,
        "slope_high": slope.high,
        "intercept": fit.intercept,
        "r2": fit.r2,
        "spearman": spearman(coefs, values.mean(0)),
        "wrong_way": float((slopes < -1e-9).mean()),
    }


def _against_random(records: Records, rows: Any, usable: list[float]) -> dict[str, Any]:
    others = [d for d in dict.fromkeys(rows["direction"]) if d != CORRECTION]
    covered = {d: sorted({*select(rows, direction=d)["coef"]} & {*usable}) for d in others}
    covered = {d: [float(c) for c in coefs] for d, coefs in covered.items() if len(coefs) >= 2}
    random = [d for d in covered if d.startswith("random")]
    common = sorted({*usable}.intersection(*(covered[d] for d in random))) if random else []

    def slope(direction: str, coefs: list[float]) -> float:
        return float(item_slopes(coefs, _items(records, rows, direction, coefs)[0]).mean())

    out: dict[str, Any] = {"control_slopes": {d: slope(d, coefs) for d, coefs in covered.items() if d not in random}}
    if len(common) < 2:
        return {**out, "random_slopes": {}}
    # A slope below 1e-9 is rounding: a control that moves nothing must not make a ratio of 1e17.
    null = {d: value if abs(value) > 1e-9 else 0.0 for d, value in ((d, slope(d, common)) for d in random)}
    own, largest = slope(CORRECTION, common), max(abs(v) for v in null.values())
    return {
        **out,
        "random_slopes": null,
        "compared": common,
        "largest_random_slope": largest,
        "ratio": _over(abs(own), largest),
        "z": z_score(own, [*null.values()]),
        "p": null_p(own, [*null.values()]),
    }


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
    n_random = len(task["random_slopes"])
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
    return True, f"{interval} per coef lies above 0, and {compared}"


def _items(records: Records, rows: Any, direction: str, coefs: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Edit ratios [item, coef] and the problem of each item, of the items measured at every one of the coefs."""
    chosen = select(rows, direction=direction)
    wide = chosen.loc[chosen["coef"].isin(coefs)].pivot(
        index=["seed", "item", "problem"], columns="coef", values="edit_ratio"
    )[coefs]
    whole = wide.dropna()
    if records.finished and len(whole) < len(wide):
        raise UserError(
            f"{records.run}: {len(wide) - len(whole)} of {len(wide)} items of {direction!r} lack some coef of {coefs}; "
            "delete the folder and run the sweep again"
        )
    return whole.to_numpy(dtype=float), whole.index.get_level_values("problem").to_numpy()


def _layers(records: Records, task: str) -> Any:
    rows = select(records.edits, task=task, direction=CORRECTION)
    steered = (
        [layers for layers, coef in zip(rows["layers"], rows["coef"], strict=True) if coef] if "layers" in rows else []
    )
    return steered[0] if steered else records.setting(task, "layers")


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else float("nan")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
