"""The rows of a sweep, cell by cell in a fixed order: a run that was cut goes on to the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.loop import align
from corrector.models import LanguageModel
from corrector.records import RunFolder
from corrector.scoring import Plain
from corrector.tasks.base import Pair, Problem, Task
from corrector.upstreams import Upstream
from steering.cells import Cell, correct, intervention, unsteered_tokens, with_kl
from steering.grid import Grid

ROUNDS = re.compile(r"(\d*):(\d*)")
Rounds = tuple[int, int | None]
"""First round, and the first one after the last (None: there is no last), counted from 0."""


def parse_rounds(text: str) -> Rounds | None:
    """`i:j` as rounds i..j-1; either may be missing; empty text is None, every round. UserError for anything else."""
    if not text:
        return None
    match = ROUNDS.fullmatch(text)
    first, end = (match[1], match[2]) if match else ("", "")
    if not match or (end and int(end) <= int(first or 0)):
        raise UserError(f"rounds={text!r} is no range of rounds; write --rounds i:j with i < j, such as 0:1 or 1:")
    return int(first or 0), int(end) if end else None


def edit_rows(folder: RunFolder, task: Task, lm: LanguageModel, pairs: Sequence[Pair], grid: Grid, before: int) -> int:
    """Append the task's rows of edits.jsonl, `before` rows in; returns the rows there are after them."""
    cells = [*grid.correction(), *grid.controls()]
    unsteered: list[list[int]] = []
    plain: Plain = {}
    for i, cell in enumerate(tqdm(cells, desc=f"{task.name}: correct", unit="cell")):
        start = before + i * len(pairs)
        missing = start + len(pairs) - max(folder.count("edits"), start)
        if missing <= 0:
            continue
        rows = correct(lm, task, pairs, cell, grid.setting)
        unsteered = unsteered or unsteered_tokens(lm, task, pairs)
        rows = with_kl(lm, pairs, rows, unsteered, cell, grid.setting, plain)
        folder.append("edits", rows[len(pairs) - missing :])
    return before + len(cells) * len(pairs)


def loop_rows(
    folder: RunFolder,
    name: str,
    task: Task,
    lm: LanguageModel,
    problems: Sequence[Problem],
    upstream: Upstream,
    grid: Grid,
    rounds: Rounds | None,
    before: int,
) -> int:
    """Append the task's rows of `<name>.jsonl`, `before` rows in; returns the rows there are after them.

    `alignments` has the upstream alone, the loop without steering and the loop at every coefficient, steered in
    `rounds` only; `validation` the same but for the upstream alone.
    """
    alone = [Cell("upstream", 0.0)] if name == "alignments" else []
    cells = [*alone, *grid.correction()]
    for i, cell in enumerate(tqdm(cells, desc=f"{task.name}: {name}", unit="cell")):
        start = before + i * len(problems)
        missing = start + len(problems) - max(folder.count(name), start)
        if missing <= 0:
            continue

        def steer(live: list[int], cell: Cell = cell) -> Any:
            return intervention(cell, grid.setting, len(live))

        answers = align(
            problems,
            upstream,
            None if cell.direction == "upstream" else lm,
            task=task,
            mode="upstream" if cell.direction == "upstream" else "stream",
            steer=steer if cell.vector is not None else None,
            steer_rounds=rounds,
        )
        rows = [{"task": task.name, "coef": cell.coef, "direction": cell.direction, **a.row()} for a in answers]
        folder.append(name, rows[len(problems) - missing :])
    return before + len(cells) * len(problems)
