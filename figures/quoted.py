"""Numbers quoted in README and docs, each tied to the row that it comes from: `python -m figures.quoted [--check]`.

A quoted number has its source behind it, in a comment that a reader does not see:

    .50 [.33, .64]<!--dialogue/methods/stream/helpful; 3 seeds-->        a finding and its subject (docs/paper.md)
    2.88<!--dose-dialogue-0; dialogue/edit_ratio; correction; 2-->    a figure of the gallery: panel, series, x

The subject may be left out where a finding has one. A last `; n` or `; x` takes that number instead of the value.
A number keeps the decimals that it is written with, and its interval where it is written with one. A comment that
begins with a blank is no source.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrector.errors import UserError, run_cli
from figures.catalogue import GALLERY, ROOT

Number = dict[str, float | None]
Source = tuple[str, ...]
"""Cells of the comment."""
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
QUOTE = re.compile(rf"({NUMBER})( \[({NUMBER}), ({NUMBER})\])?<!--(?! )([^<>]*)-->")
COMMENT = re.compile(r"<!--(?! )[^<>]*-->")
CELLS = {"value": "y", "low": "low", "high": "high", "n": "n", "x": "x"}
"""Fields of a number, and their columns in the gallery's tables."""
FOUND = ROOT / "docs" / "paper.csv"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


@dataclass(frozen=True)
class Quoted:
    """Bring the numbers quoted in README and docs up to date with the shipped runs and the gallery."""

    check: bool = False
    """Change nothing: print what is not as the runs have it, and exit with 1."""


def sources(gallery: Path, found: Path) -> dict[Source, list[Number]]:
    """All that can be quoted: rows of the gallery's tables, and the findings that `analysis.paper --shipped` wrote."""
    out: dict[Source, list[Number]] = {}
    for file in sorted(gallery.glob("*.csv")):
        for row in _rows(file):
            key = (file.stem, row["panel"], row["series"], _plain(row["x"]))
            out.setdefault(key, []).append({name: _float(row.get(cell)) for name, cell in CELLS.items()})
    for row in _rows(found):
        number = {name: _float(row[name]) for name in ("value", "low", "high", "n")}
        out.setdefault((row["key"], row["subject"]), []).append(number)
        out.setdefault((row["key"],), []).append(number)
    return out


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _plain(x: str) -> str:
    number = _float(x)
    return x if number is None else f"{number:g}"


def _float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def requote(text: str, known: Mapping[Source, list[Number]]) -> tuple[str, list[str]]:
    """The text with every quoted number as its source has it, and one line for each that cannot be told."""
    faults: list[str] = []

    def of(match: re.Match[str]) -> str:
        value, interval, low, high, comment = match.groups()
        try:
            number, name = _found(comment, known)
            shown = _as(value, number[name])
            if interval:
                shown += f" [{_as(low, number['low'])}, {_as(high, number['high'])}]"
        except LookupError as error:
            faults.append(f"{match.group(0)}: {error.args[0]}")
            return match.group(0)
        return f"{shown}<!--{comment}-->"

    out = QUOTE.sub(of, text)
    quoted = {match.end() for match in QUOTE.finditer(text)}
    faults += [f"{m.group(0)}: no number before it" for m in COMMENT.finditer(text) if m.end() not in quoted]
    return out, faults


def _found(comment: str, known: Mapping[Source, list[Number]]) -> tuple[Number, str]:
    """The number a comment names, and which of its fields; LookupError where there is none or more than one."""
    cells, name = tuple(cell.strip() for cell in comment.split(";")), "value"
    if cells not in known and cells[-1] in ("n", "x"):
        cells, name = cells[:-1], cells[-1]
    rows = known.get(cells, [])
    if len(rows) != 1:
        raise LookupError(f"{len(rows)} such rows in the gallery and the shipped runs; one is needed")
    return rows[0], name


def _as(written: str, value: float | None) -> str:
    """A value with the decimals, the sign and the leading zero, or none, of what is written."""
    if value is None:
        raise LookupError("its source has no such number")
    decimals = len(written.partition(".")[2])
    shown = f"{value:{'+' if written.startswith('+') else ''}.{decimals}f}"
    shown = re.sub(r"^-(0?\.?0*)$", r"\1", shown)
    return re.sub(r"^([-+]?)0\.", r"\1.", shown) if re.match(r"[-+]?\.", written) else shown


def main(config: Quoted, documents: Iterable[Path] = DOCUMENTS) -> None:
    """Rewrite or compare; SystemExit 1 where a check finds a difference, UserError for a quote without a source."""
    known, differ, count = sources(GALLERY, FOUND), list[str](), 0
    for file in documents:
        text = file.read_text(encoding="utf-8")
        now, faults = requote(text, known)
        if faults:
            raise UserError(f"{file.name}: {faults[0]}" + (f" (and {len(faults) - 1} more)" if faults[1:] else ""))
        count += sum(1 for _ in QUOTE.finditer(text))
        pairs: list[tuple[Any, Any]] = list(zip(QUOTE.finditer(text), QUOTE.finditer(now), strict=True))
        differ += [f"{file.name}: {a.group(0)} should be {b.group(0)}" for a, b in pairs if a.group(0) != b.group(0)]
        if not config.check:
            file.write_text(now, encoding="utf-8")
    print(*differ, sep="\n", end="\n" if differ else "")
    print(f"{count} quoted numbers, {len(differ)} {'differ' if config.check else 'brought up to date'}")
    if config.check and differ:
        raise SystemExit(1)


if __name__ == "__main__":
    run_cli(Quoted, main, "figures.quoted")
