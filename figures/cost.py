"""What the lab saves as sweeps and loops grow, by the benchmarks' own table: `python -m figures.cost benchmarks`.

Draws cost.png and cost.pdf into the folder of benchmarks.run, whose README.md it reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from corrector.errors import UserError
from figures import drawn, style
from figures.drawn import Drawn, Row, point

FILE = "README.md"
HEIGHT = 1.9
"""Inches of a row of panels."""
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
    "naive, whole": (style.VERMILLION, "D", "-"),
    "naive, one": (style.ORANGE, "D", "--"),
    "bare": (style.MUTED, "^", ":"),
}
"""How the name of a contestant begins, and its look; the longest that fits counts."""
SETTING = re.compile(r"^(?P<axis>\w+), (?P<rest>.+) \((?P<unit>ms .+)\):$")
LINE = re.compile(r"^\| (?P<x>\d+): (?P<what>[^|]+) \| (?P<y>[\d.]+) \((?P<low>[\d.]+) to (?P<high>[\d.]+)\) \|")


@dataclass(frozen=True)
class Table:
    """The plotted data: points by panel (axis of growth) and contestant, with what the panel's setting is."""

    settings: dict[str, tuple[str, str]]
    """Setting and unit by axis."""
    panels: dict[str, dict[str, list[Row]]]
    cost: str
    """What cost is, in the words of the file."""
    machine: str


def table(text: str) -> Table:
    """The scaling rows of the benchmarks' README. Raises UserError where there are none."""
    settings: dict[str, tuple[str, str]] = {}
    panels: dict[str, dict[str, list[Row]]] = {}
    axis = ""
    for line in text.split("\n## Scaling", 1)[-1].splitlines():
        if found := SETTING.match(line):
            axis = found["axis"]
            settings[axis] = (found["rest"], found["unit"])
        elif (found := LINE.match(line)) and axis in PANELS:
            numbers = {name: float(found[name]) for name in ("x", "y", "low", "high")}
            panels.setdefault(axis, {}).setdefault(found["what"].strip(), []).append(numbers)
    if not panels:
        raise UserError(f"{FILE} has no scaling rows; write it by python -m benchmarks.run --readme")
    words = {
        name: re.search(pattern, text)
        for name, pattern in (("cost", r"Cost is (.+?):"), ("machine", r"\n(.+?); device"))
    }
    return Table(settings, panels, *(found[1] if (found := words[name]) else "" for name in ("cost", "machine")))


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A panel a kind of growth, a line a contestant, whose name is its gid."""
    axes_of = list(found.panels)
    across = min(2, style.panels_across(width, len(axes_of)))
    n_rows = -(-len(axes_of) // across)
    with style.look():
        figure = style.sheet(width, HEIGHT * n_rows + 0.5, (*notes(found), "Drawn by figures.cost."))
        axes: Any = figure.subplots(n_rows, across, squeeze=False)
        for ax, axis in zip(axes.flat, axes_of, strict=False):
            _panel(ax, found, axis)
        for ax in axes.flat[len(axes_of) :]:
            ax.set_visible(False)
        names = dict.fromkeys(name for of in found.panels.values() for name in of)
        handles = [style.key(name, **_look(name)) for name in names]
        figure.legend(handles=handles, loc="outside upper left", ncols=3 if width >= style.PAGE else 1)
    return figure


def _look(name: str) -> dict[str, Any]:
    colour, marker, line = LOOKS[max((key for key in LOOKS if name.startswith(key)), key=len)]
    return {"color": colour, "marker": marker, "linestyle": line}


def _panel(ax: Axes, found: Table, axis: str) -> None:
    lines, (setting, unit) = found.panels[axis], found.settings[axis]
    for name, points in lines.items():
        x, y, low, high = ([p[key] for p in points] for key in ("x", "y", "low", "high"))
        ax.vlines(x, low, high, color=_look(name)["color"], linewidth=1.0)
        ax.plot(x, y, **_look(name), gid=name)
    ticks = sorted({p["x"] for points in lines.values() for p in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{x:.0f}" for x in ticks])
    ax.minorticks_off()
    ax.set_ylim(0, 1.1 * max(p["high"] for points in lines.values() for p in points))
    ax.set_xlabel(PANELS[axis])
    ax.set_ylabel(unit)
    style.heading(ax, setting)


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    return (
        f"Cost is {found.cost}: the median over rounds of measurement; bars: the least and the largest.",
        f"{found.machine}." if found.machine else "",
    )


def rows(found: Table) -> list[Row]:
    """The plotted numbers, in ms."""
    return [
        point(
            axis,
            name,
            p["x"],
            p["y"],
            p["low"],
            p["high"],
            setting=found.settings[axis][0],
            unit=found.settings[axis][1],
        )
        for axis, lines in found.panels.items()
        for name, points in lines.items()
        for p in points
    ]


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of the benchmarks' folder."""
    file = run / FILE
    if not file.exists():
        raise UserError(f"{file} is missing; write it by python -m benchmarks.run --readme")
    found = table(file.read_text(encoding="utf-8"))
    return Drawn(
        draw(found, width),
        rows(found),
        {"contestants": len({name for of in found.panels.values() for name in of})},
        ("benchmarks that do not grow: sweep, loop, first token and capture, which are tables of the file",),
        "least and largest of the rounds of measurement",
        drawn.told("Cost against coefficients, items, rounds and length of the prompt.", *notes(found)),
        (file,),
    )


if __name__ == "__main__":
    drawn.cli("cost", build)
