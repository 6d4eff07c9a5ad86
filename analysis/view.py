"""A run folder as a notebook shows it: what it is, the tables and verdict of its own report, and its figures.

`view(run)` reads and never writes: to print a run and write its summary use the `report` of its kind.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from corrector.display.console import HtmlConsole
from corrector.display.table import Html, card, framed
from corrector.errors import UserError
from corrector.records import read_json, read_rows

MARKS = {
    "bands": "map",
    "erasure": "erasure",
    "selection": "sweep",
    "scan": "scan",
    "probes": "probes",
    "answers": "rounds",
    "alignments": "align loop",
}
"""Files that only one kind of run has (the first that is there decides), without their ending."""
SETTINGS = ("task", "corrector", "upstream", "mode", "method", "layers", "span", "coef", "controls")
SIZES = ("items", "problems", "pairs", "validation", "train", "test", "seed")
"""Fields of a configuration that are shown, where it has them and they are not empty."""
ACROSS, COLOURS = 1100, 96
"""Pixels and colours of a figure, at most; the run folder has the whole one, and a PDF."""


@dataclass(frozen=True)
class RunView:
    """A run folder that shows itself."""

    run: Path
    kind: str
    """One of MARKS' kinds; `run` for any other."""

    def __repr__(self) -> str:
        state = "finished" if (self.run / "DONE").exists() else "not finished"
        return f"RunView({self.run.name}: {self.kind}, {state})"

    def _repr_html_(self) -> str:
        config = read_json(self.run, "config")
        console = HtmlConsole()
        _tell(self.kind, self.run, console)
        about = card(
            f"{self.run.name}: {self.kind}",
            {"asked": _listed(config, SETTINGS), "sizes": _listed(config, SIZES), "state": self._state()},
        )
        return framed(about, *console.parts, *_figures(self.run))

    def _state(self) -> str:
        return "" if (self.run / "DONE").exists() else "not finished: these are the rows so far"


def view(run: str | Path) -> RunView:
    """A run folder, finished or still going on; UserError where there is none."""
    folder = Path(run)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no config.json, so no run; give a folder that one of the lab's commands wrote")
    endings = (".json", ".jsonl", ".jsonl.xz")
    kinds = (kind for mark, kind in MARKS.items() if any((folder / f"{mark}{end}").exists() for end in endings))
    return RunView(folder, next(kinds, "run"))


def _tell(kind: str, run: Path, console: Console) -> None:
    """Print a run as its own command does; a module of torch is imported only where such a run is shown."""
    if kind == "sweep":
        from analysis.curve import tell

        tell(run, console)
    elif kind == "map":
        from analysis.map import tell

        tell(run, console)
    elif kind == "rounds":
        from analysis.rounds import tell

        tell(run, console)
    elif kind == "scan":
        from analysis.onset import load_curves, tell

        tell(load_curves(run), console)
    elif kind == "erasure":
        from steering.erase_tables import tell

        tell(run, console)
    elif kind == "probes":
        from probes.classifiers.report import show

        show(run, console)
    elif kind == "align loop":
        from corrector.align import show

        show(read_rows(run, "alignments"), read_json(run, "config").get("seed", 0), console)


def _listed(config: dict[str, Any], names: tuple[str, ...]) -> str:
    """`name value` of the fields that say something."""
    given = {name: config.get(name) for name in names}
    return ", ".join(f"{name} {_told(value)}" for name, value in given.items() if value not in (None, "", [], {}))


def _told(value: Any) -> str:
    return " ".join(map(_told, value)) if isinstance(value, list) else str(value)


def _figures(run: Path) -> Iterator[Html]:
    """The run's PNG files inside the page, made smaller, so that a notebook with several stays a small file."""
    for file in sorted(run.glob("*.png")):
        smaller = io.BytesIO()
        with Image.open(file) as picture:
            picture.thumbnail((ACROSS, 4 * ACROSS))
            picture.convert("RGB").quantize(COLOURS).save(smaller, "png", optimize=True)
        data = base64.b64encode(smaller.getvalue()).decode()
        yield Html(f'<img alt="{html.escape(file.stem, quote=True)}" src="data:image/png;base64,{data}">')
