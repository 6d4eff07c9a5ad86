"""Rows of data sets from a file, a folder or the hub, read one by one and each with the place it stands at."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.loading.hub import explained

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
HUB = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<part>[\w./-]+))?")
LFS = b"version https://git-lfs"
HEAD = 256
"""Bytes at a file's beginning that say how it is read."""


@dataclass(frozen=True)
class Read:
    """A row, the place that errors name it by, and the name of the file or split that it is from."""

    where: str
    source: str
    row: Any


def rows_of(data: str, splits: Sequence[str] = (), what: str = "rows") -> Iterator[Read]:
    """Every row of a file, of the files below a folder in the order of their names, or of a hub data set.

    A hub id may have a revision and a configuration or file behind it: `ID@REVISION:PART`. Of a hub data set `splits`
    alone are read, where given; it is streamed. Raises UserError for data that is not there or cannot be read.
    """
    path = Path(data).expanduser()
    if path.is_file():
        yield from (Read(where, path.name, row) for where, row in read_rows(path, what))
    elif path.is_dir():
        files = [f for f in sorted(path.rglob("*")) if f.name.endswith(SUFFIXES) and f.is_file()]
        if not files:
            raise UserError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}; give a folder or file of {what}")
        for file in files:
            source = file.relative_to(path).as_posix()
            yield from (Read(where, source, row) for where, row in read_rows(file, what))
    elif match := HUB.fullmatch(data):
        yield from _hub_rows(match, splits)
    else:
        raise UserError(f"{data} is no file, no folder and no hub id; give one of {what}")


def read_rows(path: Path, what: str = "rows") -> Iterator[tuple[str, Any]]:
    """(place, value) of a file: a JSON value a line, or one list or object of JSON; plain or gzip, UTF-8.

    Lines are read one by one. Raises UserError naming file and line.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; give one of {what}, one JSON object a line")
    try:
        with path.open("rb") as f:
            zipped = f.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else path.open("rb") as f:
            yield from _values(path, f)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); is it whole?") from None


def _values(path: Path, file: BufferedIOBase) -> Iterator[tuple[str, Any]]:
    head = file.read(HEAD)
    if head.startswith(LFS):
        raise UserError(f"{path} is a pointer of git-lfs, not the data; run `git lfs pull` where it is from")
    file.seek(0)
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if begins == b"[" or (begins == b"{" and ".json" in path.suffixes):
        text = _text(file.read(), f"{path}")
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            if begins == b"[":
                place = f"{path}:{error.lineno}: no JSON ({error.msg})"
                raise UserError(f"{place}; a list of objects is expected") from None
            file.seek(0)  # lines after all
        else:
            every = whole if isinstance(whole, list) else [whole]
            yield from ((f"{path}: row {n}", row) for n, row in enumerate(every, 1))
            return
    for n, line in enumerate(file, 1):
        if line.strip():
            try:
                yield f"{path}:{n}", json.loads(_text(line, f"{path}:{n}", n))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{n}: no JSON ({error.msg}); one object a line is expected") from None


def _text(data: bytes, where: str, line: int = 1) -> str:
    try:
        return data.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        path = where.removesuffix(f":{line}")
        raise UserError(f"{path} is no UTF-8 text ({error.reason}, line {line}); save it as UTF-8") from None


def _hub_rows(match: re.Match[str], splits: Sequence[str]) -> Iterator[Read]:
    name, revision, part = match["id"], match["revision"], match["part"]
    try:
        from datasets import load_dataset  # pyright: ignore
    except ImportError:
        raise UserError(f"--data={name!r} is read through datasets; pip install datasets, or give a folder") from None
    files = part if part and part.endswith(SUFFIXES) else None
    given: dict[str, Any] = {"name": None if files else part, "data_files": files, "revision": revision}
    try:
        sets: Mapping[str, Iterable[Any]] = load_dataset(name, streaming=True, **given)
        if missing := [split for split in splits if split not in sets]:
            there = ", ".join(sets)
            raise UserError(f"--data={name!r} has no split {', '.join(missing)}, but {there}; give a folder or file")
        for split in splits or sets:
            for n, row in enumerate(sets[split], 1):
                yield Read(f"{name} {split}:{n}", split, row)
    except UserError:
        raise
    except Exception as error:
        reason = explained(error, f"datasets/{name}", revision or "")
        reason = reason or (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"--data={name!r} is no folder and no data set to be had ({reason}); give a folder") from error
