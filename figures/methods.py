"""Methods against each other on the same problems (Fig 7): `python -m figures.methods RUN`.

Draws methods.png and methods.pdf into a run folder of analysis.methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import lengths
from analysis.methods import BASE, OURS, methods_statistics
from analysis.rounds import LENGTH
from figures import drawn, style
from figures.drawn import Drawn, Row, point

ROW, EXTRA = 0.2, 0.6
"""Inches of a method's row, and of what stands above and below the rows of a panel."""
NOTE = (
    "Large: mean over training seeds (their number in brackets), bar: 95 % bootstrap over seeds and problems; small: "
    "each training seed. Dashed: the upstream's own answers, band: 95 % over problems."
)


@dataclass(frozen=True)
class Table:
    """The plotted data: points of every outcome in the order of the run's methods."""

    run: str
    task: str
    model_organism: bool
    cached: int
    """Methods and seeds whose answers come from a shipped run, as no checkpoint is here."""
    panels: dict[str, list[Row]]


def table(numbers: Row) -> Table:
    """The plotted data of `methods_statistics`."""
    panels: dict[str, list[Row]] = {}
    for p in numbers["points"]:
        panels.setdefault(p["outcome"], []).append(p)
    systems = numbers["systems"]
    cached = sum(s.get("source") == "cache" for s in systems)
    return Table(numbers["run"], numbers["task"], any(s["model_organism"] for s in systems), cached, panels)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A panel an outcome, a row a method, the first on top. Means have the gid `mean-<outcome>-<method>`."""
    rows = style.cut([*found.panels], style.panels_across(width, len(found.panels)))
    height = ROW * max(map(len, found.panels.values())) + EXTRA
    with style.look():
        below = (
            *notes(found),
            f"Run {found.run}, drawn by figures.methods.",
            style.MINIATURES if found.model_organism else "",
        )
        figure = style.sheet(width, height * len(rows), below)
        axes: Any = figure.subplots(len(rows), len(rows[0]), sharey=True, squeeze=False)
        for i, row in enumerate(rows):
            for ax, outcome in zip(axes[i], row, strict=False):
                _panel(ax, outcome, found.panels[outcome])
            for ax in axes[i][len(row) :]:
                ax.set_visible(False)
        n = next(iter(found.panels.values()))[0]["n"]
        style.heading(axes[0][0], f"{style.bold(found.task)}, n = {n} problems")
    return figure


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    return NOTE, lengths.NOTE if any(outcome.endswith(lengths.ANY) for outcome in found.panels) else ""


def _panel(ax: Axes, outcome: str, points: list[Row]) -> None:
    for p in points:
        if p["method"] == BASE:
            ax.axvline(p["mean"], color=style.MUTED, linestyle="--", linewidth=1.0)
            if p["mean_low"] is not None:
                ax.axvspan(p["mean_low"], p["mean_high"], color=style.SHADE, zorder=0)
    for y, p in enumerate(points):
        colour = {BASE: style.MUTED, OURS: style.VERMILLION}.get(p["method"], style.BLUE)
        if p["mean_low"] is not None:
            ax.plot([p["mean_low"], p["mean_high"]], [y, y], "-", color=colour, linewidth=1.4)
        ax.plot([p["mean"]], [y], "o", color=colour, markersize=4.5, gid=f"mean-{outcome}-{p['method']}")
        if p["n_seeds"] > 1:
            ax.plot([s["mean"] for s in p["seeds"]], [y] * p["n_seeds"], "o", color=colour, markersize=2.2, alpha=0.55)
    ax.set_yticks(range(len(points)), [f"{p['method']} ({p['n_seeds']})" for p in points])
    ax.set_ylim(len(points) - 0.5, -0.5)
    ax.set_xlabel("tokens of the answer" if outcome == LENGTH else f"{outcome} (mean of an answer)")


def rows(found: Table) -> list[Row]:
    """The plotted numbers; `series` is the method, with the place of the training seed where there are several."""
    out: list[Row] = []
    for outcome, points in found.panels.items():
        for y, p in enumerate(points):
            same: Row = {"n": p["n"], "n_seeds": p["n_seeds"]}
            out.append(point(outcome, p["method"], p["mean"], y, p["mean_low"], p["mean_high"], **same))
            if p["n_seeds"] > 1:
                seeds = enumerate(p["seeds"])
                ends = ("mean", "mean_low", "mean_high")
                for i, (x, low, high) in ((i, [s[e] for e in ends]) for i, s in seeds):
                    out.append(point(outcome, f"{p['method']}, seed {i}", x, y, low, high, n=p["n"]))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of analysis.methods."""
    found = table(methods_statistics(run))
    points = [p for of in found.panels.values() for p in of]
    organisms = style.MINIATURES if found.model_organism else ""
    return Drawn(
        draw(found, width),
        rows(found),
        {"problems": points[0]["n"], "methods": len({p["method"] for p in points})}
        | {"training seeds at most": max(p["n_seeds"] for p in points)},
        (f"nothing; answers of {found.cached} systems are those of a shipped run",) if found.cached else (),
        f"{drawn.BOOTSTRAP} over training seeds and problems, each on its own (of one seed: over problems)",
        drawn.told(f"Methods on the same problems of {found.task}.", *notes(found), organisms),
        drawn.inputs(run),
    )


if __name__ == "__main__":
    drawn.cli("methods", build)
