"""The LAT scan: layer by output token for copies and corrections, `python -m figures.scan RUN`.

Prints the tables and verdicts of `analysis.onset`, then draws figure.png and figure.pdf into the run folder.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from analysis.onset import correctors, load_curves, report
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from figures import style

KINDS, VARIANTS = ("copy", "correction"), ("z", "published")
Z_BOUND = 3.0
"""End of the colours of z-scores, as in the paper's figure."""
MAP = "RdBu_r"
"""Diverging and safe for colour-blind readers; red is more correction."""
WIDTH, MARGIN = 9.6, 0.7
"""Inches a corrector's two panels are wide, and what stands beside them."""
CURVE_HEIGHT = 2.5
READINGS = {
    "direction": ("copy or rewrite (AUROC)", style.BLUE, "o", "-"),
    "written": ("first token written (share)", style.ORANGE, "s", "--"),
    "extent": ("edit ratio of rewrites (Spearman)", style.GREEN, "D", "-"),
}
OUTPUT_COLOURS = (style.BLUE, style.SKY, style.GREEN, style.PURPLE)
NOTE = "Miniature (model organism): the figure shows what the lab measures, not how larger correctors behave."
Row = dict[str, Any]


@dataclass(frozen=True)
class Scan:
    """Print and draw the LAT scan of a run folder; writes figure.png and figure.pdf into it."""

    run: tyro.conf.Positional[Path]
    """Run folder, such as runs/scan-1a2b3c4d."""


@dataclass(frozen=True)
class Grid:
    """One heatmap: `mean[layer, token]` with nan where a cell is absent; `n[token]`; `open`: its interval holds 0."""

    mean: ndarray
    n: ndarray
    open: ndarray


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


def table(rows: Sequence[Row], curves: Sequence[Row], about: Sequence[Row], run: Row) -> Table:
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
    return Table(run["name"], run["task"], run["finished"], run["bound"], [*about], grids, [*curves])


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


def draw(table: Table) -> Figure:
    """Two columns a corrector (copy, correction): z-scores, the published variant, and curves over the layers.

    Layers count upwards from the bottom. Heatmaps carry `<corrector>/<variant>/<kind>` as `gid`, lines their reader
    or span, bands `<name>-band`, the band of chance `chance`.
    """
    n, deepest = len(table.correctors), max(about["n_layers"] for about in table.correctors)
    height = min(max(1.7, 0.27 * deepest), 5.0)
    with style.look():
        figure = Figure(figsize=(WIDTH * n + MARGIN, 2 * height + CURVE_HEIGHT + 2.6), layout="constrained")
        ratios = (height, height, CURVE_HEIGHT)
        cells: Any = figure.add_gridspec(3, 6 * n, height_ratios=ratios)
        for i, about in enumerate(table.correctors):
            for row, variant in enumerate(VARIANTS):
                axes = [figure.add_subplot(cells[row, 6 * i + 3 * k : 6 * i + 3 * k + 3]) for k in range(2)]
                mesh = [_heatmap(ax, table, about, variant, kind) for ax, kind in zip(axes, KINDS, strict=True)][-1]
                if row == 0:
                    _heading(axes[0], about, table.task)
                if i == n - 1:
                    bar = figure.colorbar(mesh, ax=axes[-1], extend="both" if variant == "z" else "neither", pad=0.02)
                    bar.set_label("z on neutral tokens" if variant == "z" else "(h - m)·u, clipped", fontsize=8)
            panels = [figure.add_subplot(cells[2, 6 * i + 2 * k : 6 * i + 2 * k + 2]) for k in range(3)]
            mine = [c for c in table.curves if c["corrector"] == about["corrector"]]
            _curves(panels, mine)
        _footer(figure, table)
    return figure


def _heatmap(ax: Axes, table: Table, about: Row, variant: str, kind: str) -> Any:
    """A mesh whose cell (layer k, column t) is centred at y = k, x = t."""
    grid = table.grids[about["corrector"], variant, kind]
    n_layers, n_tokens = grid.mean.shape
    bound = Z_BOUND if variant == "z" else table.bound
    mesh = ax.pcolormesh(
        np.arange(n_tokens + 1) - 0.5,
        np.arange(n_layers + 1) - 0.5,
        np.ma.masked_invalid(grid.mean),
        cmap=matplotlib.colormaps[MAP],
        vmin=-bound,
        vmax=bound,
        gid=f"{about['corrector']}/{variant}/{kind}",
    )
    ax.set_facecolor(style.SHADE)
    layers, tokens = np.nonzero(grid.open & ~np.isnan(grid.mean))
    ax.plot(tokens, layers, ".", color=style.MUTED, markersize=2, gid="holds-0")
    ax.axvline(0.5, color="white", linewidth=2.5, gid="prompt-end")
    for token, n in enumerate(grid.n):
        ax.text(token, n_layers - 0.42, str(n), ha="center", va="bottom", fontsize=5.5, color=style.MUTED, gid="n")
    ax.grid(visible=False)
    ax.set_ylim(-0.5, n_layers - 0.5)
    ax.set_yticks(range(0, n_layers, 1 + n_layers // 13))
    ticks = range(1, n_tokens, 1 if n_tokens < 7 else 3)
    ax.set_xticks([0, *ticks], ["p", *map(str, ticks)])
    if kind == "copy":
        ax.set_ylabel(("z-scored" if variant == "z" else "as published") + "\nlayer")
    if variant == "published":
        ax.set_xlabel("output token (p: last token of the prompt)")
    ax.set_title(f"{kind}, {about[f'n_{kind}']} items", loc="left", fontsize=9, color=style.MUTED, pad=12)
    return mesh


def _heading(ax: Axes, about: Row, task: str) -> None:
    """The corrector's name in bold, and how its direction was fitted, over the panel's own title."""
    name, where = Path(about["corrector"]).name, "axes fraction"
    fitted = f"{task}: {about['method']} at {about['span']}"
    ax.annotate(name, (0, 1), (0, 30), xycoords=where, textcoords="offset points", weight="bold")
    ax.annotate(fitted, (1, 1), (0, 30), xycoords=where, textcoords="offset points", ha="right", color=style.MUTED)


def _curves(panels: Sequence[Axes], curves: Sequence[Row]) -> None:
    """Decision and write-out at the prompt; extent; the decision at the first output tokens."""
    prompt = {c["reader"]: c for c in curves if c["reader"] != "output"}
    outputs = [c for c in curves if c["reader"] == "output"]
    for reader in ("direction", "written"):
        if reader in prompt:
            _line(panels[0], prompt[reader], *READINGS[reader])
    if "extent" in prompt:
        _line(panels[1], prompt["extent"], *READINGS["extent"])
    else:
        panels[1].annotate("rewrites are all alike", (0.5, 0.5), xycoords="axes fraction", ha="center")
    for curve, colour in zip(outputs, OUTPUT_COLOURS, strict=False):
        token = int(curve["span"].split("[")[1].split(":")[0]) + 1
        _line(panels[2], curve, f"{token}", colour, "o", "-", curve["span"])
    for ax, title in zip(panels, ("", "", "AUROC at output token"), strict=True):
        ax.set_xlabel("layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if ax.get_legend_handles_labels()[1]:
            ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=4 if title else 1, title=title or None)
    lowest = min((min(c["low"]) for c in curves if c["statistic"] != "spearman"), default=0.25)
    for ax in panels[::2]:
        ax.set_ylim(min(0.25, lowest) - 0.03, 1.03)
    panels[0].set_ylabel("held-out reading")


def _line(ax: Axes, curve: Row, label: str, colour: str, marker: str, dash: str, gid: str = "") -> None:
    """A curve with its interval; the band of chance in grey; a ring at onset, a dot line at saturation."""
    name, layers = gid or curve["reader"], range(len(curve["value"]))
    if curve["null_high"] is not None:
        ax.axhspan(curve["null_low"], curve["null_high"], color=style.SHADE, linewidth=0, zorder=0, gid="chance")
    ax.fill_between(layers, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0, gid=f"{name}-band")
    ax.plot(layers, curve["value"], dash, marker=marker, color=colour, label=label, gid=name, zorder=3)
    if curve["saturation"] is not None and not gid:
        ax.axvline(curve["saturation"], color=colour, linestyle=":", linewidth=1, gid=f"{name}-saturation", zorder=1)
    if curve["onset"] is not None:
        ax.plot(
            curve["onset"],
            curve["value"][curve["onset"]],
            "o",
            markersize=9,
            markerfacecolor="none",
            color=colour,
            gid=f"{name}-onset",
            zorder=4,
        )


def _footer(figure: Figure, table: Table) -> None:
    neutral = "; ".join(f"{about['neutral']['n']}" for about in table.correctors)
    sentences = (
        "Mean score h·u of held-out items, red is more correction; u is fitted on training questions.",
        f"z-scored per layer on question and prefix tokens of validation items (n = {neutral} tokens).",
        "As published: less the mean training difference, clipped, not scaled.",
        "Small numbers: items that reach the column; grey: fewer than 5; dots: the 95 % interval holds 0.",
        "Curves: 95 % bootstrap over problems; grey: 95 % of shuffled-label curves; ring: first layer above it; "
        "dotted: saturation.",
        f"Run {table.run}{'' if table.finished else ' (not finished)'}, drawn by figures.scan.",
        NOTE if any(about["model_organism"] for about in table.correctors) else "",
    )
    text = textwrap.fill(" ".join(filter(None, sentences)), width=int(figure.get_figwidth() * 17.5))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=style.MUTED)


def load(run: Path) -> Table:
    """The plotted data of a run folder."""
    config = read_json(run, "config")
    about = {"name": run.resolve().name, "task": config["task"], "bound": config["bound"]}
    curves = load_curves(run)
    return table(read_rows(run, "scan"), curves, correctors(run), {**about, "finished": (run / "DONE").exists()})


def main(config: Scan) -> None:
    """Print, draw, and say where the figure is."""
    report([config.run])
    for file in style.save(draw(load(config.run)), config.run):
        print(file)


if __name__ == "__main__":
    run_cli(Scan, main, "figures.scan")
