"""One look for all figures: colours that colour-blind readers tell apart, sizes of a page, files without timestamps."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

P = TypeVar("P")
COLUMN, PAGE = 3.35, 7.0
"""Inches of one column of a two-column page, and of its whole width."""
WIDTHS = {"column": COLUMN, "page": PAGE}
LEAST_PANEL = 2.2
"""Inches that a panel has at least, its labels included."""
SMALL, TINY = 6.5, 5.5
"""Points of notes and of numbers inside panels."""
BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#E69F00"
"""Okabe & Ito's palette, its pink darkened to hold on white."""
INK, MUTED, CONTROL, SHADE = "#1A1A1A", "#5F6368", "#A8ADB3", "#ECEDEF"
"""Text, secondary text, null directions, and the ground where a curve is not to be trusted."""
DIVERGING, SEQUENTIAL = "RdBu_r", "cividis"
"""Colour maps that colour-blind readers can order; red is more."""
DPI = 170
N_COLOURS = 255
"""Colours of a PNG: a palette makes it a third as large."""
MINIATURES = "Miniatures (model organisms): this shows what the lab measures, not how larger correctors behave."
"""What stands below every figure of a model organism."""
LETTERS, LINE, LEGEND_LINE = 20.5, 0.112, 9.2
"""Letters of a note that fit in an inch, inches a line of it is high, and points a line of a legend is high."""
RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 7.5,
    "axes.titlesize": 7.5,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDFE2",
    "grid.linewidth": 0.5,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.2,
    "legend.borderpad": 0.1,
    "legend.labelspacing": 0.25,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
}


def look() -> Any:
    """A context in which figures are drawn and saved in the house style; matplotlib's settings come back after it."""
    return matplotlib.rc_context(RC)


def sheet(width: float, height: float, sentences: Sequence[str]) -> Figure:
    """An empty figure of `height` inches, with the sentences (`footer`) below these."""
    figure = Figure(layout="constrained")
    n_lines = footer(figure, *sentences, width=width)
    figure.set_size_inches(width, height + LINE * n_lines)
    return figure


def footer(figure: Figure, *sentences: str, width: float = 0.0) -> int:
    """What a figure must be read with, below it: what bars and bands are, the run it is drawn from, cautions.

    Wrapped to `width` inches (0: the figure's); returns the number of lines.
    """
    text = textwrap.fill(" ".join(filter(None, sentences)), width=int((width or figure.get_figwidth()) * LETTERS))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color=MUTED)
    return text.count("\n") + 1


def panels_across(width: float, n_panels: int) -> int:
    """How many panels stand side by side in so many inches: in as few rows as it takes, all of them as full."""
    most = max(1, min(n_panels, int(width // LEAST_PANEL)))
    return math.ceil(n_panels / math.ceil(n_panels / most))


def cut(panels: Sequence[P], across: int) -> list[list[P]]:
    """Panels in rows of so many."""
    return [[*panels[i : i + across]] for i in range(0, len(panels), across)]


def wrapped(text: str, inches: float) -> str:
    """A label of an axis in as many lines as the length of the axis asks for."""
    return textwrap.fill(text, width=max(12, int(inches * 17)))


def heading(ax: Axes, title: str = "", n_columns: int = 0, handles: Sequence[Any] | None = None) -> None:
    """A panel's title and, between it and the panel, its legend in so many columns (0: none), which covers no data.

    The legend keeps its room above by the title's distance, so that it does not narrow the panel.
    """
    n_lines = 0
    shown = ax.get_legend_handles_labels()[0] if handles is None else handles
    if n_columns and shown:
        n_lines = -(-len(shown) // n_columns)
        legend = ax.legend(handles=shown, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=n_columns)
        legend.set_in_layout(False)
    ax.set_title(title or " ", loc="left", pad=3 + LEGEND_LINE * n_lines, color=MUTED)


def key(label: str, **look: Any) -> Line2D:
    """An entry of a legend, of a line that need not be drawn."""
    return Line2D([], [], label=label, **look)


def bold(text: str) -> str:
    """A name in bold, as part of a title; its hyphens stay hyphens, which mathtext would make minus signs."""
    for plain, written in ((" ", r"\ "), ("_", r"\_"), ("-", "\u2010")):
        text = text.replace(plain, written)
    return f"$\\bf{{{text}}}$"


def save(figure: Figure, folder: Path, stem: str = "figure") -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`; the same figure gives the same bytes, so neither holds a date."""
    files = [folder / f"{stem}.png", folder / f"{stem}.pdf"]
    with look():
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, for both files
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=DPI)
        figure.savefig(files[1], metadata={"CreationDate": None})
    drawn.seek(0)
    with Image.open(drawn) as image:
        small = image.convert("RGB").quantize(N_COLOURS, dither=Image.Dither.NONE)
    small.save(files[0], optimize=True, dpi=(DPI, DPI))
    return files
