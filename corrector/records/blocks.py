"""Blocks of rows that are finished in any order, in a row file that has them in one.

So that work can be spread over machines, and a run that was killed in the midst of it still ends with the bytes of a
run that did one block after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.records import WAITING, RunFolder
from corrector.records.canonical import encode_row
from corrector.records.rowfiles import complete_rows, write_whole


class Blocks:
    """`<name>.jsonl` of a run as consecutive blocks of `sizes` rows.

    The file always holds a prefix of the whole. A block that is finished before its turn waits, on disk, in
    `<name>.pending/<its first row>.jsonl` and is appended once the rows before it are there; the folder goes with its
    last file. What waits there but is not a whole block (a kill cut it, or another plan wrote it) is discarded on
    opening, so `missing` is what there is to compute. `RunFolder.finish` refuses before all blocks are there.

    Raises UserError where the file holds more rows than all blocks have.
    """

    def __init__(self, folder: RunFolder, name: str, sizes: Sequence[int]) -> None:
        self.folder, self.name, self.sizes = folder, name, tuple(sizes)
        self._starts = [0, *accumulate(self.sizes)]
        self._waits = folder.path / f"{name}{WAITING}"
        self._next = 0
        folder.expect(name, self._starts[-1])
        self._waiting = self._whole()
        self._append_waiting()

    @property
    def missing(self) -> list[int]:
        """Indices of the blocks that have still to be computed, in order."""
        return [i for i in range(self._next, len(self.sizes)) if i not in self._waiting]

    @property
    def n_rows(self) -> int:
        """Rows that are on disk, in the file or waiting for their turn."""
        partial = self.folder.count(self.name) - self._starts[self._next]
        return self._starts[self._next] + max(partial, 0) + sum(self.sizes[i] for i in self._waiting)

    def add(self, block: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep a finished block: on disk when this returns, and in the file if its turn has come.

        Raises ValueError for a block that is there already or has another number of rows, and as `RunFolder.append`.
        """
        self.folder.check_open(self.name)
        if block < self._next or block in self._waiting:
            raise ValueError(f"block {block} of {self.name} is there already; compute those of `missing` only")
        if len(rows) != self.sizes[block]:
            raise ValueError(f"block {block} of {self.name} has {self.sizes[block]} rows; got {len(rows)}")
        if block == self._next:
            self._append(rows)
            self._append_waiting()
            return
        start = self._starts[block]
        lines = [encode_row(row, f"{self.name}.jsonl row {start + i}") for i, row in enumerate(rows)]
        self._waits.mkdir(exist_ok=True)
        write_whole(self._file(block), b"".join(lines))
        self._waiting.add(block)

    def _append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The next block, but for those of its rows that a run wrote before it was cut."""
        there = self.folder.count(self.name) - self._starts[self._next]
        self.folder.append(self.name, rows[there:])
        self._next += 1

    def _append_waiting(self) -> None:
        """Pass the blocks that the file has, and append those whose turn has come."""
        while self._next < len(self.sizes):
            if self.folder.count(self.name) >= self._starts[self._next + 1]:
                self._next += 1
            elif self._next in self._waiting:
                self._append(complete_rows(self._file(self._next))[0])
            else:
                break
        # A file goes only once its rows stand elsewhere: a kill between leaves them twice, never nowhere.
        for block in [i for i in self._waiting if i < self._next]:
            self._file(block).unlink()
            self._waiting.remove(block)
        if self._waits.exists() and not self._waiting:
            self._waits.rmdir()

    def _whole(self) -> set[int]:
        """The blocks that wait whole for their turn; all else there is removed."""
        found = set[int]()
        by_file = {self._file(i): i for i in range(len(self.sizes))}
        for file in sorted(self._waits.glob("*")):
            block = by_file.get(file)
            if block is not None and _rows_of(file) == self.sizes[block]:
                found.add(block)
            else:
                file.unlink()
        return found

    def _file(self, block: int) -> Path:
        return self._waits / f"{self._starts[block]:09d}.jsonl"


def _rows_of(file: Path) -> int | None:
    """Whole rows of a file; None where a line before the end is damaged."""
    try:
        return len(complete_rows(file)[0])
    except UserError:
        return None
