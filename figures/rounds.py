"""Outcomes by corrected rounds (Fig 3 and 5) and their densities (Fig 4): `python -m figures.rounds RUN`.

Draws rounds.png and rounds.pdf into a run folder of analysis.rounds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from analysis.rounds import LENGTH, load_answers, rounds_statistics, told
from corrector.errors import run_cli
from figures import style

Row = dict[str, Any]
WIDTH, HEIGHT = 3.6, 2.7
"""Inches of a panel."""
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION)
DASHES = {"stream": "-", "continue": "--"}
DENSITIES = (0, 1, 2, 3, 4, 6)
"""Rounds whose densities are drawn, beside all."""
LEAST_VALUES = 5
"""Different values that a density needs; fewer (right and wrong) are no density."""
NOTE = "Miniatures (model organisms): the figure shows what the lab measures, not how larger correctors behave."


@dataclass(frozen=True)
class Draw:
    """Draw outcomes by corrected rounds; writes rounds.png and rounds.pdf into the run folder."""

    run: tyro.conf.Positional[Path]
    """Run folder of analysis.rounds."""


@dataclass(frozen=True)
class Table:
    """The plotted data: panels of curves by (task, outcome), and densities by (task, outcome)."""

    run: str
    model_organism: bool
    curves: dict[tuple[str, str], dict[tuple[str, str], list[Row]]]
    """Points in the order of k, by (corrector, mode)."""
    densities: dict[tuple[str, str], dict[int | None, list[float]]]
    """Scores of single answers by k, all correctors of a task together, mode stream."""


def table(numbers: Row, rows: Sequence[Row]) -> Table:
    """The plotted data of `rounds_statistics` and the rows of answers.jsonl."""
    curves: dict[tuple[str, str], dict[tuple[str, str], list[Row]]] = {}
    for p in numbers["points"]:
        panel = curves.setdefault((p["task"], p["outcome"]), {})
        panel.setdefault((p["corrector"], p["mode"]), []).append(p)
    densities: dict[tuple[str, str], dict[int | None, list[float]]] = {}
    for task, outcome in curves:
        if outcome == LENGTH:
            continue
        mine = [r for r in rows if r["task"] == task and r["mode"] == "stream"]
        if len({r["outcomes"][outcome] for r in mine}) < LEAST_VALUES:
            continue
        of = densities.setdefault((task, outcome), {})
        for r in mine:
            if r["k"] is None or r["k"] in DENSITIES:
                of.setdefault(r["k"], []).append(float(r["outcomes"][outcome]))
    return Table(numbers["run"], any(c["model_organism"] for c in numbers["correctors"]), curves, densities)


def draw(found: Table) -> Figure:
    """A row of curves a task, its densities below. Lines have the gid `<corrector>/<mode>`, densities `density-<k>`."""
    tasks = list(dict.fromkeys(task for task, _ in found.curves))
    rows: list[list[tuple[str, tuple[str, str]]]] = []
    for task in tasks:
        rows.append([("curve", key) for key in found.curves if key[0] == task])
        if dense := [("density", key) for key in found.densities if key[0] == task]:
            rows.append(dense)
    n_columns = max(map(len, rows))
    with style.look():
        figure = Figure(figsize=(WIDTH * n_columns, HEIGHT * len(rows) + 0.7), layout="constrained")
        cells: Any = figure.add_gridspec(len(rows), n_columns)
        for i, row in enumerate(rows):
            for j, (kind, key) in enumerate(row):
                ax = figure.add_subplot(cells[i, j])
                if kind == "curve":
                    _curve(ax, key, found.curves[key], legend=j == 0)
                else:
                    _density(ax, key, found.densities[key], legend=j == 0)
        _footer(figure, found)
    return figure


def _curve(ax: Axes, key: tuple[str, str], lines: dict[tuple[str, str], list[Row]], legend: bool) -> None:
    correctors = list(dict.fromkeys(corrector for corrector, _ in lines))
    for (corrector, mode), points in lines.items():
        colour, x = COLOURS[correctors.index(corrector) % len(COLOURS)], np.arange(len(points))
        y = [p["mean"] for p in points]
        low, high = ([p[f"mean_{end}"] for p in points] for end in ("low", "high"))
        if None not in low:
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        label = f"{corrector}{'' if mode == 'stream' else ', ' + mode}"
        ax.plot(x, y, f"o{DASHES[mode]}", color=colour, label=label, gid=f"{corrector}/{mode}")
        ax.set_xticks(x, [told(p["k"]) for p in points])
    ax.set_xlabel("corrected rounds k")
    ax.set_ylabel(f"{key[1]}{' of the answer' if key[1] == LENGTH else ''}")
    n = next(iter(lines.values()))[0]["n"]
    bold = key[0].replace("_", r"\_")
    ax.set_title(f"$\\bf{{{bold}}}$, n = {n} problems", loc="left", fontsize=9, color=style.MUTED)
    if legend:
        ax.legend(loc="best", fontsize=7)


def _density(ax: Axes, key: tuple[str, str], by_k: dict[int | None, list[float]], legend: bool) -> None:
    """Gaussian kernel densities (Scott's width); a k whose scores are all equal is a line at that score."""
    everything = np.concatenate([np.array(v) for v in by_k.values()])
    pad = 0.1 * (np.ptp(everything) or 1.0)
    x = np.linspace(everything.min() - pad, everything.max() + pad, 300)
    shades = np.linspace(0.25, 1.0, len(by_k))
    for shade, (k, scores) in zip(shades, by_k.items(), strict=True):
        colour: Any = (*_rgb(style.BLUE), float(shade)) if k is not None else style.VERMILLION
        if np.ptp(scores) == 0:
            ax.axvline(scores[0], color=colour, gid=f"density-{told(k)}", label=f"k = {told(k)}")
            continue
        kernel: Any = stats.gaussian_kde(scores)
        ax.plot(x, kernel(x), color=colour, gid=f"density-{told(k)}", label=f"k = {told(k)}", linewidth=1.4)
    ax.set_xlabel(f"{key[1]} of an answer")
    ax.set_ylabel("density")
    ax.set_title(f"n = {len(next(iter(by_k.values())))} answers each k", loc="left", fontsize=9, color=style.MUTED)
    if legend:
        ax.legend(loc="best", fontsize=7)


def _rgb(colour: str) -> tuple[float, float, float]:
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return r, g, b


def _footer(figure: Figure, found: Table) -> None:
    sentences = (
        "Corrected rounds: the corrector acts on the first k sentences, then the upstream goes on alone (continue: the "
        "corrector). Bands: 95 % bootstrap over problems.",
        f"Run {found.run}, drawn by figures.rounds.",
        NOTE if found.model_organism else "",
    )
    text = textwrap.fill(" ".join(filter(None, sentences)), width=int(figure.get_figwidth() * 17.5))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=style.MUTED)


def main(config: Draw) -> None:
    """Draw, and say where the figure is."""
    found = table(rounds_statistics(config.run), load_answers(config.run)[0])
    for file in style.save(draw(found), config.run, "rounds"):
        print(file)


if __name__ == "__main__":
    run_cli(Draw, main, "figures.rounds")
