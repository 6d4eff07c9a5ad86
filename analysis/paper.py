"""Every experiment of the paper by one command, and the table of its claims: `python -m analysis.paper`.

Runs each step of STEPS as its own command into `<out>/<name>` (a finished one is kept, a stopped one goes on) and
writes `<out>/paper.md` and its numbers, `paper.csv`. With --shipped nothing is run: docs/paper.md and docs/paper.csv
are written from the runs that ship with the lab.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from analysis.claims.stream_aligner import findings, judge
from analysis.claims.verdicts import document, table_of
from analysis.experiments.standins import SHIPPED
from corrector.errors import UserError, run_cli

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "paper.md"
WIDTH = 140
DIALOGUE = ("dialogue-0", "dialogue-1", "dialogue-2")
ALIGNER = "dialogue-aligner-0"
ARITHMETIC = ("arithmetic-s", "arithmetic-m", "arithmetic-l")


@dataclass(frozen=True)
class Step:
    """One command. `name` is its run folder's; what times something runs `alone`."""

    name: str
    command: tuple[str, ...]
    alone: bool = False
    trains: bool = False
    """It takes --retrain."""
    kept: bool = False
    """All of it is training: the run that ships stands in for it, unless --retrain."""


def _steps() -> tuple[Step, ...]:
    both = ("--mode", "stream", "continue")
    out = [
        Step("rounds-dialogue", ("analysis.rounds", "--task", "dialogue", "--corrector", *DIALOGUE, *both)),
        Step("rounds-arithmetic", ("analysis.rounds", "--task", "arithmetic", "--corrector", *ARITHMETIC, *both)),
        Step("methods-dialogue", ("analysis.methods", "--task", "dialogue"), trains=True),
        Step("methods-arithmetic", ("analysis.methods", "--task", "arithmetic"), trains=True),
    ]
    full = ("--coef", "-2", "-1", "0", "1", "2", "--controls", "full", "--items", "60", "--problems", "50", "--improve")
    for name in (*DIALOGUE, *ARITHMETIC):
        task = name.split("-")[0]
        out.append(Step(f"fig8-{name}", ("steering.sweep", "--task", task, "--corrector", name, *full)))
    whole = ("--task", "dialogue@answer", "--corrector", ALIGNER)
    half = ("--coef", "-1", "-0.5", "0", "0.5", "1", "--controls", "full", "--items", "60", "--problems", "0")
    out.append(Step("fig8-aligner-0", ("steering.sweep", *whole, *half)))
    for task, names in (("dialogue", DIALOGUE), ("arithmetic", ARITHMETIC)):
        out.append(Step(f"scan-{task}", ("probes.scan", "--task", task, "--corrector", *names)))
    out.append(Step("scan-aligner", ("probes.scan", *whole)))
    return (
        *out,
        Step("ablations-dialogue", ("analysis.ablations",), kept=True),
        Step("sizes", ("analysis.sizes",), alone=True, trains=True),
        Step("latency", ("analysis.latency",), alone=True),
    )


STEPS = _steps()


@dataclass(frozen=True)
class Paper:
    """Rerun the paper's experiments and print the table of its claims; the same command again resumes."""

    out: Path = Path("runs/paper")
    """Folder of the run folders, their logs, paper.md and paper.csv."""
    only: tuple[str, ...] = ()
    """Steps by the beginning of their names; empty: all."""
    jobs: int = 0
    """Steps at a time, one core each; 0: one a core. What times something runs alone, at the end."""
    retrain: bool = False
    """Train every baseline and ablation anew (hours) instead of using shipped checkpoints and cached answers."""
    shipped: bool = False
    """Run nothing; write docs/paper.md from the runs that ship with the lab."""


def run(config: Paper) -> list[Path]:
    """Run what is not finished, write the document, print the verdicts; returns the run folders that it rests on.

    Raises UserError for unknown steps, and after all others have run for a step that failed.
    """
    if config.shipped:
        folders = sorted(f for f in SHIPPED.iterdir() if (f / "DONE").is_file())
        _write(folders, DOCUMENT)
        return folders
    chosen = [s for s in STEPS if not config.only or s.name.startswith(config.only)]
    if not chosen:
        raise UserError(
            f"--only {' '.join(config.only)}: no step begins so; there are {', '.join(s.name for s in STEPS)}"
        )
    config.out.mkdir(parents=True, exist_ok=True)
    failed = _run_all([s for s in chosen if config.retrain or not s.kept], config)
    here = {f.name: f for s in STEPS if (f := config.out / s.name) and (f / "DONE").is_file()}
    kept = {s.name: SHIPPED / s.name for s in chosen if s.kept and s.name not in here}
    folders = sorted([*here.values(), *(f for f in kept.values() if (f / "DONE").is_file())])
    if kept:
        print(f"not run again, the shipped runs stand: {', '.join(kept)}; --retrain runs them")
    _write(folders, config.out / "paper.md")
    if failed:
        raise UserError(f"{len(failed)} steps failed: read {config.out}/{failed[0]}.log; the same command resumes them")
    return folders


def _run_all(steps: Sequence[Step], config: Paper) -> list[str]:
    """Run steps, those that time something one by one at the end; the names of the failed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    failed: list[str] = []
    groups = ([s for s in steps if not s.alone], config.jobs or cores), ([s for s in steps if s.alone], 1)
    with tqdm(total=len(steps), desc="paper", unit="step") as bar:
        for group, workers in groups:
            with ThreadPoolExecutor(workers) as pool:
                for step, (code, minutes) in zip(group, pool.map(lambda s: _run(s, config), group), strict=True):
                    bar.update()
                    tqdm.write(f"{step.name}: {'done' if code == 0 else 'FAILED'} after {minutes:.1f} minutes")
                    failed += [step.name] if code else []
    return failed


def _run(step: Step, config: Paper) -> tuple[int, float]:
    """Exit status and minutes of a step; its output goes to `<out>/<name>.log`."""
    began = time.monotonic()
    out = config.out / step.name
    command = [sys.executable, "-m", *step.command, "--out", str(out)]
    if config.retrain and step.trains:
        command.append("--retrain")
    with (config.out / f"{step.name}.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command[1:])}\n")
        log.flush()
        code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    return code, (time.monotonic() - began) / 60


def _write(folders: Sequence[Path], file: Path) -> None:
    found = findings(folders)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(document(folders, found), encoding="utf-8")
    file.with_suffix(".csv").write_text(table_of(found), encoding="utf-8")
    table = Table("figure", "claim", "paper", "same sign", "significant", "verdict")
    for v in judge(found):
        n = len(v.found)
        table.add_row(v.claim.figure, v.claim.text, v.claim.paper, f"{v.same_sign}/{n}", f"{v.significant}/{n}", v.word)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    console.print(f"written to {file}", highlight=False)


if __name__ == "__main__":
    run_cli(Paper, run, "analysis.paper")
