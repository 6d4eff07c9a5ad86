"""The dose curve: what a correction vector does to edits and to the align loop, `python -m figures.dose RUN`.

Prints the tables and verdicts of `analysis.curve`, then draws figure.png and figure.pdf into the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curve import report, setting
from analysis.curves.nulls import is_null
from analysis.dose import WELL_FORMED, dose_statistics
from analysis.summary import CORRECTION, UNSTEERED, load_records, outcomes, select, summarise
from figures import dose_panels, drawn, style
from figures.drawn import Drawn, Row, point

HEIGHT, TOP = 1.75, 2.2
"""Inches a row of panels is high, and the first one."""
ENDS = ("", "_low", "_high")
UNCLAMPED = "Dotted across: unsteered, which coefficient 0 of clamp is not."
BAND = "Grey: 2.5 to 97.5 % of the mean curves of random and orthogonal directions of equal norm."


@dataclass(frozen=True)
class Table:
    """The plotted data: lines of `analysis.summary.summarise`, and `analysis.dose.dose_statistics`."""

    summary: pd.DataFrame
    statistics: dict[str, Any]

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of their columns."""
        return [str(task) for task in dict.fromkeys(self.summary["task"]) if task in self.statistics["tasks"]]


def table(summary: pd.DataFrame, statistics: dict[str, Any]) -> Table:
    """The plotted data of `summarise` and `dose_statistics`."""
    return Table(summary, statistics)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """Panels of each task: edit ratio, rates of copying and of both errors, soundness, loop outcomes.

    Several tasks stand in columns side by side, the panels of one task two by two below its edit ratio; in the width
    of a column all are below each other. Lines carry their direction or column name as `gid`, bands `<name>-band`.
    """
    loops = {task: outcomes(select(found.summary, task=task)) for task in found.tasks}
    with style.look():
        below = (*notes(found), _run(found))
        cells = _cells({task: 3 + len(names) for task, names in loops.items()}, width)
        n_rows, n_columns = (1 + max(at[i] for of in cells.values() for at in of) for i in (0, 2))
        figure = style.sheet(width, TOP + HEIGHT * (n_rows - 1) + 0.5, below)
        grid: Any = figure.add_gridspec(n_rows, n_columns, height_ratios=[TOP] + [HEIGHT] * (n_rows - 1))
        panels: dict[str, list[Axes]] = {task: [] for task in cells}
        for (row, first, last), task in sorted((at, task) for task, of in cells.items() for at in of):
            panels[task].append(figure.add_subplot(grid[row, first : last + 1]))
        for task, axes in panels.items():
            mine, numbers = select(found.summary, task=task), found.statistics["tasks"][task]
            dose_panels.edit_ratio(axes[0], mine, numbers)
            dose_panels.rates(axes[1], mine, dose_panels.EDIT_RATES)
            dose_panels.rates(axes[2], mine, dose_panels.TEXT_RATES)
            axes[2].axhline(WELL_FORMED, color=style.MUTED, linewidth=0.8, linestyle=":", gid="threshold")
            for ax, name in zip(axes[3:], loops[task], strict=True):
                dose_panels.loop(ax, mine, name)
            dose_panels.coefficients(axes, mine, numbers)
            spans = [1 + last - first for _, first, last in cells[task]]
            dose_panels.headings(axes, [width * span / n_columns - 0.6 for span in spans], task, numbers)
        figure.align_ylabels()
    return figure


def _cells(n_panels: dict[str, int], width: float) -> dict[str, list[tuple[int, int, int]]]:
    """Row, first and last column of every panel of every task."""
    if width < style.PAGE:
        tops = {task: sum([*n_panels.values()][:i]) for i, task in enumerate(n_panels)}
        return {task: [(tops[task] + k, 0, 0) for k in range(n)] for task, n in n_panels.items()}
    if len(n_panels) > 1:
        return {task: [(k, i, i) for k in range(n)] for i, (task, n) in enumerate(n_panels.items())}
    task, n = next(iter(n_panels.items()))
    pairs = [(1 + k // 2, k % 2, k % 2) for k in range(n - 1)]
    if n % 2 == 0:  # the last one has no neighbour
        pairs[-1] = (pairs[-1][0], 0, 1)
    return {task: [(0, 0, 1), *pairs]}


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    tasks = found.statistics["tasks"].values()
    return (
        "False rewrite: share of the right sentences that were edited. Missed rewrite: share of the wrong ones copied.",
        "Bands: 95 % bootstrap over questions.",
        UNCLAMPED if any(numbers.get("operator") == "clamp" for numbers in tasks) else "",
        f"Shaded: outside the usable range (well-formed under {WELL_FORMED:.0%}{_on(found.statistics)}); "
        "the line is fitted inside it.",
        BAND if any(numbers.get("null_band") for numbers in tasks) else "",
        style.MINIATURES if any(numbers["model_organism"] for numbers in tasks) else "",
    )


def _run(found: Table) -> str:
    going = "" if found.statistics["finished"] else " (not finished)"
    return f"Run {found.statistics['run']}{going}, drawn by figures.dose."


def _on(statistics: dict[str, Any]) -> str:
    """Where the usable range was found, if not on the rows that are drawn."""
    found = {numbers.get("usable_from") for numbers in statistics["tasks"].values()}
    return " of validation corrections" if found == {"validation"} else ""


def rows(found: Table) -> list[Row]:
    """The plotted numbers: curves with their intervals, controls, the band of the nulls and the line fit."""
    out: list[Row] = []
    for task in found.tasks:
        mine, numbers = select(found.summary, task=task), found.statistics["tasks"][task]
        loops = [f"loop_{name}" for name in outcomes(mine)]
        rates = [column for column, *_ in (*dose_panels.EDIT_RATES, *dose_panels.TEXT_RATES)]
        band = numbers.get("null_band")
        for direction in dict.fromkeys(mine["direction"]):
            shown = ["edit_ratio", *loops, *(rates if direction in (CORRECTION, UNSTEERED) else [])]
            if band and is_null(direction):
                shown = loops
            for column in shown:
                of = select(mine, direction=direction).dropna(subset=column)
                counted = "n_problems" if column in loops else "n_items"
                for x, n, *values in of[["coef", counted, *(column + end for end in ENDS)]].itertuples(index=False):
                    out.append(point(f"{task}/{column}", direction, x, *values, n=int(n)))
        for i, coef in enumerate(band["coef"] if band else ()):
            ends = (band["low"][i], band["high"][i])
            out.append(point(f"{task}/edit_ratio", "null band", coef, None, *ends, n=band["n"]))
        if "slope" in numbers:
            for coef in (numbers["usable"][0], numbers["usable"][-1]):
                out.append(point(f"{task}/edit_ratio", "fit", coef, numbers["intercept"] + numbers["slope"] * coef))
    return out


def _drawn(found: Table, width: float = style.PAGE) -> Drawn:
    """The figure of its table, with all that is said of it."""
    tasks = found.statistics["tasks"]
    n = {f"{name} of {task}": of[f"n_{name}"] for task, of in tasks.items() for name in ("items", "questions")}
    for task in tasks:
        loop: Any = select(found.summary, task=task).get("n_problems")
        if loop is not None and loop.notna().any():
            n[f"problems of {task}"] = int(loop.max())
    beyond = {task: len({*select(found.summary, task=task)["coef"]} - {*of["usable"]}) for task, of in tasks.items()}
    titles = [f"{', '.join([task, *setting(of)])}: {of['reason']}." for task, of in tasks.items()]
    return Drawn(
        draw(found, width),
        rows(found),
        n,
        tuple(
            f"{k} coefficients of {task} outside its usable range: shaded, not in the line"
            for task, k in beyond.items()
            if k
        ),
        f"{drawn.BOOTSTRAP} over questions",
        drawn.told("Dose curves of the correction vector.", *titles, *notes(found)),
        (),
    )


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a sweep's run folder."""
    records = load_records(run)
    summary = summarise(records)
    return replace(
        _drawn(table(summary, dose_statistics(records, summary)), width), inputs=drawn.inputs(run, "selection.json")
    )


def reported(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure, with the tables and verdicts of `analysis.curve` printed, and its summary.csv and statistics.json."""
    return _drawn(table(*report(run)), width)


if __name__ == "__main__":
    drawn.cli("dose", reported, "figure")
