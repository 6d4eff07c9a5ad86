"""What every figure module gives: the figure with all that is said of it, and the command that draws one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from matplotlib.figure import Figure

from corrector.errors import run_cli
from figures import style

Row = dict[str, Any]
BOOTSTRAP = "95 %, percentile bootstrap"
COLUMNS = ("panel", "series", "x", "y", "low", "high", "n")
"""Columns that plotted numbers have in every figure's CSV, as far as it has them; its own come after these."""


@dataclass(frozen=True)
class Drawn:
    """A figure and what a reader needs to trust it."""

    figure: Figure
    rows: list[Row]
    """The plotted numbers, one point, bar or cell a row (COLUMNS first)."""
    n: dict[str, int]
    """How many of what the numbers rest on, such as items and questions."""
    dropped: tuple[str, ...]
    """What the run holds and the figure leaves out, with counts."""
    interval: str
    """How the intervals were made."""
    caption: str
    inputs: tuple[Path, ...]
    """Files that were read: those of rows as `<name>.jsonl`, be they compressed or not."""


Build = Callable[[Path, float], Drawn]
"""`build(run, width)`: a run folder and inches to a figure; each figure module has one."""


@dataclass(frozen=True)
class Draw:
    """Draw the figure of a run folder; writes PNG and PDF into it."""

    run: tyro.conf.Positional[Path]
    """Run folder of the figure's command."""
    width: Literal["page", "column"] = "page"
    """Width: of a page, or of one column of a two-column page."""


def main(config: Draw, build: Build, stem: str) -> None:
    """Draw, and say where the figure is."""
    for file in style.save(build(config.run, style.WIDTHS[config.width]).figure, config.run, stem):
        print(file)


def cli(name: str, build: Build, stem: str = "") -> None:
    """The command line of `figures.<name>`; its files are `<stem>.png` and `<stem>.pdf`, by default `<name>`."""
    run_cli(Draw, lambda config: main(config, build, stem or name), f"figures.{name}")


def point(panel: str, series: str, x: Any, y: Any, low: Any = None, high: Any = None, **more: Any) -> Row:
    """A plotted number as a row of the CSV."""
    return {"panel": panel, "series": series, "x": x, "y": y, "low": low, "high": high, **more}


def inputs(run: Path, *names: str) -> tuple[Path, ...]:
    """The files of a run that its figure rests on: configuration, all rows (as `<name>.jsonl`), and `names` beside."""
    rows = sorted(f.name.removesuffix(".xz") for f in (*run.glob("*.jsonl"), *run.glob("*.jsonl.xz")))
    return tuple(run / name for name in ("config.json", *dict.fromkeys(rows), *names))


def told(*sentences: str) -> str:
    """Sentences in one line, without the empty ones."""
    return " ".join(filter(None, sentences))
