"""One look for all figures: colours that colour-blind readers tell apart, quiet axes, files without timestamps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#56B4E9", "#E69F00"
"""Okabe & Ito's palette, its pink darkened to hold on white."""
INK, MUTED, CONTROL, SHADE = "#1A1A1A", "#5F6368", "#A8ADB3", "#ECEDEF"
"""Text, secondary text, null directions, and the ground where a curve is not to be trusted."""
DPI = 200
RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDFE2",
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.5,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "figure.constrained_layout.h_pad": 0.16,
    "figure.constrained_layout.w_pad": 0.08,
}


def look() -> Any:
    """A context in which figures are drawn and saved in the house style; matplotlib's settings come back after it."""
    return matplotlib.rc_context(RC)


def legend_above(ax: Axes) -> None:
    """A legend in one line on top of the panel, where it covers no data and does not narrow it."""
    ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=5).set_in_layout(False)


def save(figure: Figure, folder: Path, stem: str = "figure") -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`; the same figure gives the same bytes, so neither holds a date."""
    files = [folder / f"{stem}.png", folder / f"{stem}.pdf"]
    with look():
        figure.savefig(files[0], dpi=DPI, metadata={"Software": None})
        figure.savefig(files[1], metadata={"CreationDate": None})
    return files
