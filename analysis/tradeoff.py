"""What steering trades: false against missed rewrites, edits against outcomes, `python -m analysis.tradeoff RUN`.

Reads a sweep's run folder and writes tradeoff.json and tradeoff.{png,pdf} beside its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy import ndarray
from rich.console import Console
from scipy import stats

from analysis.curves.pareto import TAIL, Measured, pareto, resampled
from analysis.dose import usable_range
from analysis.drawing import draw
from analysis.summary import CORRECTION, COUNTS, UPSTREAM, Records, load_records, select, summarise
from analysis.tables.tradeoff import sentences, tables
from corrector.errors import UserError, run_cli
from corrector.records.canonical import canonical, rounded
from corrector.statistics import bootstrap_mean, item_slopes

COSTS = ("edit_ratio", "kl")
"""Edit amounts that outcomes are set against: edits per character of last, and nats a token."""
WIDTH = 130
ZERO = 1e-9
"""A slope no larger is rounding."""
RATES = ("false_rewrite", "missed_rewrite")
ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class Tradeoff:
    """Print what steering trades in a sweep's run folder; write tradeoff.json, tradeoff.png and tradeoff.pdf."""

    run: tyro.conf.Positional[Path]
    """Run folder, such as runs/sweep-1a2b3c4d."""


def tradeoff(run: str | Path | Records) -> dict[str, Any]:
    """`{"run", "finished", "tasks": {task: numbers}}` in JSON's types; what cannot be computed is None or empty.

    `roc`: rates of both errors a coefficient, `youden` = 1 - missed - false; `area`: see `reached_area`, of the
    usable coefficients; `controls`: the rates of the other directions; `items`: slopes of the items; `flips`: pairs
    with coefficient 0, of sentences and of each loop outcome; `pareto`: `<cost>/<outcome>` as rows of `pareto`.
    """
    records = run if isinstance(run, Records) else load_records(run)
    table = summarise(records)
    tasks = {task: _task(records, table, task) for task in records.tasks}
    return rounded({"run": records.run.resolve().name, "finished": records.finished, "tasks": tasks}, "tradeoff")


def reached_area(false: Sequence[float] | ndarray, hit: Sequence[float] | ndarray) -> dict[str, float] | None:
    """Area under hit rate against false rewrite rate by trapezoids, over the false rewrite rates reached and no more.

    `height` = area / width of the reached range is the mean hit rate in it; `chance` is the height of the diagonal
    there, where editing ignores what is right. None where one false rewrite rate is all there is.
    """
    x, y = np.asarray(false, dtype=float), np.asarray(hit, dtype=float)
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    if not len(x) or x[-1] - x[0] < ZERO:
        return None
    area = float(np.trapezoid(y, x))
    reached = {"reached_from": float(x[0]), "reached_to": float(x[-1])}
    return {"area_reached": area, **reached, "height": area / (x[-1] - x[0]), "chance": float(x[0] + x[-1]) / 2}


def flips(coefs: Sequence[float], values: ndarray) -> list[dict[str, Any]]:
    """How many units did better and worse at each coefficient than the same units at coefficient 0.

    Of a yes-or-no number these are wrong to right and right to wrong. `p`: exact two-sided McNemar (sign) test, 1
    where nothing changed. `values` are [unit, coef], without gaps.
    """
    base = values[:, list(coefs).index(0.0)]
    out: list[dict[str, Any]] = []
    for i, coef in enumerate(coefs):
        better, worse = (int(((values[:, i] - base) * sign > ZERO).sum()) for sign in (1, -1))
        p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
        if coef:
            out.append({"coef": coef, "n": len(values), "better": better, "worse": worse, "p": p})
    return out


def item_table(coefs: Sequence[float], values: ndarray, copied: ndarray, groups: Sequence[Any]) -> dict[str, Any]:
    """Each item's slope of edit ratio per coef, the share that moves the wrong way (slope below 0), by what it was.

    `copied` tells which items the unsteered corrector copies: those can only be edited more.
    """
    slopes = item_slopes(coefs, values)
    out: dict[str, Any] = {"slopes": slopes.tolist()}
    for name, mine in (("all", np.full(len(slopes), True)), ("copied", copied), ("rewritten", ~copied)):
        of = [g for g, keep in zip(groups, mine, strict=True) if keep]
        if not of:
            out[name] = None
            continue
        wrong, mean = (bootstrap_mean(x, of) for x in ((slopes[mine] < -ZERO).astype(float), slopes[mine]))
        out[name] = {
            **{"n": len(of), "slope": mean.mean, "slope_low": mean.low, "slope_high": mean.high},
            **{"wrong_way": wrong.mean, "wrong_way_low": wrong.low, "wrong_way_high": wrong.high},
            "unmoved": float((np.abs(slopes[mine]) <= ZERO).mean()),
            "quantiles": np.quantile(slopes[mine], [0.1, 0.5, 0.9]).tolist(),
        }
    return out


def _task(records: Records, table: Any, task: str) -> dict[str, Any]:
    if records.acts_at_zero(task):
        raise UserError(
            f"{task} was swept with --operator {records.setting(task, 'operator')}, of which coefficient 0 steers, and "
            "trade-offs are told against coefficient 0; give a run of another operator"
        )
    curve = select(table, task=task, direction=CORRECTION).dropna(subset="n_items").sort_values("coef")
    coefs = [float(c) for c in curve["coef"]]
    usable = usable_range(coefs, curve["well_formed"].tolist())
    rows = select(records.edits, task=task, direction=CORRECTION)
    ratio, problems = _wide(rows, "edit_ratio", coefs)
    copied = _wide(rows, "copied", coefs)[0]
    first = curve.iloc[0]
    out: dict[str, Any] = {
        **{name: int(first[name]) for name in ("n_items", "n_questions", "n_right", "n_wrong")},
        "model_organism": bool(records.setting(task, "model_organism")),
        "usable": usable,
        **_roc(rows, curve, coefs, usable),
        "controls": _controls(table, task),
        "items": None,
        "flips": {},
        "pareto": {},
    }
    if len(usable) > 1:
        at = [coefs.index(c) for c in usable]
        out["items"] = item_table(usable, ratio[:, at], copied[:, coefs.index(0.0)] > 0, problems)
    right = _wide(rows, "is_right_after", coefs)[0]
    if len(right):
        out["flips"]["sentence"] = flips(coefs, right)
    loop = select(records.alignments, task=task, direction=CORRECTION)
    names = dict.fromkeys(name for outcome in loop["outcomes"] for name in outcome if name not in COUNTS)
    shared = [c for c in coefs if c in {*loop["coef"]}]
    for name in names if 0.0 in shared else ():
        own = loop.assign(**{name: [outcome.get(name) for outcome in loop["outcomes"]]})
        gained, of = _wide(own, name, shared)
        if not len(gained):
            continue
        out["flips"][f"loop {name}"] = flips(shared, gained)
        for cost in COSTS:
            spent, by = _wide(rows, cost, shared)
            if len(spent):
                out["pareto"][f"{cost}/{name}"] = pareto(shared, Measured(spent, by), Measured(gained, of))
    return out


def _roc(rows: Any, curve: Any, coefs: list[float], usable: list[float]) -> dict[str, Any]:
    """Points and reached area; empty and None where the task does not say both which items are right and wrong."""
    sides = [_wide(select(rows, is_wrong=flag), "copied", coefs) for flag in (0, 1)]
    if not all(len(values) for values, _ in sides):
        return {"roc": [], "area": None}
    false, hit = resampled(*(Measured(1 - values, by) for values, by in sides))
    youden = (1 - sides[1][0]).mean(0) - (1 - sides[0][0]).mean(0)
    points: list[dict[str, Any]] = []
    for i, row in enumerate(curve.to_dict("records")):
        low, high = np.nanquantile(hit[:, i] - false[:, i], [TAIL, 1 - TAIL])
        rates = {name + end: float(row[name + end]) for name in RATES for end in ENDS}
        named = {"youden": float(youden[i]), "youden_low": float(low), "youden_high": float(high)}
        points.append({"coef": coefs[i], "usable": coefs[i] in usable, **rates, **named})
    at = [coefs.index(c) for c in usable]
    area = reached_area([points[i]["false_rewrite"] for i in at], [1 - points[i]["missed_rewrite"] for i in at])
    if area:
        drawn = [reached_area(x, y) for x, y in zip(false[:, at], hit[:, at], strict=True) if not np.isnan(x + y).any()]
        heights = [a["height"] - a["chance"] for a in drawn if a]
        low, high = np.quantile(heights, [TAIL, 1 - TAIL])
        over = {"over_chance": area["height"] - area["chance"], "over_chance_low": low, "over_chance_high": high}
        area |= {name: float(value) for name, value in over.items()}
    return {"roc": points, "area": area}


def _controls(table: Any, task: str) -> dict[str, list[dict[str, float]]]:
    """Both rates of every other direction that was swept, coefficient by coefficient."""
    mine = select(table, task=task).dropna(subset=[*RATES])
    others = [d for d in dict.fromkeys(mine["direction"]) if d not in (CORRECTION, UPSTREAM)]
    return {d: select(mine, direction=d)[["coef", *RATES]].to_dict("records") for d in others}


def _wide(rows: Any, column: str, coefs: list[float]) -> tuple[ndarray, tuple[Any, ...]]:
    """Values [unit, coef] and each unit's problem, of the units that have a value at every coefficient."""
    unit = [name for name in ("seed", "item") if name in rows]
    index = [*unit, "problem"]
    twice = rows.duplicated([*index, "coef"])
    if twice.any():
        raise UserError(f"{int(twice.sum())} rows of {column} stand twice; delete the folder and run the sweep again")
    wide = rows.pivot(index=index, columns="coef", values=column).reindex(columns=coefs).astype(float).dropna()
    problems = wide.index.get_level_values("problem") if len(index) > 1 else wide.index
    return wide.to_numpy(), tuple(problems)


def report(run: str | Path, console: Console | None = None) -> dict[str, Any]:
    """Compute, write tradeoff.json, print the tables; returns what was written."""
    numbers = tradeoff(run)
    (Path(run) / "tradeoff.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    for task, of_task in numbers["tasks"].items():
        for table in tables(task, of_task):
            console.print(table)
        for sentence in sentences(of_task):
            console.print(sentence, markup=False)
    if not numbers["finished"]:
        console.print("The run is not finished: these are the rows so far.", style="yellow")
    return numbers


def main(config: Tradeoff) -> None:
    """Print and write the numbers, then draw them."""
    report(config.run)
    draw("tradeoff", config.run)


if __name__ == "__main__":
    run_cli(Tradeoff, main, "analysis.tradeoff")
