"""The layer x coefficient map, `python -m figures.map RUN`: heat maps, and slopes by layer beside their nulls.

Draws map.png and map.pdf into the run folder of `analysis.map`, which prints the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from analysis.dose import WELL_FORMED
from analysis.map import conditions, map_statistics
from figures import drawn, style
from figures.drawn import Drawn, Row, point

BANDS = (style.ORANGE, style.GREEN, style.PURPLE)
SLOPES = {"slope_ends": "slope (edit ratio per coef)", "slope_per_dose": "slope per dose (edit ratio per ‖h‖)"}
LAYER, LEAST, EXTRA = 0.2, 1.2, 0.75
"""Inches of a layer, of a panel at least, and of what stands above and below it."""


@dataclass(frozen=True)
class Table:
    """The plotted data: `ratio` and `formed` [layer, coef], lowest layer first, and the places with their slopes."""

    about: Row
    """`analysis.map.map_statistics`, of which titles and notes are made."""
    layers: tuple[int, ...]
    coefs: tuple[float, ...]
    ratio: ndarray
    formed: ndarray
    single: tuple[Row, ...]
    """Places of one layer, the lowest first."""
    bands: tuple[Row, ...]

    def per(self, place: Row, name: str) -> float:
        """What a place's slope is divided by: its dose of coefficient 1, or nothing."""
        return 1.0 if name == "slope_ends" else place["dose"] or float("nan")


def table(numbers: Row) -> Table:
    """The plotted data of `map_statistics`."""
    single = sorted((p for p in numbers["places"] if len(p["layers"]) == 1), key=lambda p: p["layers"][0])
    bands = tuple(p for p in numbers["places"] if len(p["layers"]) > 1)
    layers = tuple(p["layers"][0] for p in single)
    cells = {(c["layers"][0], c["coef"]): c for c in numbers["cells"] if len(c["layers"]) == 1}
    coefs = tuple(numbers["coefs"])
    ratio, formed = (
        np.array([[cells[k, c][name] for c in coefs] for k in layers], dtype=float)
        for name in ("edit_ratio", "well_formed")
    )
    return Table(numbers, layers, coefs, ratio, formed, tuple(single), bands)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """Edit ratio and well-formed share by layer and coefficient, then slope and slope per dose by layer.

    Row 0 of the heat maps, gid `edit_ratio` and `well_formed`, is the lowest layer, at the bottom. Slopes have the gid
    `slope_ends` and `slope_per_dose`, nulls `null`, bands `band-<first>-<last>`.
    """
    numbers, across = found.about, 2 if width >= style.PAGE else 1
    height = max(LEAST, LAYER * len(found.layers)) + EXTRA
    with style.look():
        below = (*notes(found), f"Run {numbers['run']}, drawn by figures.map.")
        figure = style.sheet(width, height * 4 / across + 0.3, below)
        axes: list[Axes] = list(figure.subplots(4 // across, across).flat)
        middle = numbers["unsteered"]
        reach = float(np.abs(found.ratio - middle).max()) or 1.0
        limits = middle - reach, middle + reach
        _heatmap(axes[0], found, found.ratio, "edit_ratio", style.DIVERGING, limits)
        _heatmap(axes[1], found, found.formed, "well_formed", style.SEQUENTIAL, (0, 1))
        style.heading(axes[0], "edit ratio (white: unsteered)")
        style.heading(axes[1], "well-formed share")
        for ax, name in zip(axes[2:], SLOPES, strict=True):
            _slopes(ax, found, name)
        # The panels share their legend: layers and nulls above the one, bands above the other.
        handles, labels = axes[2].get_legend_handles_labels()
        n_single = sum(not label.startswith("band") for label in labels)
        style.heading(axes[2], "", 2, handles[:n_single])
        style.heading(axes[3], "", 3, handles[n_single:])
        for ax in axes:
            ax.set_ylabel("layer steered")
        figure.suptitle(style.wrapped(title(found), width), x=0.01, ha="left", weight="bold", fontsize=7.5)
    return figure


def title(found: Table) -> str:
    """Whose map it is, how it was steered, and on how much data."""
    numbers = found.about
    return (
        f"{numbers['task']}, {Path(numbers['corrector']).name}: {numbers['method']} read at {numbers['read']}, "
        f"{numbers['operator']} at {numbers['span']}, n = {numbers['n_items']} items of {numbers['n_questions']} "
        f"questions{conditions(numbers)}"
    )


def _heatmap(ax: Axes, found: Table, values: ndarray, gid: str, colours: str, limits: tuple[float, float]) -> None:
    n_layers, n_coefs = values.shape
    edges = np.arange(n_coefs + 1) - 0.5, np.arange(n_layers + 1) - 0.5
    mesh = ax.pcolormesh(*edges, values, cmap=colours, vmin=limits[0], vmax=limits[1], gid=gid)
    for (k, c), value in np.ndenumerate(values):
        red, green, blue, _ = mesh.cmap(mesh.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        text = f"({value:.2f})" if found.formed[k, c] < WELL_FORMED else f"{value:.2f}"
        ink = "white" if dark else style.INK
        ax.text(c, k, text, ha="center", va="center", fontsize=style.SMALL, color=ink)
    ax.set_xticks(range(n_coefs), [f"{c:+g}" if c else "0" for c in found.coefs])
    _layers(ax, found)
    ax.grid(visible=False)
    ax.set_xlabel("coefficient (multiples of the vector)")


def _layers(ax: Axes, found: Table) -> None:
    ax.set_yticks(range(len(found.layers)), [str(k) for k in found.layers])
    ax.set_ylim(-0.5, len(found.layers) - 0.5)


def _slopes(ax: Axes, found: Table, name: str) -> None:
    """One value a layer with its interval, nulls in grey; a band as a bar over its layers."""
    nulls = [(v / found.per(p, name), i) for i, p in enumerate(found.single) for v in p["null_slopes"].values()]
    ax.axvline(0, color=style.MUTED, linewidth=0.8, linestyle=":")
    n_nulls = len(found.single[0]["null_slopes"])
    label = f"{n_nulls} random a layer" if n_nulls else None
    look: Any = {"color": style.CONTROL, "markersize": 8, "label": label, "gid": "null"}
    ax.plot([x for x, _ in nulls], [y for _, y in nulls], "|", **look)
    points = [_ends(found, p, name) for p in found.single]
    at = range(len(points))
    ax.fill_betweenx(
        at,
        [p[1] for p in points],
        [p[2] for p in points],
        color=style.BLUE,
        alpha=0.18,
        linewidth=0,
        gid=f"{name}-band",
    )
    ax.plot([p[0] for p in points], at, "o-", color=style.BLUE, label="single layer (band: 95 %)", gid=name)
    for i, p in enumerate(found.bands):
        first, last = p["layers"][0], p["layers"][-1]
        x, span = p["slope_ends"] / found.per(p, name), [found.layers.index(k) for k in (first, last)]
        look = {"label": f"band {first}-{last}" + (" (best)" if p["best"] else ""), "gid": f"band-{first}-{last}"}
        ax.plot([x, x], [span[0] - 0.25, span[1] + 0.25], "-", linewidth=2.5, color=BANDS[i % len(BANDS)], **look)
    _layers(ax, found)
    ax.set_xlabel(SLOPES[name])


def _ends(found: Table, place: Row, name: str) -> tuple[float, float, float]:
    """A place's slope and the ends of its interval; the slope itself where there is no interval."""
    x, per = place["slope_ends"], found.per(place, name)
    low, high = (x if (v := place[f"slope_ends_{end}"]) is None else v for end in ("low", "high"))
    return x / per, low / per, high / per


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    return (
        f"First layer at the bottom. In brackets: under {WELL_FORMED:.0%} well-formed.",
        "Slope: least squares over the end coefficients and 0; band: 95 % bootstrap over questions. Nulls: equal norm.",
        "Dose: coef times the sum of ‖v‖ / mean ‖h‖ over the layers written.",
        "Bars: the best bands of each width, chosen on validation by slope per dose, measured on test."
        if found.bands
        else "",
        style.MINIATURES if found.about["model_organism"] else "",
    )


def rows(found: Table) -> list[Row]:
    """The plotted numbers: cells with `x` the coefficient and `y` the layer; slopes with `x` the slope."""
    out: list[Row] = []
    for name, values in (("edit_ratio", found.ratio), ("well_formed", found.formed)):
        for (k, c), value in np.ndenumerate(values):
            out.append(point(name, "cells", found.coefs[c], found.layers[k], value=float(value)))
    for name in SLOPES:
        for p in found.single:
            x, low, high = _ends(found, p, name)
            out.append(point(name, "single layer", x, p["layers"][0], low, high))
            per = found.per(p, name)
            out += [point(name, null, v / per, p["layers"][0]) for null, v in p["null_slopes"].items()]
        for p in found.bands:
            where = f"{p['layers'][0]}-{p['layers'][-1]}"
            out.append(point(name, f"band {where}", p["slope_ends"] / found.per(p, name), where))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished map."""
    found = table(map_statistics(run))
    n_tried, n_shown = len(found.about["bands"]), len(found.bands)
    return Drawn(
        draw(found, width),
        rows(found),
        {"items": found.about["n_items"], "questions": found.about["n_questions"], "nulls": found.about["n_nulls"]},
        (f"{n_tried - n_shown} of {n_tried} bands of layers, tried on validation only",) if n_tried > n_shown else (),
        f"{drawn.BOOTSTRAP} over questions",
        drawn.told(f"Layer x coefficient map. {title(found)}.", *notes(found)),
        drawn.inputs(run, "bands.json"),
    )


if __name__ == "__main__":
    drawn.cli("map", build)
