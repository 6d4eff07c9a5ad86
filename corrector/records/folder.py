"""Run folders: configuration, environment and rows of one run, which survive a kill at any moment.

Rows stand in one fixed order and are appended as they finish, so the number of complete lines says where to go on: a
run that was killed and started again ends with the same bytes as one that never was. `corrector.records.blocks` keeps
rows that were finished before their turn.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import lzma
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from corrector.errors import UserError
from corrector.records.canonical import SIGNIFICANT_DIGITS, canonical, differing, encode_row, to_plain
from corrector.records.environment import environment
from corrector.records.rowfiles import append_whole, complete_rows, truncate_torn_tail, write_whole

WAITING = ".pending"
"""Ends the name of a folder with rows of `<name>.jsonl` whose turn has not come (`corrector.records.blocks`)."""


class RunFolder:
    """One run on disk: config.json, env.json, `<name>.jsonl` files, and DONE once it is finished.

    Opening creates the folder, or resumes it when it holds the same configuration; a line that a kill cut off is
    then truncated. One process writes at a time. Use it as a context manager, or call `close`.

    Fields of `config`, or of a dataclass in it, declared with `field(metadata={"identity": False})` (where to write,
    how many workers, where a server is) are recorded, yet neither compared on resume nor part of `default_name`.

    Raises UserError when the folder holds another configuration (nothing is touched), other files, rows damaged
    before the end, or is being written by another process.
    """

    def __init__(self, path: str | Path, config: Any, device: str = "cpu") -> None:
        self.path = Path(path)
        self._lock: IO[bytes] | None = None
        _check_same_run(self.path, config)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _take_lock(self.path)
        self._expected: dict[str, int] = {}
        try:
            # Between the first look and the lock another process may have made this folder its own.
            _check_same_run(self.path, config)
            if not (self.path / "config.json").exists():
                write_whole(self.path / "config.json", canonical(config).encode())
            self._record_environment(environment(device))
            self._counts = {file.stem: truncate_torn_tail(file) for file in sorted(self.path.glob("*.jsonl"))}
            self._check_done()
        except BaseException:
            self.close()
            raise

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to `<name>.jsonl` and wait until they are on disk; all of them or, when one is refused, none.

        Floats keep 6 significant digits, keys their order, text its characters. Raises ValueError for nan and inf
        (a missing value is None) and TypeError for values that JSON has no form for.
        """
        self.check_open(name)
        start = self.count(name)
        lines = [encode_row(row, f"{name}.jsonl row {start + i}") for i, row in enumerate(rows)]
        if not lines:
            return
        append_whole(self.path / f"{name}.jsonl", b"".join(lines))
        self._counts[name] = start + len(lines)

    def check_open(self, name: str) -> None:
        """Raise where no more rows can be written: ValueError once it is closed, UserError once it is finished."""
        if self._lock is None:
            raise ValueError(f"{self.path} is closed; append inside its `with` block")
        if self.done:
            raise UserError(f"{self.path} is finished; delete it or choose another --out to write {name} rows")

    def count(self, name: str) -> int:
        """Complete rows in `<name>.jsonl`; 0 when there is no such file."""
        return self._counts.get(name, 0)

    def resume_point(self, name: str) -> int:
        """Index of the first row, in the run's fixed order, that still has to be done."""
        return self.count(name)

    def expect(self, name: str, n_rows: int) -> None:
        """Let `finish` refuse unless `<name>.jsonl` has n_rows; UserError where it has more already."""
        if (n := self.count(name)) > n_rows:
            raise UserError(
                f"{self.path}/{name}.jsonl holds {n} rows where its configuration makes {n_rows}; delete the folder "
                "and run the command again"
            )
        self._expected[name] = n_rows

    def rows(self, name: str) -> list[dict[str, Any]]:
        """All rows of `<name>.jsonl` in order; empty when there is no such file."""
        return read_rows(self.path, name)

    def write_once(self, name: str, value: Mapping[str, Any]) -> None:
        """Write `<name>.json`. A resumed run may write the same value again; another one raises UserError.

        For what the rows depend on, such as a selected layer: rows of two selections must not share a file.
        """
        file, text = self.path / f"{name}.json", canonical(to_plain(value, name, SIGNIFICANT_DIGITS))
        if not file.exists():
            write_whole(file, text.encode())
        elif file.read_text(encoding="utf-8") != text:
            fields = differing(json.loads(file.read_text(encoding="utf-8")), json.loads(text))
            raise UserError(f"{file} was written with {fields}; delete the folder, or choose another --out")

    @property
    def done(self) -> bool:
        """Whether the run is finished."""
        return (self.path / "DONE").exists()

    def finish(self) -> None:
        """Write DONE, atomically and last: the number of rows and the sha256 of every row file.

        Raises ValueError where rows that `expect` announced are missing, and where some still wait for their turn.
        """
        for name, n_rows in self._expected.items():
            if self.count(name) != n_rows:
                raise ValueError(f"{self.path}/{name}.jsonl has {self.count(name)} of {n_rows} rows; compute the rest")
        if waiting := sorted(self.path.glob(f"*{WAITING}")):
            raise ValueError(f"{waiting[0]} holds rows that wait for their turn; append those before them first")
        write_whole(self.path / "DONE", canonical(self._contents()).encode())

    def close(self) -> None:
        """Let other processes write this folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _contents(self) -> dict[str, Any]:
        return {
            name: {"rows": n, "sha256": hashlib.sha256((self.path / f"{name}.jsonl").read_bytes()).hexdigest()}
            for name, n in sorted(self._counts.items())
        }

    def _check_done(self) -> None:
        if self.done and json.loads((self.path / "DONE").read_text(encoding="utf-8")) != self._contents():
            raise UserError(f"{self.path} changed after it was finished; delete it and run the command again")

    def _record_environment(self, now: dict[str, Any]) -> None:
        file = self.path / "env.json"
        if not file.exists():
            write_whole(file, canonical(now).encode())
            return
        first: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        resumed: list[Any] = first.pop("resumed_in", [])
        if now != first and now not in resumed and not self.done:
            warnings.warn(f"{self.path} resumes with {differing(first, now)}", stacklevel=3)
            write_whole(file, canonical({**first, "resumed_in": [*resumed, now]}).encode())


def default_name(verb: str, config: Any) -> str:
    """`<verb>-<8 hex of the configuration>`, so the same command finds its own run again."""
    return f"{verb}-{hashlib.sha256(canonical(_identity(config)).encode()).hexdigest()[:8]}"


def read_rows(run: Path, name: str) -> list[dict[str, Any]]:
    """Rows of a run that may still be going on: an unfinished last line is left out, and nothing is written.

    Those of an archived run (`corrector.archive`) too, if they are the rows that its DONE names. Empty when there is no
    such file; UserError when a line before the end is damaged.
    """
    file = run / f"{name}.jsonl"
    packed = run / f"{name}.jsonl.xz"
    if file.exists() or not packed.exists():
        return complete_rows(file)[0] if file.exists() else []
    try:
        data = lzma.decompress(packed.read_bytes())
    except lzma.LZMAError as error:
        raise UserError(f"{packed} cannot be unpacked ({error}); restore it, or run its command again") from error
    if hashlib.sha256(data).hexdigest() != read_json(run, "DONE", "").get(name, {}).get("sha256"):
        raise UserError(f"{packed} holds other rows than {run / 'DONE'} names; restore it, or run its command again")
    return [json.loads(line) for line in data.splitlines()]


def read_json(run: Path, name: str, suffix: str = ".json") -> dict[str, Any]:
    """`<name>.json` of a run; empty when there is no such file."""
    file = run / f"{name}{suffix}"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _identity(config: Any, record: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration's record (its own, or an older one) without the fields that are no part of its identity."""
    free = {f.name for f in dataclasses.fields(config) if not f.metadata.get("identity", True)}
    out: dict[str, Any] = {}
    for key, value in (json.loads(canonical(config)) if record is None else record).items():
        inner = getattr(config, key, None)
        if key not in free:
            out[key] = _identity(inner, value) if dataclasses.is_dataclass(inner) and isinstance(value, dict) else value
    return out


def _check_same_run(path: Path, config: Any) -> None:
    file = path / "config.json"
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, not a folder; choose another --out")
    if not file.exists():
        present = sorted(p.name for p in path.iterdir()) if path.exists() else []
        # A kill during the very first moment leaves these two behind.
        if foreign := [name for name in present if name not in (".lock", "config.json.tmp")]:
            raise UserError(f"{path} holds {foreign[0]!r} but no config.json, so no run; choose another --out")
        return
    try:
        old: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({error}); delete the folder, or choose another --out") from error
    new, old = _identity(config), _identity(config, old)
    if old != new:
        raise UserError(f"{path} holds another run: {differing(old, new)}; choose another --out, or delete that folder")


def _take_lock(path: Path) -> IO[bytes]:
    lock = (path / ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(f"{path} is being written by another process; wait for it, or choose another --out") from None
    return lock
