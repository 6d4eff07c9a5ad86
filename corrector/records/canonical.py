"""One JSON text per value, so that records compare byte by byte."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

SIGNIFICANT_DIGITS = 6
"""Digits that rows keep of a float: more than any measurement here has, fewer than float32 noise reaches."""
_ABSENT = "absent"


def canonical(value: Any) -> str:
    """One text per value: JSON with sorted keys; dataclasses become objects, tuples lists, paths strings."""
    return json.dumps(to_plain(value, "config"), ensure_ascii=False, sort_keys=True, indent=2, allow_nan=False) + "\n"


def encode_row(row: Mapping[str, Any], where: str) -> bytes:
    """A row as one JSON line, keys in the row's own order."""
    plain = to_plain(row, where, SIGNIFICANT_DIGITS)
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """`field=old, now new` of every field, nested ones by their dotted name, in which two records differ."""
    a, b = _flat(old), _flat(new)
    fields = [key for key in sorted({*a, *b}) if a.get(key, _ABSENT) != b.get(key, _ABSENT)]
    return "; ".join(f"{key}={a.get(key, _ABSENT)!s:.80}, now {b.get(key, _ABSENT)!s:.80}" for key in fields)


def _flat(record: Mapping[str, Any], outer: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in record.items():
        out.update(_flat(value, f"{outer}{key}.") if isinstance(value, Mapping) else {f"{outer}{key}": value})
    return out


def to_plain(value: Any, where: str, digits: int = 0) -> Any:
    """The value in JSON's types; floats rounded to `digits` significant digits unless 0.

    Raises ValueError for nan and inf, TypeError for what JSON has no form for, both naming `where`.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return to_plain(fields, where, digits)
    if isinstance(value, Enum):
        return to_plain(value.value, where, digits)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where}: {value} is no finite number; record None where a value is missing")
        return float(f"{value:.{digits}g}") + 0.0 if digits else float(value)  # + 0.0 turns -0.0 into 0.0
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item, f"{where}, {key}", digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, where, digits) for item in value]
    tolist = getattr(value, "tolist", None)  # arrays and scalars of numpy and torch, neither of which is imported here
    if callable(tolist):
        return to_plain(tolist(), where, digits)
    raise TypeError(f"{where}: {type(value).__name__} has no form in JSON; record numbers, text, lists and objects")


def rounded(value: Any, where: str) -> Any:
    """What a table of numbers is written as: JSON's types, SIGNIFICANT_DIGITS, None where a float is nan."""
    return to_plain(_without_nan(value), where, SIGNIFICANT_DIGITS)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
