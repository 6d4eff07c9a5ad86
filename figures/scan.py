"""The LAT scan: layer by output token for copies and corrections, `python -m figures.scan RUN`.

Prints the tables and verdicts of `analysis.onset`, then draws figure.png and figure.pdf into the run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.onset import correctors, load_curves, report
from corrector.errors import UserError
from corrector.records import read_json, read_rows
from figures import drawn, style
from figures.drawn import Drawn, Row, point
from figures.scan_panels import Grid, curves, heatmap

KINDS, VARIANTS = ("copy", "correction"), ("z", "published")
Z_BOUND = 3.0
"""End of the colours of z-scores, as in the paper's figure."""
CELL, LEAST, LARGEST, CURVES = 0.15, 0.85, 4.0, 1.1
"""Inches of a layer of a heatmap, of a heatmap at least and at most, and of a panel of curves."""
TITLE, LABELS = 0.3, 0.5
"""Inches of a heatmap's title, and of the titles and labels of curves, or of the last heatmap's labels."""
BARS = {"z": "z on neutral tokens", "published": "(h - m)·u, clipped"}


@dataclass(frozen=True)
class Table:
    """The plotted data: a grid by (corrector, variant, kind), and the curves over layers of every corrector."""

    run: str
    task: str
    finished: bool
    bound: float
    correctors: list[Row]
    grids: dict[tuple[str, str, str], Grid]
    curves: list[Row]


def table(rows: Sequence[Row], readings: Sequence[Row], about: Sequence[Row], run: Row) -> Table:
    """The plotted data from rows of scan.jsonl and onset.jsonl, what is said of each corrector, and of the run.

    `run` holds `name, task, finished, bound`. Raises UserError where a corrector has no scanned cells.
    """
    grids: dict[tuple[str, str, str], Grid] = {}
    for corrector in about:
        for variant in VARIANTS:
            for kind in KINDS:
                key = (corrector["corrector"], variant, kind)
                mine = [r for r in rows if (r["corrector"], r["variant"], r["kind"]) == key]
                grids[key] = _grid(mine, corrector["n_layers"])
    if not grids:
        raise UserError(f"{run['name']} has no finished corrector yet; run probes.scan first")
    return Table(run["name"], run["task"], run["finished"], run["bound"], [*about], grids, [*readings])


def _grid(rows: Sequence[Row], n_layers: int) -> Grid:
    if not rows:
        raise UserError("scan.jsonl lacks the cells of a corrector; delete the folder and run probes.scan again")
    shape = (n_layers, max(r["token"] for r in rows) + 1)
    mean, n, opened = np.full(shape, np.nan), np.zeros(shape[1], dtype=int), np.zeros(shape, dtype=bool)
    for r in rows:
        mean[r["layer"], r["token"]] = r["mean"]
        n[r["token"]] = r["n"]
        opened[r["layer"], r["token"]] = r["low"] is None or r["low"] <= 0 <= r["high"]
    return Grid(mean, n, opened)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """For each corrector: z-scores, the published variant (copy, correction), and three panels of curves over layers.

    Correctors stand in columns; one alone has its heatmaps side by side. In the width of a column all panels are below
    each other. Layers count upwards from the bottom. Heatmaps carry `<corrector>/<variant>/<kind>` as `gid`, lines
    their reader or span, bands `<name>-band`, the band of chance `chance`.
    """
    n, narrow = len(found.correctors), width < style.PAGE
    across = 6 if n == 1 and not narrow else 1 if narrow else n
    rows = _heights(found, across) * (n if narrow else 1)
    with style.look():
        figure = style.sheet(width, sum(rows), (*notes(found), _run(found)))
        cells: Any = figure.add_gridspec(len(rows), across, height_ratios=rows)
        every: list[list[Axes]] = []
        for i, about in enumerate(found.correctors):
            at: list[Any] = [(i * 7 + k, 0) if narrow else (k, i) for k in range(7)]
            if across == 6:
                at = [(k // 2, slice(3 * (k % 2), 3 * (k % 2) + 3)) for k in range(4)]
                at += [(2, slice(2 * k, 2 * k + 2)) for k in range(3)]
            panels = [figure.add_subplot(cells[place]) for place in at]
            _corrector(panels, found, about, width / (2 if across == 6 else across))
            every.append(panels)
        for group in [[panels] for panels in every] if narrow else [every]:
            for v, variant in enumerate(VARIANTS):
                axes = [ax for panels in group for ax in panels[2 * v : 2 * v + 2]]
                extend = "both" if variant == "z" else "neither"
                bar = figure.colorbar(axes[0].collections[0], ax=axes, extend=extend, pad=0.01, aspect=25)
                bar.set_label(BARS[variant], fontsize=style.SMALL)
        _labels([panels[k] for panels in (every if narrow else every[:1]) for k in range(4)], "layer", "")
        ends = (2, 3) if across == 6 else (3,)
        _labels([panels[k] for panels in every for k in ends], "", "output token (p: last of the prompt)")
    return figure


def _heights(found: Table, across: int) -> list[float]:
    """Inches of the rows of one corrector's panels."""
    heatmap = min(max(LEAST, CELL * max(about["n_layers"] for about in found.correctors)), LARGEST) + TITLE
    return (
        [heatmap] * (1 if across == 6 else 3) + [heatmap + LABELS / 2] + [CURVES + LABELS] * (1 if across == 6 else 3)
    )


def _labels(axes: Sequence[Axes], y: str, x: str) -> None:
    for ax in axes:
        ax.set_ylabel(y or ax.get_ylabel())
        ax.set_xlabel(x or ax.get_xlabel())


def _corrector(panels: Sequence[Axes], found: Table, about: Row, width: float) -> None:
    """The seven panels of one corrector: heatmaps `width` inches wide, then curves."""
    for i, ax in enumerate(panels[:4]):
        key = (about["corrector"], VARIANTS[i // 2], KINDS[i % 2])
        title = f"{key[2]}, {key[1]}, n = {about[f'n_{key[2]}']}"
        heatmap(ax, found.grids[key], "/".join(key), title, Z_BOUND if i < 2 else found.bound, width)
    name = style.bold(Path(about["corrector"]).name)
    first = panels[0].get_title(loc="left")
    panels[0].set_title(f"{name}, {found.task}\n{first}", loc="left", pad=8, color=style.MUTED, fontsize=style.SMALL)
    curves(panels[4:], [c for c in found.curves if c["corrector"] == about["corrector"]])


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    neutral = "; ".join(f"{about['neutral']['n']}" for about in found.correctors)
    return (
        f"Mean score h·u of held-out items, red is more correction; u: {_fitted(found)}, of training questions.",
        f"z: scored per layer on question and prefix tokens of validation items (n = {neutral} tokens).",
        "Published: less the mean training difference, clipped, not scaled.",
        "Small numbers: items that reach the column; grey: fewer than 5; dots: the 95 % interval holds 0.",
        "Curves: 95 % bootstrap over problems; grey: 95 % of shuffled-label curves; ring: first layer above it; "
        "dotted: saturation.",
        style.MINIATURES if any(about["model_organism"] for about in found.correctors) else "",
    )


def _fitted(found: Table) -> str:
    return ", ".join(dict.fromkeys(f"{about['method']} at {about['span']}" for about in found.correctors))


def _run(found: Table) -> str:
    return f"Run {found.run}{'' if found.finished else ' (not finished)'}, drawn by figures.scan."


def rows(found: Table) -> list[Row]:
    """The plotted numbers: cells of the heatmaps with `x` the token and `y` the layer, then the curves over layers."""
    out: list[Row] = []
    for (corrector, variant, kind), grid in found.grids.items():
        panel = f"{Path(corrector).name}/{variant}/{kind}"
        for (layer, token), value in np.ndenumerate(grid.mean):
            known = {"value": None if np.isnan(value) else float(value), "holds_0": bool(grid.open[layer, token])}
            out.append(point(panel, "cells", token, layer, n=int(grid.n[token]), **known))
    for c in found.curves:
        name = f"{Path(c['corrector']).name}/{c['statistic']}"
        series = c["span"] if c["reader"] == "output" else c["reader"]
        for layer, at in enumerate(zip(c["value"], c["low"], c["high"], strict=True)):
            marks = {mark: layer == c[mark] for mark in ("onset", "saturation")}
            out.append(point(name, series, layer, *at, n=c["n_items"], **marks))
    return out


def load(run: Path) -> Table:
    """The plotted data of a run folder."""
    config = read_json(run, "config")
    about = {"name": run.resolve().name, "task": config["task"], "bound": config["bound"]}
    return table(
        read_rows(run, "scan"), load_curves(run), correctors(run), {**about, "finished": (run / "DONE").exists()}
    )


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a scan's run folder."""
    found = load(run)
    absent = sum(int(np.isnan(grid.mean).sum()) for grid in found.grids.values())
    n = {
        f"{kind} items of {Path(about['corrector']).name}": int(about[f"n_{kind}"])
        for about in found.correctors
        for kind in KINDS
    }
    beside = [f"corrector-{i}.json" for i in range(len(found.correctors))]
    return Drawn(
        draw(found, width),
        rows(found),
        n,
        (f"{absent} cells that fewer than 5 items reach",) if absent else (),
        f"{drawn.BOOTSTRAP} over problems",
        drawn.told(f"LAT scan, {found.task}.", *notes(found)),
        drawn.inputs(run, *beside),
    )


def reported(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure, with the tables and verdicts of `analysis.onset` printed, and its summary.json written."""
    report([run])
    return build(run, width)


if __name__ == "__main__":
    drawn.cli("scan", reported, "figure")
