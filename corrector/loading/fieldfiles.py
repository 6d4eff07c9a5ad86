"""Small files of named fields that a user writes, in JSON or TOML; every mistake is named with file and field."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from corrector.errors import UserError

ENDINGS = (".json", ".toml")


def read_fields(
    file: Path, kinds: Mapping[str, type | tuple[type, ...]], needed: Collection[str] = ()
) -> dict[str, Any]:
    """The fields of a .json or .toml file, each of its kind (str, bool, or one of several).

    Raises UserError for a file that is not there or does not parse, and for a field that is not known, missing or of
    another kind.
    """
    try:
        text = file.read_text(encoding="utf-8")
        fields = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({' '.join(str(error).split())}); give a .json or .toml file"
        ) from error
    if not isinstance(fields, dict):
        raise UserError(f"{file} holds a {type(fields).__name__}; write an object with the fields {', '.join(kinds)}")
    for name, value in fields.items():
        if name not in kinds:
            raise UserError(f"{file}: field {name!r} is not one of {', '.join(kinds)}; rename it or leave it out")
        if not isinstance(value, kinds[name]):
            raise UserError(f"{file}: field {name!r} is {value!r}, not a {_named(kinds[name])}; write one")
    if missing := [name for name in needed if name not in fields]:
        raise UserError(f"{file}: field {missing[0]!r} is missing; fields are {', '.join(kinds)}")
    return fields


def _named(kind: type | tuple[type, ...]) -> str:
    return " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
