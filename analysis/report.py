"""The trace page of a sweep: `python -m analysis.report RUN [RUN ...]` writes RUN/report.html.

One file that needs no network: the dose curves with their controls, every row in tables, each sentence and each
problem's rounds as token diffs at every coefficient, and what the corrector's states say of each token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from analysis.trace.data import Caps, run_data
from analysis.trace.page import render
from corrector.errors import UserError, run_cli
from corrector.records.rowfiles import write_whole


@dataclass(frozen=True)
class Report:
    """Write one HTML file that shows finished sweeps: curves, rows, diffs, rounds, projections of tokens."""

    run: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, such as runs/sweep-1a2b3c4d; with several, the page has a selector."""
    out: Path = Path()
    """File to write; default report.html in the first run folder."""
    items: int = 200
    """Items of each task whose rows the page holds, the first ones; it says how many there are."""
    problems: int = 100
    """Problems of each task's align loop that it holds."""
    traces: int = 20
    """Items whose tokens are projected on the correction direction."""
    projections: bool = True
    """Load each run's corrector and project; --no-projections needs no model."""
    device: str = "cpu"
    """Torch device of the projections."""


def report(config: Report) -> Path:
    """Write the page and return its path; UserError as `run_data`, and for numbers and files that do not fit."""
    if not config.run:
        raise UserError("no run was given; give folders that a sweep wrote")
    for name, least in (("items", 1), ("problems", 1), ("traces", 1)):
        if (n := getattr(config, name)) < least:
            raise UserError(f"{name}={n} is below {least}; choose --{name} {least} or more")
    out = config.run[0] / "report.html" if config.out == Path() else config.out
    if out.is_dir() or out.suffix != ".html":
        raise UserError(f"--out {out} names no .html file; choose one, such as report.html")
    caps = Caps(config.items, config.problems, config.traces if config.projections else 0, config.device)
    runs = [run_data(run, caps) for run in config.run]
    said = replace(config, run=tuple(Path(run["name"]) for run in runs))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, render(runs, _command(said)).encode())
    return out


def _command(config: Report) -> str:
    """What makes the page again, with runs by their names."""
    flags = [f"--{name} {getattr(config, name)}" for name in ("items", "problems", "traces")]
    flags += [] if config.projections else ["--no-projections"]
    return " ".join(["python -m analysis.report", *map(str, config.run), *flags])


def main(config: Report) -> None:
    """Write the page, and say where it is and how large."""
    out = report(config)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_cli(Report, main, "analysis.report")
