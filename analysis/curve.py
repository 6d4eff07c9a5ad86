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

from analysis.dose import WELL_FORMED, dose_statistics
from analysis.summary import CORRECTION, UPSTREAM, load_records, outcomes, select, summarise
from corrector.canonical import canonical
from corrector.errors import run_cli

__all__ = ["Curve", "dose_statistics", "report", "summarise"]

WIDTH = 100
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
    """Summarise a run, write summary.csv and statistics.json, print one table and one verdict a task."""
    records = load_records(run)
    table = summarise(records)
    statistics = dose_statistics(records, table)
    table.to_csv(records.run / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (records.run / "statistics.json").write_text(canonical(statistics), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    for task, numbers in statistics["tasks"].items():
        console.print()
        console.print(task_table(table, task, numbers))
        gate = gate_line(records.setting(task, "gate"))
        for text in (statistics_line(numbers), controls_line(numbers), gate):
            if text:
                console.print(Text(text))
        console.print(verdict_line(task, numbers))
    if miniatures := [task for task, numbers in statistics["tasks"].items() if numbers["model_organism"]]:
        console.print(Text(f"\n{' and '.join(miniatures)}: {MINIATURE}", style="dim"))
    if not statistics["finished"]:
        console.print(Text("The run is not finished: these are the rows so far.", style="yellow"))
    return table, statistics


def task_table(table: pd.DataFrame, task: str, numbers: dict[str, Any]) -> Table:
    """One line a coefficient; coefficients outside the usable range are dim."""
    mine = select(table, task=task)
    rows, alone = select(mine, direction=CORRECTION), select(mine, direction=UPSTREAM)
    random, loop = mine.loc[mine["direction"].str.startswith("random")], outcomes(mine)
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
    layers, dose = numbers["layers"], numbers["dose"]
    listed = list(layers) if isinstance(layers, list | tuple) else [layers]
    return [
        *([str(numbers["method"])] if numbers["method"] else []),
        *([f"layer{'s' * (len(listed) > 1)} {', '.join(map(str, listed))}"] if layers is not None else []),
        *([f"span {numbers['span']}"] if numbers["span"] else []),
        *([f"coef 1 = {dose:.2f} ‖h‖"] if isinstance(dose, float) else []),
    ]


def size(numbers: dict[str, Any]) -> str:
    """How much the curve rests on."""
    return f"{numbers['n_items']} items of {numbers['n_questions']} questions"


def statistics_line(numbers: dict[str, Any]) -> str:
    """The curve on its usable range in one sentence; empty when there is no such range."""
    if "slope" not in numbers:
        return ""
    low, high = numbers["relative"]
    ends = f"{coefficient(numbers['usable'][0])} to {coefficient(numbers['usable'][-1])}"
    return (
        f"Usable coefs {ends} (well-formed in {WELL_FORMED:.0%} or more): slope {number(numbers['slope'])} "
        f"[{number(numbers['slope_low'])}, {number(numbers['slope_high'])}] edit ratio per coef, "
        f"R² {number(numbers['r2']) or 'undefined'}, Spearman {number(numbers['spearman']) or 'undefined'}; "
        f"{number(low)} to {number(high)} times the unsteered {number(numbers['unsteered'])}; "
        f"copied {number(numbers['copied_at_lowest'])} at {coefficient(numbers['usable'][0])}, "
        f"{number(numbers['copied_unsteered'])} unsteered; "
        f"{numbers['wrong_way']:.0%} of items move the wrong way."
    )


def controls_line(numbers: dict[str, Any]) -> str:
    """The controls' slopes in one sentence; empty when there are none."""
    parts: list[str] = []
    if numbers.get("random_slopes"):
        parts.append(
            f"{len(numbers['random_slopes'])} random directions of equal norm: largest |slope| "
            f"{number(numbers['largest_random_slope'])}, ratio {number(numbers['ratio'], 1) or 'undefined'}, "
            f"z {number(numbers['z'], 1) or 'undefined'}, p {number(numbers['p'], 3)}"
        )
    parts += [f"{name}: slope {number(slope)}" for name, slope in numbers.get("control_slopes", {}).items()]
    return f"Controls: {'; '.join(parts)}." if parts else ""


def gate_line(gate: Any) -> str:
    """Whether the corrector tells minimal pairs apart, in its state and in what it does; empty where none was made."""
    if not isinstance(gate, dict):
        return ""
    states: list[str] = []
    for span, layers in gate["auroc"].items():
        if layers is None:
            states.append(f"equal states at {span}")
            continue
        layer, best = max(layers.items(), key=lambda entry: entry[1]["auroc"])
        states.append(
            f"{number(best['auroc'])} [{number(best['low'])}, {number(best['high'])}] at {span} (layer {layer})"
        )
    gap = gate["rewrite"]
    return (
        f"Gate, {gate['n_test']} minimal pairs: largest AUROC of a layer {', '.join(states)}; "
        f"rewrites {number(gap['bad'])} of the bad, {number(gap['good'])} of the good, gap {number(gap['gap'])} "
        f"[{number(gap['low'])}, {number(gap['high'])}]."
    )


def verdict_line(task: str, numbers: dict[str, Any]) -> Text:
    """What the numbers come to, in one plain sentence."""
    words, style = ("steers", "bold green") if numbers["steers"] else ("does not steer here", "bold yellow")
    return Text.assemble((f"{task} {words}: ", style), f"{numbers['reason']}.")


def coefficient(coef: float) -> str:
    """A coefficient with its sign; 0 without."""
    return f"{coef:+g}" if coef else "0"


def number(value: Any, digits: int = 2) -> str:
    """A number of fixed digits; blank where it is missing."""
    return "" if value is None or pd.isna(value) else f"{float(value):.{digits}f}"


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
