"""Ablations against their base, and length by corrected rounds: `python -m figures.ablations RUN`.

Draws ablations.png and ablations.pdf into a run folder of analysis.ablations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.ablations import ablation_statistics
from analysis.experiments.measured import AUROC, RANDOM, SLOPE
from analysis.rounds import LENGTH, told
from corrector.records import read_json
from figures import drawn, style
from figures.drawn import Drawn, Row, point

LINE, CURVES, EXTRA = 0.17, 1.9, 0.62
"""Inches of a variant's line, of a panel of curves, and of axis and title of each row of panels."""
NOTE = (
    "Large: mean over training seeds, bar: 95 % bootstrap over seeds and problems; small: each training seed. Dashed: "
    "the base. False rewrites: share of right sentences edited; missed: of wrong ones copied. Gains are over the "
    "upstream alone on the same problems. Curves: the corrector acts on the first k sentences (continue: and then "
    "finishes the answer), bands: 95 % bootstrap over problems."
)
COLOURS = {
    **{"base": style.INK, "identity": style.VERMILLION, "warm-up": style.ORANGE, "noise": style.PURPLE},
    **{"unit": style.BLUE, "untrained": style.MUTED, "upstream": style.GREEN},
}
CURVE_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION)
LABELS = {
    "edit_ratio": "edit ratio",
    "false_rewrite": "false rewrites",
    "missed_rewrite": "missed rewrites",
    "valid": "valid corrections",
    AUROC: "AUROC of the direction",
    SLOPE: "edit ratio a coefficient",
    RANDOM: "the same, steepest random",
    LENGTH: "tokens of the answer",
}
"""What a panel shows; outcomes of the loop have their own names. Other measures are in the table only."""


@dataclass(frozen=True)
class Table:
    """The plotted data: panels of variants by (base, measure), and curves of tokens by (task, mode)."""

    run: str
    task: str
    model_organism: bool
    panels: dict[tuple[str, str], list[Row]]
    """Points in the order of the run's variants."""
    curves: dict[tuple[str, str], dict[str, list[Row]]]
    """Points in the order of k, by corrector."""


def label(measure: str) -> str | None:
    """What the panel of a measure is called; None where it has none."""
    return f"gain in {measure.removeprefix('gain_')}" if measure.startswith("gain_") else LABELS.get(measure)


def table(numbers: Row) -> Table:
    """The plotted data of `ablation_statistics`."""
    panels: dict[tuple[str, str], list[Row]] = {}
    for p in numbers["points"]:
        if label(p["measure"]):
            panels.setdefault((p["base"], p["measure"]), []).append(p)
    curves: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for p in numbers["verbosity"]:
        curves.setdefault((p["task"], p["mode"]), {}).setdefault(p["corrector"], []).append(p)
    return Table(numbers["run"], numbers["task"], any(m["model_organism"] for m in numbers["models"]), panels, curves)


def rows_of(found: Table, across: int) -> list[list[tuple[str, str]]]:
    """The keys of the panels row by row, so many each: a base's measures together, then the curves, which are wider."""
    rows: list[list[tuple[str, str]]] = []
    for base in dict.fromkeys(base for base, _ in found.panels):
        rows += style.cut([key for key in found.panels if key[0] == base], across)
    return rows + style.cut([*found.curves], max(1, across - 1))


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """Means have the gid `mean-<measure>-<variant>`, curves `<corrector>/<mode>`."""
    across = style.panels_across(width, max(len(found.panels), len(found.curves)))
    rows = rows_of(found, across)
    heights = [EXTRA + (LINE * _lines(found, row) if row[0] in found.panels else CURVES - EXTRA) for row in rows]
    with style.look():
        figure = style.sheet(width, sum(heights), (NOTE, *_below(found)))
        wide = max(1, across - 1)
        cells: Any = figure.add_gridspec(len(rows), across * wide, height_ratios=heights)
        for i, row in enumerate(rows):
            names = [p["name"] for p in max((found.panels.get(key, []) for key in row), key=len)]
            for j, key in enumerate(row):
                span = wide if key in found.panels else across
                ax = figure.add_subplot(cells[i, j * span : (j + 1) * span])
                if key in found.panels:
                    _panel(ax, found, key, names, labelled=j == 0)
                else:
                    _curve(ax, key, found.curves[key])
    return figure


def _below(found: Table) -> tuple[str, ...]:
    runs = dict.fromkeys(p["run"] for of in found.curves.values() for c in of.values() for p in c)
    return (
        f"Run {found.run}, drawn by figures.ablations{'; curves from ' if runs else ''}{', '.join(runs)}.",
        style.MINIATURES if found.model_organism else "",
    )


def _lines(found: Table, row: Sequence[tuple[str, str]]) -> int:
    return max(len(found.panels[key]) for key in row)


def _panel(ax: Axes, found: Table, key: tuple[str, str], names: Sequence[str], labelled: bool) -> None:
    base, measure = key
    points = found.panels[key]
    for p in points:
        if p["name"] == base:
            ax.axvline(p["mean"], color=style.MUTED, linestyle="--", linewidth=1.0)
        y, colour = names.index(p["name"]), COLOURS[p["group"]]
        if p["mean_low"] is not None:
            ax.plot([p["mean_low"], p["mean_high"]], [y, y], "-", color=colour, linewidth=1.4)
        ax.plot([p["mean"]], [y], "o", color=colour, markersize=4.5, gid=f"mean-{measure}-{p['name']}")
        if p["n_seeds"] > 1:
            ax.plot(p["seeds"], [y] * p["n_seeds"], "o", color=colour, markersize=2.2, alpha=0.5)
    ax.set_yticks(range(len(names)), names if labelled else [""] * len(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel(label(measure) or measure)
    n = sorted({p["n"] for p in points})
    title = f"n = {n[0]}{f' to {n[-1]}' if len(n) > 1 else ''}, {max(p['n_seeds'] for p in points)} seeds"
    style.heading(ax, f"{style.bold(found.task)}, {title}" if labelled else title)


def _curve(ax: Axes, key: tuple[str, str], of: dict[str, list[Row]]) -> None:
    task, mode = key
    for colour, (corrector, points) in zip(CURVE_COLOURS * len(of), of.items(), strict=False):
        x = np.arange(len(points))
        low, high = ([p[end] for p in points] for end in ("low", "high"))
        if None not in low:
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        means = [p["mean"] for p in points]
        ax.plot(x, means, "o-", color=colour, label=corrector, gid=f"{corrector}/{mode}", markersize=3)
        ax.set_xticks(x, [told(p["k"]) for p in points])
    ax.set_xlabel("corrected rounds k")
    ax.set_ylabel(LABELS[LENGTH])
    n = next(iter(of.values()))[0]["n"]
    style.heading(ax, f"{style.bold(task)}, {mode}, n = {n}", 2)


def rows(found: Table) -> list[Row]:
    """The plotted numbers: means and seeds of the variants with `x` the mean, then curves by k."""
    out: list[Row] = []
    for (base, measure), points in found.panels.items():
        for y, p in enumerate(points):
            ends = (p["mean_low"], p["mean_high"])
            out.append(point(f"{base}/{measure}", p["name"], p["mean"], y, *ends, n=p["n"], n_seeds=p["n_seeds"]))
            if p["n_seeds"] > 1:
                out += [point(f"{base}/{measure}", f"{p['name']}, seed {i}", x, y) for i, x in enumerate(p["seeds"])]
    for (task, mode), of in found.curves.items():
        for corrector, points in of.items():
            for p in points:
                ends = (p["low"], p["high"])
                out.append(point(f"{task}/{LENGTH}", f"{corrector}/{mode}", told(p["k"]), p["mean"], *ends, n=p["n"]))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of analysis.ablations."""
    numbers = ablation_statistics(run)
    found = table(numbers)
    points = [p for of in found.panels.values() for p in of]
    untold = sorted({p["measure"] for p in numbers["points"]} - {p["measure"] for p in points})
    names = [*(f"{name}, a measure without a panel" for name in untold), *(f"{r}, absent" for r in numbers["absent"])]
    rounds = [
        drawn.inputs(Path(r), "about.json") for r in read_json(run, "config")["rounds"] if r not in numbers["absent"]
    ]
    return Drawn(
        draw(found, width),
        rows(found),
        {"problems or pairs at least": min(p["n"] for p in points), "at most": max(p["n"] for p in points)}
        | {"training seeds at most": max(p["n_seeds"] for p in points)},
        tuple(names),
        f"{drawn.BOOTSTRAP} over training seeds and problems, each on its own (curves: over problems)",
        drawn.told(f"Ablations of {found.task} against their base.", NOTE, *_below(found)[1:]),
        (*drawn.inputs(run, "about.json"), *(file for files in rounds for file in files)),
    )


if __name__ == "__main__":
    drawn.cli("ablations", build)
