"""Rows as columns, the form in which the page holds them: small, and exactly what was recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from corrector.display.diff import diff, joined, words

Row = Mapping[str, Any]


def columns(rows: Sequence[Row]) -> dict[str, Any]:
    """`{"n", "columns": {field: {"values"} or {"pool", "at"}}}`, fields in the order in which rows bring them.

    Texts, lists and objects stand once in a pool, with -1 for None. A field that a row lacks is None.
    """
    fields = dict.fromkeys(name for row in rows for name in row)
    return {"n": len(rows), "columns": {name: _column([row.get(name) for row in rows]) for name in fields}}


def value(table: Mapping[str, Any], field: str, i: int) -> Any:
    """What row i holds, as the page reads it."""
    column = table["columns"][field]
    if "values" in column:
        return column["values"][i]
    at = column["at"][i]
    return None if at < 0 else column["pool"][at]


def _column(values: list[Any]) -> dict[str, Any]:
    if not any(isinstance(v, str | list | dict) for v in values):
        return {"values": values}
    places: dict[str, int] = {}
    pool: list[Any] = []
    at: list[int] = []
    for v in values:
        if v is None:
            at.append(-1)
            continue
        key = json.dumps(v, sort_keys=True)
        if key not in places:
            places[key] = len(pool)
            pool.append(v)
        at.append(places[key])
    return {"pool": pool, "at": at}


def cutter() -> Callable[[str, str | None], list[list[int]] | None]:
    """A function that gives the diff of two texts as lengths, each pair of texts computed once.

    `[n]` are n letters that both have; `[a, b]` are a letters taken out and b put in. Letters are UTF-16 units, which
    JavaScript counts. None for a second text that is None. Source of the diff: `corrector.display.diff`, by words.
    """

    @cache
    def cut(last: str, correction: str | None) -> list[list[int]] | None:
        if correction is None:
            return None
        parts = joined(diff(words(last), words(correction)))
        sides = ((p.kind, _units(p.last), _units(p.correction)) for p in parts)
        return [[a] if kind == "equal" else [a, b] for kind, a, b in sides]

    return cut


def _units(tokens: Sequence[str]) -> int:
    return len("".join(tokens).encode("utf-16-le", "surrogatepass")) // 2
