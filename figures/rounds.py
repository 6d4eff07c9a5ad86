"""Outcomes by corrected rounds (Fig 3 and 5) and their densities (Fig 4): `python -m figures.rounds RUN`.

Draws rounds.png and rounds.pdf into a run folder of analysis.rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy import ndarray
from scipy import stats

from analysis import lengths
from analysis.rounds import LENGTH, load_answers, rounds_statistics, told
from figures import drawn, style
from figures.drawn import Drawn, Row, point

HEIGHT = 1.75
"""Inches of a row of panels."""
COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.SKY, style.VERMILLION)
DASHES = {"stream": "-", "continue": "--"}
DENSITIES = (0, 1, 2, 3, 4, 6)
"""Rounds whose densities are drawn, beside all."""
LEAST_VALUES = 5
"""Different values that a density needs; fewer (right and wrong) are no density."""
GRID = 81
"""Points at which a density is computed."""
Key = tuple[str, str]


@dataclass(frozen=True)
class Density:
    """A kernel density `y` of `n` scores at `x`; a single x where all scores are equal, so that there is none."""

    x: ndarray
    y: ndarray
    n: int


@dataclass(frozen=True)
class Table:
    """The plotted data: panels of curves by (task, outcome), and densities by (task, outcome)."""

    run: str
    model_organism: bool
    curves: dict[Key, dict[Key, list[Row]]]
    """Points in the order of k, by (corrector, mode)."""
    densities: dict[Key, dict[int | None, Density]]
    """Of the scores of single answers by k, all correctors of a task together, mode stream."""
    dropped: tuple[str, ...]


def table(numbers: Row, rows: Sequence[Row]) -> Table:
    """The plotted data of `rounds_statistics` and the rows of answers.jsonl."""
    curves: dict[Key, dict[Key, list[Row]]] = {}
    for p in numbers["points"]:
        panel = curves.setdefault((p["task"], p["outcome"]), {})
        panel.setdefault((p["corrector"], p["mode"]), []).append(p)
    densities: dict[Key, dict[int | None, Density]] = {}
    dropped: list[str] = []
    for task, outcome in curves:
        if outcome == LENGTH or outcome.endswith(lengths.ANY):
            continue
        mine = [r for r in rows if r["task"] == task and r["mode"] == "stream"]
        if (n_values := len({r["outcomes"][outcome] for r in mine})) < LEAST_VALUES:
            dropped.append(f"no density of {task}, {outcome}: it has {n_values} values only")
            continue
        of: dict[int | None, list[float]] = {}
        for r in mine:
            of.setdefault(r["k"], []).append(float(r["outcomes"][outcome]))
        if left := [told(k) for k in of if k is not None and k not in DENSITIES]:
            dropped.append(f"densities of {task}, {outcome} at k = {', '.join(left)}")
        densities[task, outcome] = density({k: v for k, v in of.items() if k is None or k in DENSITIES})
    organism = any(c["model_organism"] for c in numbers["correctors"])
    return Table(numbers["run"], organism, curves, densities, tuple(dropped))


def density(scores: dict[int | None, list[float]]) -> dict[int | None, Density]:
    """Gaussian kernel densities (Scott's width) over the range of all scores and a tenth beyond."""
    everything = np.concatenate([np.array(v) for v in scores.values()])
    pad = 0.1 * (np.ptp(everything) or 1.0)
    x = np.linspace(everything.min() - pad, everything.max() + pad, GRID)
    out: dict[int | None, Density] = {}
    for k, values in scores.items():
        if np.ptp(values) == 0:
            out[k] = Density(np.array(values[:1]), np.array([np.nan]), len(values))
        else:
            kernel: Any = stats.gaussian_kde(values)
            out[k] = Density(x, kernel(x), len(values))
    return out


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A row of curves a task, its densities below. Lines have the gid `<corrector>/<mode>`, densities `density-<k>`."""
    rows: list[list[tuple[str, Key]]] = []
    widest = max(sum(key[0] == task for key in found.curves) for task, _ in found.curves)
    across = style.panels_across(width, widest)
    for task in dict.fromkeys(task for task, _ in found.curves):
        for kind, keys in (("curve", found.curves), ("density", found.densities)):
            rows += style.cut([(kind, key) for key in keys if key[0] == task], across)
    with style.look():
        below = (*notes(found), f"Run {found.run}, drawn by figures.rounds.")
        figure = style.sheet(width, HEIGHT * len(rows) + 0.35, below)
        cells: Any = figure.add_gridspec(len(rows), across)
        first = set[str]()
        for i, row in enumerate(rows):
            for j, (kind, key) in enumerate(row):
                ax, legend = figure.add_subplot(cells[i, j]), f"{kind} {key[0]}" not in first
                first.add(f"{kind} {key[0]}")
                if kind == "curve":
                    _curve(ax, key, found.curves[key], legend)
                else:
                    _density(ax, key, found.densities[key], legend)
    return figure


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    return (
        "Corrected rounds: the corrector acts on the first k sentences, then the upstream goes on alone (continue: the "
        "corrector). Bands: 95 % bootstrap over problems.",
        lengths.NOTE if any(outcome.endswith(lengths.ANY) for _, outcome in found.curves) else "",
        "Densities: Gaussian kernels, answers of all correctors, mode stream." if found.densities else "",
        style.MINIATURES if found.model_organism else "",
    )


def _curve(ax: Axes, key: Key, lines: dict[Key, list[Row]], legend: bool) -> None:
    correctors = list(dict.fromkeys(corrector for corrector, _ in lines))
    for (corrector, mode), points in lines.items():
        colour, x = COLOURS[correctors.index(corrector) % len(COLOURS)], np.arange(len(points))
        low, high = ([p[f"mean_{end}"] for p in points] for end in ("low", "high"))
        if None not in low:
            ax.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        gid = f"{corrector}/{mode}"
        ax.plot(x, [p["mean"] for p in points], f"o{DASHES[mode]}", color=colour, gid=gid)
        ax.set_xticks(x, [told(p["k"]) for p in points])
    ax.set_xlabel("corrected rounds k")
    ax.set_ylabel(_unit(key[1]))
    handles = [style.key(name, color=COLOURS[i % len(COLOURS)], marker="o") for i, name in enumerate(correctors)]
    if len({mode for _, mode in lines}) > 1:
        handles += [style.key("continue", color=style.MUTED, linestyle=DASHES["continue"])]
    n = next(iter(lines.values()))[0]["n"]
    style.heading(ax, f"{style.bold(key[0])}, n = {n} problems", 2 * legend, handles)


def _unit(outcome: str) -> str:
    return "tokens of the answer" if outcome == LENGTH else f"{outcome}\n(mean of an answer)"


def _density(ax: Axes, key: Key, by_k: dict[int | None, Density], legend: bool) -> None:
    """Curves, darker with k; a k whose scores are all equal is a line at that score."""
    for shade, (k, of) in zip(np.linspace(0.25, 1.0, len(by_k)), by_k.items(), strict=True):
        colour: Any = style.VERMILLION if k is None else (*to_rgb(style.BLUE), float(shade))
        look: Any = {"color": colour, "gid": f"density-{told(k)}", "label": f"k = {told(k)}", "linewidth": 1.2}
        if len(of.x) == 1:
            ax.axvline(of.x[0], **look)
        else:
            ax.plot(of.x, of.y, **look)
    ax.set_xlabel(f"{key[1]} of an answer")
    ax.set_ylabel("density")
    style.heading(ax, f"n = {next(iter(by_k.values())).n} answers each k", 4 * legend)


def rows(found: Table) -> list[Row]:
    """The plotted numbers."""
    out: list[Row] = []
    for (task, outcome), lines in found.curves.items():
        for (corrector, mode), points in lines.items():
            for p in points:
                ends = (p["mean_low"], p["mean_high"])
                out.append(point(f"{task}/{outcome}", f"{corrector}/{mode}", told(p["k"]), p["mean"], *ends, n=p["n"]))
    for (task, outcome), by_k in found.densities.items():
        for k, of in by_k.items():
            values = [None if y != y else y for y in of.y.tolist()]
            for x, y in zip(of.x.tolist(), values, strict=True):
                out.append(point(f"{task}/{outcome} density", f"k = {told(k)}", x, y, n=of.n))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of analysis.rounds."""
    found = table(rounds_statistics(run), load_answers(run)[0])
    tasks = ", ".join(dict.fromkeys(task for task, _ in found.curves))
    return Drawn(
        draw(found, width),
        rows(found),
        {"problems": next(p["n"] for lines in found.curves.values() for of in lines.values() for p in of)},
        found.dropped,
        f"{drawn.BOOTSTRAP} over problems",
        drawn.told(f"Outcomes of {tasks} by corrected rounds.", *notes(found)),
        drawn.inputs(run, "about.json"),
    )


if __name__ == "__main__":
    drawn.cli("rounds", build)
