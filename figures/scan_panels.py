"""Panels of the scan: heatmaps of layers by output tokens, and readings over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy import ndarray

from figures import style
from figures.drawn import Row

READINGS = {
    "direction": ("copy or rewrite (AUROC)", style.BLUE, "o", "-"),
    "written": ("first token written (share)", style.ORANGE, "s", "--"),
    "extent": ("edit ratio of rewrites (Spearman)", style.GREEN, "D", "-"),
}
OUTPUT_COLOURS = (style.BLUE, style.SKY, style.GREEN, style.PURPLE)


@dataclass(frozen=True)
class Grid:
    """One heatmap: `mean[layer, token]` with nan where a cell is absent; `n[token]`; `open`: its interval holds 0."""

    mean: ndarray
    n: ndarray
    open: ndarray


def heatmap(ax: Axes, grid: Grid, gid: str, title: str, bound: float, width: float) -> None:
    """A mesh whose cell (layer k, column t) is centred at y = k, x = t, in a panel `width` inches wide."""
    n_layers, n_tokens = grid.mean.shape
    ax.pcolormesh(
        np.arange(n_tokens + 1) - 0.5,
        np.arange(n_layers + 1) - 0.5,
        np.ma.masked_invalid(grid.mean),
        cmap=matplotlib.colormaps[style.DIVERGING],
        vmin=-bound,
        vmax=bound,
        gid=gid,
    )
    ax.set_facecolor(style.SHADE)
    layers, tokens = np.nonzero(grid.open & ~np.isnan(grid.mean))
    ax.plot(tokens, layers, ".", color=style.MUTED, markersize=1.6, gid="holds-0")
    ax.axvline(0.5, color="white", linewidth=2, gid="prompt-end")
    step = 1 if n_tokens < 7 else 3
    some = [0, *range(step, n_tokens, step)]
    for token in range(n_tokens) if width / n_tokens > 0.19 else some:
        text: Any = {"ha": "center", "va": "bottom", "fontsize": style.TINY, "color": style.MUTED, "gid": "n"}
        ax.text(token, n_layers - 0.42, str(grid.n[token]), **text)
    ax.grid(visible=False)
    ax.set_ylim(-0.5, n_layers - 0.5)
    ax.set_yticks(range(0, n_layers, 1 + n_layers // 13))
    ax.set_xticks(some, ["p", *map(str, some[1:])])
    ax.set_title(title, loc="left", color=style.MUTED, pad=8, fontsize=style.SMALL)


def curves(panels: Sequence[Axes], found: Sequence[Row]) -> None:
    """Decision and write-out at the prompt; extent; the decision at the first output tokens."""
    prompt = {c["reader"]: c for c in found if c["reader"] != "output"}
    outputs = [c for c in found if c["reader"] == "output"]
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
    titles = ("at the prompt", "at the prompt", "copy or rewrite at token")
    for ax, title, columns in zip(panels, titles, (1, 1, 4), strict=True):
        ax.set_xlabel("layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        mine = (
            outputs if columns == 4 else [c for c in prompt.values() if (c["reader"] == "extent") == (ax is panels[1])]
        )
        n = sorted({c["n_items"] for c in mine})
        style.heading(ax, f"{title}, n = {n[0]}{f' to {n[-1]}' if len(n) > 1 else ''}" if n else title, columns)
    lowest = min((min(c["low"]) for c in found if c["statistic"] != "spearman"), default=0.25)
    for ax in panels[::2]:
        ax.set_ylim(min(0.25, lowest) - 0.03, 1.03)
    for ax, label in zip(panels, ("AUROC, share", "Spearman", "AUROC"), strict=True):
        ax.set_ylabel(label)


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
            markersize=7,
            markerfacecolor="none",
            color=colour,
            gid=f"{name}-onset",
            zorder=4,
        )
