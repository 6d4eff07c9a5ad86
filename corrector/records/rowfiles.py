"""Files of a run: whole files or none, and JSON lines whose last one a kill may have cut."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from corrector.errors import UserError


def write_whole(file: Path, data: bytes) -> None:
    """Write a whole file or nothing: to a neighbour first, renamed once it is on disk."""
    neighbour = file.with_name(file.name + ".tmp")
    with neighbour.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    neighbour.replace(file)


def append_whole(file: Path, data: bytes) -> None:
    """Append all of `data` and wait until it is on disk, or, where that fails, nothing of it."""
    with file.open("ab", buffering=0) as out:
        size = out.tell()
        try:
            if out.write(data) != len(data):
                raise OSError(f"{file}: only a part of {len(data)} bytes could be written; is the disk full?")
            os.fsync(out.fileno())
        except OSError:
            # Whoever catches this must not append behind half a line.
            out.truncate(size)
            raise


def complete_rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows before a torn tail, and their length in bytes; UserError where a line before the end is damaged."""
    rows: list[dict[str, Any]] = []
    size, broken = 0, 0
    with file.open("rb") as lines:  # as bytes: text may hold U+2028, at which str.splitlines would cut
        for number, line in enumerate(lines, start=1):
            row = _parse(line)
            if row is None:
                broken = broken or number
            elif broken:
                raise UserError(f"{file} line {broken} is no JSON object; restore it, or delete the folder and rerun")
            else:
                rows.append(row)
                size += len(line)
    return rows, size


def truncate_torn_tail(file: Path) -> int:
    """Cut what a kill left of a line; returns the rows that stay. UserError as `complete_rows`."""
    rows, size = complete_rows(file)
    if size < file.stat().st_size:
        os.truncate(file, size)
    return len(rows)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
