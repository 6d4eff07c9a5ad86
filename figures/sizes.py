"""Gain of correction against its cost, by corrector size (Fig 6): `python -m figures.sizes RUN`.

Draws sizes.png and sizes.pdf into a run folder of analysis.sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.rounds import told
from analysis.sizes import sizes_statistics
from figures import drawn, style
from figures.drawn import Drawn, Row, point

HEIGHT = 2.3
"""Inches of a row of panels."""
COLOURS = (style.SKY, style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE)
COSTS = {
    "k": "corrected rounds k",
    "work": "tokens fed x parameters (millions a problem)",
    "seconds": "seconds a problem",
}
NOTE = (
    "Numbers at points: corrected rounds k; bars: 95 % bootstrap over training seeds and problems; faint dots: each "
    "training seed. Fed tokens count padding and rejected drafts. Seconds: CPU time on a CPU, wall time on an "
    "accelerator."
)


@dataclass(frozen=True)
class Table:
    """The plotted data: an outcome's points by corrector, small ones first, each in the order of k."""

    run: str
    model_organism: bool
    n: int
    outcomes: tuple[str, ...]
    curves: dict[str, list[Row]]
    stand_ins: int
    """Training seeds whose answers come from a shipped run, as no checkpoint is here, so without seconds."""


def table(numbers: Row) -> Table:
    """The plotted data of `sizes_statistics`."""
    curves: dict[str, list[Row]] = {}
    for p in numbers["points"]:
        curves.setdefault(p["corrector"], []).append(p)
    correctors = numbers["correctors"]
    stand_ins = sum(c.get("source") == "cache" for c in correctors)
    organism = any(c["model_organism"] for c in correctors)
    return Table(
        numbers["run"], organism, numbers["points"][0]["n"], tuple(correctors[0]["outcomes"]), curves, stand_ins
    )


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A panel for each outcome and cost. Lines have the gid `<outcome>/<cost>/<corrector>`."""
    across = style.panels_across(width, len(COSTS))
    keys = [row for outcome in found.outcomes for row in style.cut([(outcome, cost) for cost in COSTS], across)]
    with style.look():
        below = (
            *notes(found),
            f"Run {found.run}, drawn by figures.sizes.",
            style.MINIATURES if found.model_organism else "",
        )
        figure = style.sheet(width, HEIGHT * len(keys), below)
        axes: Any = figure.subplots(len(keys), across, squeeze=False)
        for i, row in enumerate(keys):
            for j, (outcome, cost) in enumerate(row):
                _panel(axes[i][j], found, outcome, cost)
                if j == 0:
                    axes[i][j].set_ylabel(f"gain of {outcome}\nover the upstream alone")
                legend = len(found.curves) if cost == next(iter(COSTS)) else 0
                title = f"n = {found.n} problems, one at a time" if legend else ""
                style.heading(axes[i][j], title, min(legend, 1))
    return figure


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    told_of = f"Of {found.stand_ins} seeds, whose answers are a shipped run's, seconds are not counted."
    return NOTE, told_of if found.stand_ins else ""


def _panel(ax: Axes, found: Table, outcome: str, cost: str) -> None:
    for colour, (corrector, points) in zip(COLOURS * len(found.curves), found.curves.items(), strict=False):
        if cost not in points[0] and cost != "k":
            continue  # all of this size are stand-ins, whose seconds are another machine's
        x = list(range(len(points))) if cost == "k" else [p[cost] for p in points]
        y = [p[f"{outcome}_gain"] for p in points]
        low, high = ([p[f"{outcome}_gain_{end}"] for p in points] for end in ("low", "high"))
        if None not in low:
            ax.vlines(x, low, high, color=colour, alpha=0.5, linewidth=1.0)
        if points[0]["n_seeds"] > 1:
            for seed in zip(*(p[f"{outcome}_seeds"] for p in points), strict=True):
                ax.plot(x, seed, ".", color=colour, alpha=0.35, markersize=3, gid=f"{outcome}/{cost}/{corrector}/seed")
        seeds = f", {points[0]['n_seeds']} seeds" if points[0]["n_seeds"] > 1 else ""
        size = f"{corrector}, {points[0]['n_parameters'] / 1e6:.3g} M parameters{seeds}"
        ax.plot(x, y, "o-", color=colour, label=size, gid=f"{outcome}/{cost}/{corrector}")
        if cost == "k":
            ax.set_xticks(x, [told(p["k"]) for p in points])
            continue
        look: Any = {"textcoords": "offset points", "fontsize": style.TINY, "color": colour}
        for xi, yi, p in zip(x, y, points, strict=True):
            ax.annotate(told(p["k"]), (xi, yi), xytext=(3, -7), **look)
    ax.set_xlabel(COSTS[cost])


def rows(found: Table) -> list[Row]:
    """The plotted numbers: gains by k, with both costs of each point beside."""
    out: list[Row] = []
    for outcome in found.outcomes:
        for corrector, points in found.curves.items():
            for p in points:
                y, low, high = (p[f"{outcome}_gain{end}"] for end in ("", "_low", "_high"))
                costs = {name: p.get(name) for name in COSTS if name != "k"}
                out.append(point(outcome, corrector, told(p["k"]), y, low, high, n=p["n"], **costs))
                of_seed = [*enumerate(p[f"{outcome}_seeds"])] if p["n_seeds"] > 1 else []
                out += [point(outcome, f"{corrector}, seed {i}", told(p["k"]), one, n=p["n"]) for i, one in of_seed]
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of analysis.sizes."""
    found = table(sizes_statistics(run))
    organisms = style.MINIATURES if found.model_organism else ""
    return Drawn(
        draw(found, width),
        rows(found),
        {"problems": found.n, "sizes": len(found.curves)},
        ("intervals of both costs, which are means over the same problems",),
        f"{drawn.BOOTSTRAP} over training seeds and problems",
        drawn.told("Gain of correction against its cost, by size of the corrector.", *notes(found), organisms),
        drawn.inputs(run, "about.json"),
    )


if __name__ == "__main__":
    drawn.cli("sizes", build)
