"""A sweep's dose curves as tables with a verdict: `python -m analysis.curve RUN`.

Writes summary.csv and statistics.json into the run folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.curves.nulls import is_null
from analysis.curves.sentences import sentence_line
from analysis.dose import dose_statistics
from analysis.summary import CORRECTION, UPSTREAM, Records, load_records, outcomes, select, summarise
from analysis.tables.curve import (
    absent_line,
    changes_lines,
    coefficient,
    collapse_line,
    condition_line,
    controls_line,
    gate_line,
    improvement_lines,
    number,
    prompts_line,
    shuffled_line,
    statistics_line,
    unsteered_line,
)
from corrector.errors import run_cli
from corrector.records.canonical import canonical

__all__ = ["Curve", "dose_statistics", "report", "summarise"]

WIDTH = 100
UNITS = {"norm": "coef 1 = 1 ‖h‖", "kl": "coef in nats a token"}
MINIATURE = (
    "the corrector is a miniature trained to show the effect (a model organism); "
    "its curve shows what the lab measures, not how correctors of ordinary size behave."
)


@dataclass(frozen=True)
class Curve:
    """Print the dose curves of a sweep's run folder, and write summary.csv and statistics.json into it."""

    run: tyro.conf.Positional[Path]
    """Run folder, such as runs/sweep-1a2b3c4d."""


def report(run: str | Path, console: Console | None = None) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Print a run (see `tell`), and write summary.csv and statistics.json into it."""
    table, statistics = tell(run, console or Console())
    table.to_csv(Path(run) / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (Path(run) / "statistics.json").write_text(canonical(statistics), encoding="utf-8")
    return table, statistics


def tell(run: str | Path, console: Console) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Summarise a run and print one table and one verdict a task; nothing is written."""
    records = load_records(run)
    table = summarise(records)
    statistics = dose_statistics(records, table)
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    for task, numbers in statistics["tasks"].items():
        console.print()
        console.print(task_table(table, task, numbers))
        for text in told(records, table, task, numbers):
            console.print(Text(text))
        console.print(verdict_line(task, numbers))
    if miniatures := [task for task, numbers in statistics["tasks"].items() if numbers["model_organism"]]:
        console.print(Text(f"\n{' and '.join(miniatures)}: {MINIATURE}", style="dim"))
    if not statistics["finished"]:
        console.print(Text("The run is not finished: these are the rows so far.", style="yellow"))
    return table, statistics


def told(records: Records, table: pd.DataFrame, task: str, numbers: dict[str, Any]) -> list[str]:
    """What is said below a task's table, a sentence a line, without those that have nothing to say."""
    mine = select(table, task=task)
    steered = select(mine, direction=CORRECTION)
    lines = (
        condition_line(numbers.get("condition"), steered),
        unsteered_line(mine),
        statistics_line(numbers),
        controls_line(numbers),
        shuffled_line(numbers),
        prompts_line(mine),
        absent_line(records.setting(task, "controls"), records.setting(task, "unreached")),
        collapse_line(steered),
        gate_line(records.setting(task, "gate")),
        sentence_line(numbers.get("sentences", {})),
        *changes_lines(numbers["loop"]),
        *improvement_lines(numbers["improvement"]),
    )
    return [line for line in lines if line]


def task_table(table: pd.DataFrame, task: str, numbers: dict[str, Any]) -> Table:
    """One line a coefficient; coefficients outside the usable range are dim."""
    mine = select(table, task=task)
    rows, alone = select(mine, direction=CORRECTION), select(mine, direction=UPSTREAM)
    random, loop = mine.loc[[is_null(direction) for direction in mine["direction"]]], outcomes(mine)
    out = Table(title=title(task, numbers), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    out.pad_edge, out.padding = False, 0
    headings = ["coef", "edit ratio\n\\[95 %]", "random\nmin-max", "copied", "false\nrewrite", "missed\nrewrite"]
    for heading in [*headings, "well\nformed", "right\nafter", "KL\nnats", *(f"loop\n{name}" for name in loop)]:
        out.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for _, row in rows.iterrows():
        rates = ("copied", "false_rewrite", "missed_rewrite", "well_formed", "right_after")
        cells = [coefficient(row["coef"]), interval(row, "edit_ratio"), spread(random, row["coef"])]
        cells += [number(row[name]) for name in rates] + [number(row["kl"], 3)]
        cells += [number(row.get(f"loop_{name}")) for name in loop]
        out.add_row(*cells, style=None if row["coef"] in numbers["usable"] else "dim")
    for _, row in alone.iterrows():
        out.add_section()
        out.add_row("alone", *[""] * (len(headings) + 2), *(number(row[f"loop_{name}"]) for name in loop))
    return out


def title(task: str, numbers: dict[str, Any]) -> str:
    """The task, how it was steered, and on how much data."""
    return f"{task}: {', '.join([*setting(numbers), size(numbers)])}"


def setting(numbers: dict[str, Any]) -> list[str]:
    """Method, layers, span and dose, as far as the run names them."""
    layers, dose, unit = numbers["layers"], numbers["dose"], numbers.get("coef_unit", "natural")
    listed = list(layers) if isinstance(layers, list | tuple) else [layers]
    return [
        *([str(numbers["method"])] if numbers["method"] else []),
        *([f"layer{'s' * (len(listed) > 1)} {', '.join(map(str, listed))}"] if layers is not None else []),
        *([f"span {numbers['span']}"] if numbers["span"] else []),
        *([f"coef 1 = {dose:.2f} ‖h‖"] if isinstance(dose, float) and unit == "natural" else []),
        *([UNITS[unit]] if unit in UNITS else []),
    ]


def size(numbers: dict[str, Any]) -> str:
    """How much the curve rests on."""
    return f"{numbers['n_items']} items of {numbers['n_questions']} questions"


def verdict_line(task: str, numbers: dict[str, Any]) -> Text:
    """What the numbers come to, in one plain sentence."""
    words, style = ("steers", "bold green") if numbers["steers"] else ("does not steer here", "bold yellow")
    return Text.assemble((f"{task} {words}: ", style), f"{numbers['reason']}.")


def interval(row: Any, name: str) -> str:
    """`mean [low, high]`."""
    low, high = number(row[f"{name}_low"]), number(row[f"{name}_high"])
    return f"{number(row[name])} \\[{low}, {high}]" if low else number(row[name])


def spread(controls: Any, coef: float) -> str:
    """The smallest and largest edit ratio of the controls at a coefficient; blank where there are none."""
    values = controls.loc[controls["coef"] == coef, "edit_ratio"].dropna()
    return f"{number(values.min())}-{number(values.max())}" if len(values) and coef else ""


if __name__ == "__main__":
    run_cli(Curve, lambda curve: report(curve.run), "analysis.curve")
