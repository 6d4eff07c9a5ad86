"""Finished runs whose rows stand in for models that are not here: too many checkpoints to ship, few enough answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from corrector.records import read_json
from corrector.records.canonical import to_plain

SHIPPED = Path(__file__).parents[2] / "figures" / "runs"
"""Finished runs that ship with the lab."""


def refusal(folder: Path, config: Any, free: Collection[str]) -> str:
    """Why the rows of a finished run cannot stand in for those of `config`, a frozen dataclass; empty where they can.

    Every field must agree but those in `free` and those that are no part of a run's identity.
    """
    if not (folder / "DONE").is_file():
        return f"no finished run in {folder}"
    then, now = read_json(folder, "config"), to_plain(config, "config")
    counts = [f.name for f in fields(config) if f.metadata.get("identity", True) and f.name not in free]
    changed = [name for name in counts if then.get(name) != now[name]]
    return f"{folder} was made with another {changed[0]}" if changed else ""
