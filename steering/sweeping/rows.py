"""The rows of a sweep in blocks of items that depend on nothing but themselves: no order or machine changes a byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corrector.decoding import Tricks
from corrector.errors import UserError
from corrector.loop import align
from steering.sweeping.cells import Cell
from steering.sweeping.crossing import cross, joint, unsteered
from steering.sweeping.grid import Grid
from steering.sweeping.plan import LOOPS, Sweep
from steering.sweeping.work import Work

UPSTREAM = "upstream"
"""The direction of the cell in which nothing is corrected."""
EDITS, ALONE = "edits", "alignments"
"""The file of edit rows, and the one whose loops are compared with the upstream alone."""
ROUNDS = re.compile(r"(\d*):(\d*)")
Rounds = tuple[int, int | None]
"""First round, and the first one after the last (None: there is no last), counted from 0."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Block:
    """Items start..stop-1 of one task in all cells of a row file, of which it is block number `index`."""

    file: str
    index: int
    task: str
    start: int
    stop: int
    n_rows: int

    def __str__(self) -> str:
        return f"{self.task} {self.start}..{self.stop - 1} of {self.file}"


def parse_rounds(text: str) -> Rounds | None:
    """`i:j` as rounds i..j-1; either may be missing; empty text is None, every round. UserError for anything else."""
    if not text:
        return None
    match = ROUNDS.fullmatch(text)
    first, end = (match[1], match[2]) if match else ("", "")
    if not match or (end and int(end) <= int(first or 0)):
        raise UserError(f"rounds={text!r} is no range of rounds; write --rounds i:j with i < j, such as 0:1 or 1:")
    return int(first or 0), int(end) if end else None


def blocks_of(config: Sweep, works: Mapping[str, Work], grids: Mapping[str, Grid]) -> dict[str, list[Block]]:
    """Every block by row file, in the order of its rows: task by task, in a task by item."""
    sizes = {EDITS: {name: (len(work.pairs), len(edit_cells(grids[name]))) for name, work in works.items()}}
    for file in LOOPS:
        loops = {name: work.loops[file] for name, work in works.items() if file in work.loops}
        sizes[file] = {name: (len(drawn), len(loop_cells(grids[name], file))) for name, drawn in loops.items()}
    found: dict[str, list[Block]] = {}
    for file, by_task in sizes.items():
        cuts = [(task, i, min(i + config.block, n), c) for task, (n, c) in by_task.items() for i in _steps(config, n)]
        if cuts:
            found[file] = [Block(file, k, task, i, j, (j - i) * c) for k, (task, i, j, c) in enumerate(cuts)]
    return found


def compute(config: Sweep, work: Work, grid: Grid, block: Block) -> list[Row]:
    """The rows of a block, in the order of the file: cell by cell, in a cell item by item."""
    if block.file == EDITS:
        return edit_block(work, grid, block.start, block.stop, Tricks.of(config.tricks))
    return loop_block(
        work, grid, block.file, parse_rounds(config.rounds), block.start, block.stop, Tricks.of(config.tricks)
    )


def edit_cells(grid: Grid) -> list[Cell]:
    """The cells of edits.jsonl in their order."""
    return [*grid.correction(), *grid.controls()]


def loop_cells(grid: Grid, file: str) -> list[Cell]:
    """The cells of a file of loop rows: in `alignments` the upstream alone, then the loop at every coefficient."""
    return [*([Cell(UPSTREAM, 0.0)] if file == ALONE else []), *grid.correction()]


def edit_block(work: Work, grid: Grid, start: int, stop: int, tricks: Tricks | None = None) -> list[Row]:
    """Rows of edits.jsonl of the pairs start..stop-1 in all cells; `item` counts from the first pair of all."""
    task, lm, pairs = work.task, work.lm, work.pairs[start:stop]
    by_cell = cross(lm, task, pairs, edit_cells(grid), grid.setting, unsteered(lm, task, pairs, tricks=tricks))
    return [{**row, "item": start + row["item"]} for rows in by_cell for row in rows]


def loop_block(
    work: Work, grid: Grid, file: str, rounds: Rounds | None, start: int, stop: int, tricks: Tricks | None = None
) -> list[Row]:
    """Rows of `<file>.jsonl` of the problems start..stop-1 in all cells, steered in `rounds` only."""
    assert work.upstream is not None, "a loop has an upstream"
    problems, task = work.loops[file][start:stop], work.task
    alone, cells = ([c for c in loop_cells(grid, file) if (c.direction == UPSTREAM) == flag] for flag in (True, False))
    answers = {id(c): align(problems, work.upstream, task=task, mode="upstream") for c in alone}
    # the cells of a problem together, since they share what the upstream writes until they part
    every = align(
        [problem for problem in problems for _ in cells],
        work.upstream,
        work.lm,
        task=task,
        steer=joint(cells, grid.setting, len(problems)),
        steer_rounds=rounds,
        tricks=tricks,
    )
    answers |= {id(c): every[k :: len(cells)] for k, c in enumerate(cells)}
    return [
        {"task": task.name, "coef": cell.coef, "direction": cell.direction, **answer.row()}
        for cell in [*alone, *cells]
        for answer in answers[id(cell)]
    ]


def _steps(config: Sweep, n: int) -> range:
    return range(0, n, config.block)
