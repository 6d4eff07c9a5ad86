"""The gallery's record: of what each figure was made, by which code, and what came out."""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import io
import json
import lzma
import platform
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.records import read_json
from corrector.records.canonical import rounded
from figures.catalogue import Listed
from figures.drawn import COLUMNS, Drawn, Row

STYLE = "figures/style.py"
SHARED = "figures/drawn.py"
IMAGES = ("png", "pdf")


def digest(data: bytes) -> str:
    """The sha256 of some bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def content(file: Path) -> bytes:
    """The bytes of a run's file; those of archived rows uncompressed, as their DONE names them.

    Raises UserError where rows are not those that DONE names, or the file is not there.
    """
    packed = file.with_name(f"{file.name}.xz")
    if not file.exists() and not packed.exists():
        raise UserError(f"{file} is missing; restore it, or run its command again")
    data = file.read_bytes() if file.exists() else lzma.decompress(packed.read_bytes())
    named = read_json(file.parent, "DONE", "").get(file.stem) if file.suffix == ".jsonl" else None
    if named and named["sha256"] != digest(data):
        raise UserError(
            f"{file} holds other rows than {file.parent / 'DONE'} names; restore it, or run its command again"
        )
    return data


def csv_text(rows: Iterable[Row], where: str) -> str:
    """The plotted numbers with 6 digits, COLUMNS first; a missing one is empty."""
    plain: list[Row] = rounded([*rows], where)
    names = dict.fromkeys(name for row in plain for name in row)
    columns = [c for c in COLUMNS if c in names] + [name for name in names if name not in COLUMNS]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in plain)
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def made_with() -> dict[str, str]:
    """All that the bytes of an image may depend on besides data and code."""
    packages = {name: importlib.metadata.version(name) for name in ("matplotlib", "pillow", "numpy", "scipy")}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    machine = f"{platform.system()} {platform.machine()}"
    return {**packages, "python": python, "zlib": zlib.ZLIB_RUNTIME_VERSION, "platform": machine}


def entry(listed: Listed, drawn: Drawn, root: Path) -> Row:
    """What the manifest says of a figure before its files are written: data, code and words, with their hashes."""
    here, name = Path(__file__).parents[1], listed.module.rpartition(".")[2]
    parts = sorted(f"figures/{file.name}" for file in (here / "figures").glob(f"{name}_*.py"))
    code = (f"figures/{name}.py", *parts, SHARED)
    return {
        "module": listed.module,
        "shows": listed.shows,
        "runs": sorted({file.parent.relative_to(root).as_posix() for file in _absolute(drawn.inputs, root)}),
        "inputs": {f.relative_to(root).as_posix(): digest(content(f)) for f in _absolute(drawn.inputs, root)},
        "code": {name: digest((here / name).read_bytes()) for name in code},
        "style": digest((here / STYLE).read_bytes()),
        "n": drawn.n,
        "dropped": list(drawn.dropped),
        "interval": drawn.interval,
        "caption": drawn.caption,
    }


def _absolute(files: Sequence[Path], root: Path) -> list[Path]:
    return [file if file.is_absolute() else root / file for file in files]


def read(gallery: Path) -> Row:
    """The figures of manifest.json by name; empty where there is none."""
    file = gallery / "manifest.json"
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))["figures"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{file} is no manifest ({error}); rebuild it by python -m figures.build") from error
