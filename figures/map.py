"""The layer x coefficient map, `python -m figures.map RUN`: heat maps, and slopes by layer beside their nulls.

Draws map.png and map.pdf into the run folder of `analysis.map`, which prints the numbers.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy import ndarray

from analysis.dose import WELL_FORMED
from analysis.map import conditions, map_statistics
from corrector.errors import run_cli
from figures import style

Row = dict[str, Any]
BANDS = (style.ORANGE, style.GREEN, style.PURPLE)
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"
NOTE = "Miniature (model organism): the map shows what the lab measures, not how larger correctors behave."


@dataclass(frozen=True)
class Draw:
    """Draw the map of a finished run folder; writes map.png and map.pdf into it."""

    run: tyro.conf.Positional[Path]
    """Run folder, such as runs/map-1a2b3c4d."""


def grid(numbers: Row, name: str) -> ndarray:
    """`[layer, coef]` of a mean over the single layers that were mapped, lowest layer first."""
    layers = sorted(p["layers"][0] for p in numbers["places"] if len(p["layers"]) == 1)
    cells = {(c["layers"][0], c["coef"]): c[name] for c in numbers["cells"] if len(c["layers"]) == 1}
    return np.array([[cells[k, c] for c in numbers["coefs"]] for k in layers], dtype=float)


def draw(numbers: Row) -> Figure:
    """Edit ratio and well-formed share by layer and coefficient, then slope and slope per dose by layer.

    Row 0 of the heat maps, gid `edit_ratio` and `well_formed`, is the lowest layer, at the bottom. Slopes have the gid
    `slope_ends` and `slope_per_dose`, nulls `null`, bands `band-<first>-<last>`.
    """
    layers = sorted(p["layers"][0] for p in numbers["places"] if len(p["layers"]) == 1)
    with style.look():
        size = (13.5, max(2.6, 0.42 * len(layers)) + 1.7)
        figure = Figure(figsize=size, layout="constrained")
        axes: list[Axes] = list(figure.subplots(1, 4, width_ratios=(1.25, 1.25, 1, 1)))
        ratio, formed = grid(numbers, "edit_ratio"), grid(numbers, "well_formed")
        middle = numbers["unsteered"]
        reach = float(np.abs(ratio - middle).max()) or 1.0
        limits = middle - reach, middle + reach
        _heatmap(axes[0], numbers, layers, ratio, "edit_ratio", DIVERGING, limits, formed < WELL_FORMED)
        _heatmap(axes[1], numbers, layers, formed, "well_formed", SEQUENTIAL, (0, 1), formed < WELL_FORMED)
        axes[0].set_title("edit ratio (white: unsteered)", loc="left", fontsize=9)
        axes[1].set_title("well-formed share", loc="left", fontsize=9)
        axes[0].set_ylabel("layer steered")
        _slopes(axes[2], numbers, layers, "slope_ends")
        _slopes(axes[3], numbers, layers, "slope_per_dose")
        # The panels share their legend: layers and nulls above the one, bands above the other.
        handles, labels = axes[2].get_legend_handles_labels()
        n_single = sum(not label.startswith("band") for label in labels)
        for ax, part in ((axes[2], slice(n_single)), (axes[3], slice(n_single, None))):
            if labels[part]:
                ax.legend(
                    handles[part], labels[part], loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, fontsize=7.5
                )
        figure.suptitle(
            f"{numbers['task']}, {Path(numbers['corrector']).name}: {numbers['method']} read at {numbers['read']}, "
            f"{numbers['operator']} at {numbers['span']}, {numbers['n_items']} items of {numbers['n_questions']} "
            f"questions{conditions(numbers)}",
            x=0.01,
            ha="left",
            fontsize=9.5,
            weight="bold",
        )
        _footer(figure, numbers)
    return figure


def _heatmap(
    ax: Axes,
    numbers: Row,
    layers: list[int],
    values: ndarray,
    gid: str,
    colours: str,
    limits: tuple[float, float],
    broken: ndarray,
) -> None:
    n_layers, n_coefs = values.shape
    edges = np.arange(n_coefs + 1) - 0.5, np.arange(n_layers + 1) - 0.5
    mesh = ax.pcolormesh(*edges, values, cmap=colours, vmin=limits[0], vmax=limits[1], gid=gid)
    for (k, c), value in np.ndenumerate(values):
        red, green, blue, _ = mesh.cmap(mesh.norm(value))
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        text = f"({value:.2f})" if broken[k, c] else f"{value:.2f}"
        ax.text(c, k, text, ha="center", va="center", fontsize=7, color="white" if dark else style.INK)
    ax.set_xticks(range(n_coefs), [f"{c:+g}" if c else "0" for c in numbers["coefs"]])
    ax.set_yticks(range(n_layers), [str(k) for k in layers])
    ax.set_ylim(-0.5, n_layers - 0.5)
    ax.grid(visible=False)
    ax.set_xlabel("coefficient")


def _slopes(ax: Axes, numbers: Row, layers: list[int], name: str) -> None:
    """One value a layer with its interval, nulls in grey; a band as a bar over its layers."""
    at = {k: i for i, k in enumerate(layers)}
    per = {"slope_ends": lambda p: 1.0, "slope_per_dose": lambda p: p["dose"] or float("nan")}[name]
    single = sorted((p for p in numbers["places"] if len(p["layers"]) == 1), key=lambda p: p["layers"][0])
    nulls = [(v / per(p), at[p["layers"][0]]) for p in single for v in p["null_slopes"].values()]
    ax.axvline(0, color=style.MUTED, linewidth=0.8, linestyle=":")
    n_nulls = len(single[0]["null_slopes"])
    label = f"{n_nulls} random a layer" if n_nulls else None
    ax.plot(
        [x for x, _ in nulls], [y for _, y in nulls], "|", color=style.CONTROL, markersize=11, label=label, gid="null"
    )
    x = np.array([p["slope_ends"] / per(p) for p in single])
    ends = [[p[f"slope_ends_{end}"] for p in single] for end in ("low", "high")]
    low, high = (np.array([x[i] if v is None else v / per(single[i]) for i, v in enumerate(side)]) for side in ends)
    ax.fill_betweenx(range(len(layers)), low, high, color=style.BLUE, alpha=0.18, linewidth=0, gid=f"{name}-band")
    ax.plot(x, range(len(layers)), "o-", color=style.BLUE, label="single layer", gid=name)
    wide = [p for p in numbers["places"] if len(p["layers"]) > 1]
    for i, p in enumerate(wide):
        first, last = p["layers"][0], p["layers"][-1]
        value = p["slope_ends"] / per(p)
        span = [at[first] - 0.25, at[last] + 0.25]
        label = f"band {first}-{last}" + (" (best)" if p["best"] else "")
        ax.plot(
            [value, value], span, "-", linewidth=3, label=label, color=BANDS[i % len(BANDS)], gid=f"band-{first}-{last}"
        )
    ax.set_yticks(range(len(layers)), [str(k) for k in layers])
    ax.set_ylim(-0.5, len(layers) - 0.5)
    ax.set_xlabel("slope: edit ratio per coef" if name == "slope_ends" else "slope per dose: edit ratio per ‖h‖")


def _footer(figure: Figure, numbers: Row) -> None:
    bands = [p for p in numbers["places"] if len(p["layers"]) > 1]
    sentences = (
        f"First layer at the bottom. In brackets: under {WELL_FORMED:.0%} well-formed.",
        "Slope: least squares over the end coefficients and 0; band: 95 % bootstrap over questions. Nulls: equal norm.",
        "Dose: coef times the sum of ‖v‖ / mean ‖h‖ over the layers written.",
        "Bars: the best bands of each width, chosen on validation by slope per dose, measured on test."
        if bands
        else "",
        f"Run {numbers['run']}, drawn by figures.map.",
        NOTE if numbers["model_organism"] else "",
    )
    text = textwrap.fill(" ".join(filter(None, sentences)), width=int(figure.get_figwidth() * 17.5))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=style.MUTED)


def main(config: Draw) -> None:
    """Draw, and say where the figure is."""
    for file in style.save(draw(map_statistics(config.run)), config.run, "map"):
        print(file)


if __name__ == "__main__":
    run_cli(Draw, main, "figures.map")
