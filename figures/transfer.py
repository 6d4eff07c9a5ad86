"""The transfer table: whose vector steers whom, and how it got there: `python -m figures.transfer RUN`.

Draws transfer.png and transfer.pdf into a run folder of steering.transfer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curves.transfers import transfer_statistics
from figures import drawn, style
from figures.drawn import Drawn, Row, point

ROW, EXTRA = 0.17, 0.75
"""Inches of a route's row, and of what stands above and below the rows of a panel."""
WAYS = {
    "own": (style.INK, "its own vector"),
    "raw": (style.ORANGE, "another's, as it is"),
    "procrustes": (style.BLUE, "another's, mapped"),
    "shuffled": (style.VERMILLION, "mapped, fitted on items in another order"),
    "task": (style.GREEN, "its own, of another task"),
}
"""Ways of a vector: colour, and the name in the legend."""
NOTE = (
    "Slope of the edit ratio on the target's test items, when it is steered by the vector named at the left. Bars: "
    "95 % bootstrap over questions. Grey strokes: the least and the largest slope of random directions that came the "
    "same way. Dashed: the target's own vector. Right: cosine to that vector."
)


@dataclass(frozen=True)
class Table:
    """The plotted data: routes by target, its own vector first."""

    about: Row
    """`analysis.curves.transfers.transfer_statistics`."""
    panels: dict[str, list[Row]]


def table(numbers: Row) -> Table:
    """The plotted data of `transfer_statistics`."""
    panels: dict[str, list[Row]] = {}
    ways = [*WAYS]
    for p in sorted(numbers["points"], key=lambda p: ways.index(p["how"])):
        panels.setdefault(f"{Path(p['target']).name}, {p['task']}", []).append(p)
    return Table(numbers, dict(sorted(panels.items())))


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A panel a target, a row a route, the first on top. Slopes have the gid `<target>/<source>/<how>`."""
    across = style.panels_across(width, len(found.panels))
    n_rows = -(-len(found.panels) // across)
    height = ROW * max(map(len, found.panels.values())) + EXTRA
    organisms = style.MINIATURES if found.about["organisms"] else ""
    with style.look():
        below = (NOTE, f"Run {found.about['run']}, drawn by figures.transfer.", organisms)
        figure = style.sheet(width, height * n_rows + 0.25, below)
        axes: Any = figure.subplots(n_rows, across, squeeze=False, sharex=True)
        for ax, (name, points) in zip(axes.flat, found.panels.items(), strict=False):
            _panel(ax, name, points)
        for ax in axes.flat[len(found.panels) :]:
            ax.set_visible(False)
        used = {p["how"] for points in found.panels.values() for p in points}
        look: Any = {"linestyle": "-", "marker": "o"}
        handles = [style.key(label, color=c, **look) for how, (c, label) in WAYS.items() if how in used]
        figure.legend(handles=handles, loc="outside upper left", ncols=4 if width >= style.PAGE else 2)
    return figure


def _panel(ax: Axes, name: str, points: list[Row]) -> None:
    for p in points:
        if p["how"] == "own":
            ax.axvline(p["slope"], color=style.MUTED, linestyle="--", linewidth=0.8, gid="own")
    ax.axvline(0, color=style.MUTED, linewidth=0.6)
    for y, p in enumerate(points):
        colour = WAYS[p["how"]][0]
        ax.plot([p["random_low"], p["random_high"]], [y, y], "|", color=style.CONTROL, markersize=7, gid="random")
        if p["slope_low"] is not None:
            ax.plot([p["slope_low"], p["slope_high"]], [y, y], "-", color=colour, linewidth=1.4)
        ax.plot([p["slope"]], [y], "o", color=colour, gid=_gid(p))
        cosine: Any = {"ha": "right", "va": "center", "fontsize": style.TINY, "color": style.MUTED}
        ax.annotate(f"{p['cosine']:.2f}", (1.0, y), xycoords=("axes fraction", "data"), **cosine)
    ax.set_yticks(range(len(points)), [Path(p["source"]).name for p in points])
    ax.set_ylim(len(points) - 0.5, -0.5)
    ax.margins(x=0.18)
    ax.tick_params(labelbottom=True)
    ax.set_xlabel("slope (edit ratio per coef)")
    style.heading(ax, f"{style.bold(name.split(', ')[0])}, n = {points[0]['n']} questions")


def _gid(p: Row) -> str:
    return f"{Path(p['target']).name}/{Path(p['source']).name}/{p['how']}"


def rows(found: Table) -> list[Row]:
    """The plotted numbers."""
    kept = ("cosine", "ratio", "random_low", "random_high", "n")
    out: list[Row] = []
    for name, points in found.panels.items():
        for y, p in enumerate(points):
            same = {key: p[key] for key in kept}
            source = f"{Path(p['source']).name}/{p['how']}"
            out.append(point(name, source, p["slope"], y, p["slope_low"], p["slope_high"], **same))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of steering.transfer."""
    found = table(transfer_statistics(run))
    points = [p for of in found.panels.values() for p in of]
    organisms = style.MINIATURES if found.about["organisms"] else ""
    return Drawn(
        draw(found, width),
        rows(found),
        {"questions of a target": max(p["n"] for p in points), "routes": len(points)},
        tuple(found.about["absent"]),
        f"{drawn.BOOTSTRAP} over questions",
        drawn.told(f"Transfer of vectors ({found.about['method']} at {found.about['span']}).", NOTE, organisms),
        drawn.inputs(run, "transfer.json"),
    )


if __name__ == "__main__":
    drawn.cli("transfer", build)
