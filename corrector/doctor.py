"""`python -m corrector.doctor --corrector REF`: whether a model can be used here, in one table with the cures.

The exit code is 0, 1 where a check fails, 2 for a user's mistake. Checks that need a floor above this one (capture by
TransformerLens and nnsight) are not imported: that floor announces them in pyproject.toml, as entry points of the group
`corrector_lab.checks`, so imports go on pointing down.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal

from corrector import tasks
from corrector.checks import CHECKS, Check, Row, Subject, run_check
from corrector.errors import UserError, run_cli
from corrector.memory import estimate, free, gigabytes
from corrector.models import DTYPES, LanguageModel, config_of, load, source_of
from corrector.tasks.base import Pair, Task

GROUP = "corrector_lab.checks"
DEFAULT_TASK = "dialogue"
COLOURS = {"ok": "green", "warn": "yellow", "skip": "dim", "FAIL": "bold red"}


@dataclass(frozen=True)
class Doctor:
    """Check a model: whether it loads, its template, spans, decoder, backends, copying and memory, with the cures."""

    corrector: str
    """Model: reference, folder, hub id (ID@REVISION pins it), or a .toml or .json file of load options."""
    template: str = ""
    """Prompt template: NAME, NAME/gemma (llama3, llama2, qwen, chat), chat, or a .json or .toml file; empty: the
    model's card or options file, else plain."""
    task: str = ""
    """Task whose sentences are tried; empty: the one on the model's card, else dialogue."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    sentences: int = 10
    """Good sentences that it should copy."""
    batch: int = 32
    """Rows decoded together, for the memory estimate."""
    length: int = 1024
    """Tokens of a row, question to correction, for the memory estimate."""
    seed: int = 0
    """Seed of the sentences."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model."""


def examine(config: Doctor) -> list[Row]:
    """The rows of the table; UserError where the model is not to be had or there are no sentences to try."""
    for name in ("sentences", "batch", "length"):
        if getattr(config, name) < 1:
            raise UserError(f"{name}={getattr(config, name)} is below 1; choose --{name} 1 or more")
    memory = memory_row(config)
    if memory.status == "FAIL":
        return [memory]
    began = time.monotonic()
    lm = load(config.corrector, config.template, config.device, config.dtype)
    rows = [loaded_row(lm, time.monotonic() - began)]
    subject, note = subject_of(config, lm)
    rows += note
    for name, check in (*CHECKS, *announced()):
        rows += run_check(name, check, subject)
    if not list(announced()):
        rows.append(Row("backends", "skip", f"no entry points of {GROUP} are installed", "pip install -e . once more"))
    return [*rows, memory]


def announced() -> Iterator[tuple[str, Check]]:
    """The checks of the floors above."""
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        yield entry.name, entry.load()


def memory_row(config: Doctor) -> Row:
    """The estimate, against what is free before the model is loaded; FAIL where the weights alone do not fit."""
    at = source_of(config.corrector)
    need = estimate(config_of(at), DTYPES[config.dtype], config.batch, config.length, at.options.quantize)
    there = free(config.device)
    said = (
        f"estimate: weights {gigabytes(need.weights)} ({need.parameters:,} parameters), keys and values "
        f"{gigabytes(need.cache)} at {config.batch} rows of {config.length}, logits {gigabytes(need.logits)}; "
        f"free {gigabytes(there)} on {config.device}"
    )
    if at.options.device_map:
        return Row("memory", "ok", f"{said}, to be spread by device_map={at.options.device_map!r}")
    if need.weights > there:
        return Row("memory", "FAIL", said, "--dtype bfloat16, quantize or device_map in an options file, more memory")
    if need.total > there:
        return Row("memory", "warn", said, "smaller batches, or shorter prompts")
    return Row("memory", "ok", said)


def loaded_row(lm: LanguageModel, seconds: float) -> Row:
    """What was loaded, and how long it took."""
    n = sum(w.numel() for w in lm.model.parameters())
    said = f"{type(lm.model).__name__}, {lm.n_layers} layers, {n:,} parameters, {lm.model.dtype}, {lm.device}"
    return Row("loads", "ok", f"{said}, {seconds:.1f} s".replace("torch.", ""))


def subject_of(config: Doctor, lm: LanguageModel) -> tuple[Subject, list[Row]]:
    """The model with good sentences of its task; a row where they are of another task than the card's."""
    own = str(lm.card.get("recipe", {}).get("task", ""))
    note: list[Row] = []
    try:
        task = tasks.get(config.task or own or DEFAULT_TASK, config.data)
        pairs = good_pairs(task, config.sentences, config.seed)
    except UserError:
        if config.task or not own:
            raise
        task = tasks.get(DEFAULT_TASK)
        pairs = good_pairs(task, config.sentences, config.seed)
        cure = f"--task {own} --data FOLDER"
        note = [Row("task", "warn", f"its task {own} needs data, so sentences are of {DEFAULT_TASK}", cure)]
    return Subject(lm, task, pairs, config.seed), note


def good_pairs(task: Task, n: int, seed: int) -> list[Pair]:
    """N test pairs whose sentence the annotator keeps; UserError where the split has fewer."""
    drawn = min(8 * n, task.size("test"))
    good = [p for p in task.pairs("test", drawn, seed) if p.correction.strip() == p.last.strip()]
    if len(good) < n:
        raise UserError(f"task {task.name!r} has {len(good)} sentences to copy among {drawn}; choose --sentences fewer")
    return good[:n]


def show(rows: list[Row], title: str) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", "cure", title=title, title_justify="left")
    for row in rows:
        table.add_row(row.check, Text(row.status, COLOURS[row.status]), Text(row.found), Text(row.cure))
    Console().print(table)


def run(config: Doctor) -> list[Row]:
    """Check, print the table, exit with 1 where a check failed."""
    rows = examine(config)
    show(rows, f"corrector.doctor: {config.corrector}")
    if any(row.status == "FAIL" for row in rows):
        raise SystemExit(1)
    return rows


if __name__ == "__main__":
    run_cli(Doctor, run, "corrector.doctor")
