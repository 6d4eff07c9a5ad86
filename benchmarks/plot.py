"""Cost against the number of coefficients, items and rounds and the length of the prefix: cost.png."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.results import Row
from figures import style

FILE = "cost.png"
PANELS = {
    "coefficients": "coefficients of one vector",
    "items": "items",
    "rounds": "rounds of the loop",
    "prefix": "prompt (tokens)",
}
"""How a setting of the scaling rows begins, and the label of its axis."""
LOOKS = {
    "lab": (style.BLUE, "o", "-"),
    "lab without": (style.SKY, "v", "--"),
    "HF": (style.VERMILLION, "s", "-"),
    "naive, whole": (style.VERMILLION, "s", "-"),
    "naive, one": (style.ORANGE, "D", "--"),
    "bare": (style.MUTED, "^", ":"),
}


def draw(rows: Sequence[Row], clock: str, rounds: int, machine: str) -> Figure:
    """One panel a kind of growth, one line a contestant; bars go from the least to the largest of all rounds."""
    panels = [(axis, label) for axis, label in PANELS.items() if any(row.setting.startswith(axis) for row in rows)]
    with style.look():
        figure = Figure(figsize=(3.3 * len(panels), 3.4), layout="constrained")
        axes: list[Axes] = list(figure.subplots(1, len(panels), squeeze=False)[0])
        for ax, (axis, label) in zip(axes, panels, strict=True):
            _panel(ax, [row for row in rows if row.setting.startswith(axis)], label, clock)
        text = f"Median {clock} time of {rounds} rounds; bars: the least to the largest. {machine}"
        figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=style.MUTED)
    return figure


def _panel(ax: Axes, rows: Sequence[Row], label: str, clock: str) -> None:
    for what in dict.fromkeys(row.what for row in rows):
        mine = [row for row in rows if row.what == what]
        colour, marker, line = LOOKS[max((key for key in LOOKS if what.startswith(key)), key=len)]
        middle = [row.cost.median for row in mine]
        ends = [[m - r.cost.low for m, r in zip(middle, mine, strict=True)]]
        ends += [[r.cost.high - m for m, r in zip(middle, mine, strict=True)]]
        x = [row.x or 0.0 for row in mine]
        ax.errorbar(x, middle, yerr=ends, color=colour, marker=marker, linestyle=line, label=what, gid=what, capsize=2)
    ticks = sorted({row.x for row in rows if row.x is not None})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{x:.0f}" for x in ticks])
    ax.minorticks_off()
    ax.set_ylim(0, 1.1 * max(row.cost.high for row in rows))
    ax.set_xlabel(f"{label}, {rows[0].setting.split(', ', 1)[1]}", fontsize=8)
    ax.set_ylabel(f"{clock} {rows[0].unit}")
    ax.legend(fontsize=7)


def save(figure: Figure, path: Path) -> None:
    """Write the PNG, without a date."""
    with style.look():
        figure.savefig(path, dpi=130, metadata={"Software": None})
