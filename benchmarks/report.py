"""What a run of the benchmarks says: a machine, a table a part, JSON, and the README of this folder."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.results import Row
from corrector.records.environment import environment

HOME = Path(__file__).parent
PLOT = "../figures/gallery/cost.png"
"""Where `figures.cost` draws the scaling rows of the README."""
COLUMNS = ("contestant", "cost", "times", "rows that differ", "timed", "how")
INTRO = """# Benchmarks

What the lab's tricks save, against the ways in which the same is done without them. Written by

```
{command}
```

{machine}

Cost is {clock}: the median over {rounds} rounds, and the least and the largest. All contestants of a
table take turns in one process, in another order each round; "times" is a contestant's cost over that of the first one
in the same round. Rows that differ: of those that both have, how many are not the same text (and,
where both have one, the same divergence within 1 %); paths of the lab may differ in none, or the run fails.
"""
NOTES = {
    "sweep": "The main job's edits: one row is one pair in one cell. Costs of contestants on a sample are per row, so "
    "they scale to the whole; the lab's include the texts' metrics, which the others' lack. The bare forward is all "
    "prompts and outputs of the sampled cells, teacher-forced, every prompt in every cell.",
    "loop": "The upstream is kept from ending (no special token, nor one less than 0.05 times as likely as the best), "
    "so that every answer has as many sentences as the loop has rounds. `whole answers` lets it write all sentences "
    "that are left each round, as the paper's released pipeline does; `one sentence` stops it at the first full stop.",
    "first-token": "Both through the lab's decoder, one problem at a time.",
    "capture": "`python -m benchmarks.capture`, all layers; the spread is quartiles.",
    "scaling": "`times` is to the lab at the same size. Prefix: all that a round costs, divided by its forwards of "
    "both models; the bare forward is the corrector's alone, which has more layers; `times` is to the shortest prompt.",
}
"""What a reader has to know of each part."""


def machine(device: str, dtype: str) -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else "",
        "threads": torch.get_num_threads(),
        "device": device,
        "dtype": dtype,
        "load": os.getloadavg()[0],
        "environment": environment(device),
    }


def _cpu() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def clock(about: Mapping[str, Any]) -> str:
    """Whose time is a cost."""
    return "wall" if str(about["device"]).startswith("cuda") else "CPU"


def sentence(about: Mapping[str, Any]) -> str:
    """The machine in one line."""
    packages = about["environment"]["packages"]
    versions = ", ".join(f"{p} {packages[p]}" for p in ("torch", "transformers", "transformer-lens", "nnsight"))
    return (
        f"{about['gpu'] or about['cpu']}, {about['cores']} cores, {about['threads']} thread(s), load "
        f"{about['load']:.1f}; device {about['device']}, {about['dtype']}; {versions}."
    )


def _cells(row: Row) -> tuple[str, ...]:
    differ = "" if row.differ is None else f"{row.differ} of {row.compared}"
    what = row.what if row.x is None else f"{row.x:.0f}: {row.what}"
    return what, row.cost.text(), row.ratio.text(".2f"), differ, f"{row.n:g}", row.note


def _groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    key = lambda row: (row.part, row.setting, row.unit)  # noqa: E731
    return [(f"{part}: {where} ({unit})", [*group]) for (part, where, unit), group in groupby(rows, key)]


def show(rows: Sequence[Row], about: Mapping[str, Any], console: Console) -> None:
    """Print the tables."""
    console.print(sentence(about))
    for title, group in _groups(rows):
        table = Table(*COLUMNS, title=title, title_justify="left")
        for row in group:
            table.add_row(*_cells(row))
        console.print(table)


def write_json(path: Path, rows: Sequence[Row], about: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """One object: the configuration, the machine and the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"config": config, "machine": about, "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def readme(rows: Sequence[Row], about: Mapping[str, Any], command: str, rounds: int) -> str:
    """The text of README.md."""
    out = [
        INTRO.format(
            command=command, machine=sentence(about), clock=f"this process's {clock(about)} time", rounds=rounds
        )
    ]
    for part, of_part in groupby(rows, lambda row: row.part):
        out.append(f"## {part.capitalize()}\n\n{NOTES[part]}\n")
        for title, group in _groups([*of_part]):
            lines = [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
            lines += [f"| {' | '.join(_cells(row))} |" for row in group]
            out.append(f"{title.split(': ', 1)[1]}:\n\n" + "\n".join(lines) + "\n")
        if part == "scaling":
            out.append(f"![Cost against coefficients, items, rounds and prefix]({PLOT})\n")
    return "\n".join(out)
