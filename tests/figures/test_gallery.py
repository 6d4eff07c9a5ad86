"""The committed gallery is what the committed runs and code give, and every figure can be read."""

import csv
import io
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from figures import style
from figures.build import write, write_table
from figures.catalogue import FIGURES, GALLERY, ROOT
from figures.manifest import IMAGES, csv_text, read
from figures.verify import figure_faults, orphans

LIMIT = 3e6
"""Bytes of all that is committed of the gallery."""
FIRST = [
    next(figure for figure in FIGURES if figure.module == name) for name in dict.fromkeys(f.module for f in FIGURES)
]
"""A figure of each module."""
BY_ROW = ("figures.ablations", "figures.scan", "figures.methods", "figures.probes", "figures.sizes", "figures.transfer")
"""Modules whose axes are labelled once a row or column, and rows by their names."""
GUIDES = ("chance", "mean", "band", "prompt-end")
"""Lines that stand for no numbers of their own, or for numbers along the other axis."""


@pytest.mark.parametrize("listed", FIGURES, ids=lambda listed: listed.name)
def test_a_committed_figure_is_what_its_run_gives(listed, tmp_path):
    """Numbers and words of all, pictures of each module's first: `figures.build --check` compares all pictures."""
    known = read(GALLERY).get(listed.name)
    assert known, f"run python -m figures.build {listed.name}"
    figures: list[Figure] = []

    def draw(listed, root: Path, out: Path):
        drawn = listed.build(root / listed.run, style.PAGE)
        figures.append(drawn.figure)
        (tmp_path / "table.csv").write_text(csv_text(drawn.rows, listed.name))
        if listed in FIRST:
            return write(listed, drawn, root, out)
        return write_table(listed, drawn, root, out) | {kind: known[kind] for kind in IMAGES}

    assert figure_faults(listed, ROOT, GALLERY, known, draw)[0] == []
    assert figures[0].get_figwidth() == style.PAGE
    assert unplotted(figures[0], (tmp_path / "table.csv").read_text()) == []
    if listed in FIRST:
        check_look(listed, figures[0])


@pytest.mark.parametrize("listed", FIRST, ids=lambda listed: listed.module)
def test_a_figure_fits_a_column_too(listed):
    figure = listed.build(ROOT / listed.run, style.COLUMN).figure
    assert figure.get_figwidth() == style.COLUMN
    check_look(listed, figure)


def check_look(listed, figure: Figure) -> None:
    assert cut(figure) == []
    lacking = [ax for ax in figure.axes if ax.get_visible() and ax.lines and not (ax.get_xlabel() and ax.get_ylabel())]
    assert not lacking or listed.module in BY_ROW


def cut(figure: Figure) -> list[str]:
    """Titles, labels, notes and entries of legends that reach beyond the page by more than a point."""
    figure.set_dpi(style.DPI)  # as the picture has it: hinted letters are wider with fewer dots
    with style.look():
        figure.draw_without_rendering()
    page, axes = figure.bbox, [ax for ax in figure.axes if ax.get_visible()]
    ticks = [tick for ax in axes for axis in (ax.xaxis, ax.yaxis) for tick in (*axis.majorTicks, *axis.minorTicks)]
    unread = {text for tick in ticks for text in (tick.label1, tick.label2)}
    off: list[str] = []
    for text in figure.findobj(Text):
        if text in unread or not text.get_visible() or not text.get_text().strip() or text.axes not in (None, *axes):
            continue
        box = text.get_window_extent()
        if box.x0 < page.x0 - 1 or box.x1 > page.x1 + 1 or box.y0 < page.y0 - 1 or box.y1 > page.y1 + 1:
            off.append(text.get_text())
    return off


def unplotted(figure: Figure, table: str) -> list[str]:
    """Heights of named lines that the table does not have."""
    known = {cell for row in csv.reader(io.StringIO(table)) for cell in row}
    lines = [(line, ax) for ax in figure.axes for line in ax.lines if line.get_gid()]
    return [
        f"{line.get_gid()}: {y}"
        for line, ax in lines
        if line.get_transform() == ax.transData and not str(line.get_gid()).startswith(GUIDES)
        for y in map(float, line.get_ydata())
        if f"{y + 0.0:.6g}" not in known and ax.get_ylabel() != "density"
    ]


def test_the_gallery_holds_nothing_else():
    assert orphans(FIGURES, GALLERY, read(GALLERY)) == []
    names = [figure.name for figure in FIGURES]
    assert len(set(names)) == len(names) > 20


def test_the_committed_gallery_stays_small():
    kept = [file for file in GALLERY.iterdir() if file.suffix != ".pdf"]
    assert 0 < sum(file.stat().st_size for file in kept) < LIMIT
