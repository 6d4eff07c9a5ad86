"""At which layer a corrector decides, and whether it decides before it writes: `python -m analysis.onset RUN...`.

Tables and verdicts from run folders of `probes.scan`; writes summary.json into each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.text import Text

from analysis.claims.decisions import Verdict, layer_interval, verdicts
from analysis.tables.onset import onset_table
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import SIGNIFICANT_DIGITS, canonical, to_plain

WIDTH = 120
CAVEATS = (
    "A layer that tells the classes apart need not have decided: it may hold the evidence that the decision rests on. "
    "At output tokens the token just written is itself such evidence. The lens is not fitted, so it reads late.",
    "Band of chance: 95 % of the curves of shuffled labels, as wholes. Intervals: 95 %, from resampled problems.",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Onset:
    """Print onset and saturation layers of scans, and what they say of the paper's claims."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, such as runs/scan-1a2b3c4d."""


def load_curves(run: str | Path) -> list[Row]:
    """Rows of a scan's onset.jsonl, each with its run, its corrector's `n_layers` and `model_organism`.

    Raises UserError where the folder is no run, or has no such rows.
    """
    folder = Path(run)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no config.json, so no run; give a folder that probes.scan wrote")
    rows = read_rows(folder, "onset")
    if not rows:
        raise UserError(f"{folder} has no rows in onset.jsonl yet; run probes.scan first")
    about = correctors(folder)
    known = {a["corrector"]: a for a in about}
    return [
        {**row, "run": folder.resolve().name, "model_organism": known[row["corrector"]]["model_organism"]}
        for row in rows
        if row["corrector"] in known  # a corrector is done once its own file is there
    ]


def correctors(run: str | Path) -> list[Row]:
    """What a scan says once of each corrector that it has finished, in the order of the panels."""
    found: list[Row] = []
    while about := read_json(Path(run), f"corrector-{len(found)}"):
        found.append(about)
    return found


def table_row(row: Row) -> Row:
    """A curve as one line: onset and saturation layer with intervals, and the largest value with that layer's."""
    n = len(row["value"])
    best = int(np.argmax(row["value"]))
    onset, saturation = (layer_interval(row[f"{name}_draws"], n) for name in ("onset", "saturation"))
    kept = ("run", "task", "corrector", "reader", "span", "statistic", "onset", "saturation", "n_items", "n_problems")
    return {
        **{key: row[key] for key in kept},
        "onset_interval": list(onset),
        "saturation_interval": list(saturation),
        "max": row["value"][best],
        "max_layer": best,
        "max_low": row["low"][best],
        "max_high": row["high"][best],
        "null_high": row["null_high"],
        "n_layers": n,
    }


def report(runs: Sequence[str | Path], console: Console | None = None) -> tuple[list[Row], list[Verdict]]:
    """Print one table over all runs and the verdicts; write each run's own into its summary.json."""
    if not runs:
        raise UserError("no run folder was given; give one or more that probes.scan wrote")
    by_run = {Path(run): load_curves(run) for run in runs}
    for folder, curves in by_run.items():
        own = {"correctors": correctors(folder), "onset": [*map(table_row, curves)], "verdicts": verdicts(curves)}
        summary = {"run": folder.resolve().name, "finished": (folder / "DONE").exists(), **own}
        text = canonical(to_plain(summary, "summary", SIGNIFICANT_DIGITS))
        (folder / "summary.json").write_text(text, encoding="utf-8")
    return tell([c for rows in by_run.values() for c in rows], console or Console())


def tell(curves: Sequence[Row], console: Console) -> tuple[list[Row], list[Verdict]]:
    """Print one table over curves that `load_curves` read, and the verdicts; nothing is written."""
    lines, found = [*map(table_row, curves)], verdicts(curves)
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    console.print(onset_table(lines))
    for verdict in found:
        words, style = {True: ("holds", "green"), False: ("does not hold", "red"), None: ("not shown", "yellow")}[
            verdict.holds
        ]
        console.print(Text.assemble(f"{verdict.claim}: ", (words, f"bold {style}"), f"; {verdict.reason}."))
    miniature = any(c["model_organism"] for c in curves)
    note = (
        "The correctors are miniatures (model organisms): this is no measurement of larger ones." if miniature else ""
    )
    for text in filter(None, (*CAVEATS, note)):
        console.print(Text(text, style="dim"))
    return lines, found


if __name__ == "__main__":
    run_cli(Onset, lambda config: report(config.runs), "analysis.onset")
