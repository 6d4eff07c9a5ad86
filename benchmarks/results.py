"""What was measured, as lines of a table, with the check that contestants agree."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import Contestant, Times

KL_RELATIVE, KL_ABSOLUTE = 1e-2, 1e-4
"""How far apart two divergences may lie that were computed in float32 and in float64."""


@dataclass(frozen=True)
class Spread:
    """The median, and the least and the largest, over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of some numbers, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, form: str = ".3g") -> str:
        """As tables show it."""
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class Row:
    """One line of a table. `ratio` is the cost over that of the contestant `to` in the same round."""

    part: str
    setting: str
    what: str
    unit: str
    cost: Spread
    ratio: Spread
    to: str
    n: float
    """Units timed, all rounds together."""
    compared: int = 0
    differ: int | None = None
    """Of `compared` rows, those that are not the reference's; None where none can be."""
    note: str = ""
    x: float | None = None
    """Where the row stands in a plot."""
    wall: Spread | None = None
    """The cost by the clock on the wall, where it was read."""


def rows_of(
    part: str,
    setting: str,
    unit: str,
    contestants: Sequence[Contestant],
    times: Mapping[str, Times],
    device: str,
    strict: bool,
    scale: float = 1e3,
    x: float | None = None,
) -> list[Row]:
    """A row for every contestant; ratios are to the first one, and so is agreement.

    On an accelerator the cost is wall time. With `strict` RuntimeError where an exact contestant differs.
    """
    first = times[contestants[0].name]
    out: list[Row] = []
    for c in contestants:
        mine = times[c.name]
        cost, base = (t.wall if device.startswith("cuda") else t.cpu for t in (mine, first))
        shared = [key for key in mine.found if key in first.found]
        differ = [key for key in shared if not agree(mine.found[key], first.found[key])]
        if c.exact and strict and (differ or not shared):
            raise RuntimeError(
                f"{part}, {setting}: {c.name} differs from {contestants[0].name} in {len(differ)} of {len(shared)} "
                f"rows, first {differ[:1]}; the tokens must be the same"
            )
        out.append(
            Row(
                part,
                setting,
                c.name,
                unit,
                Spread.of([scale * s for s in cost]),
                Spread.of([a / b for a, b in zip(cost, base, strict=True)]),
                contestants[0].name,
                sum(mine.n),
                len(shared),
                len(differ) if shared else None,
                c.note,
                x,
                Spread.of([scale * s for s in mine.wall]),
            )
        )
    return out


def agree(a: Any, b: Any) -> bool:
    """Whether two rows say the same; (text, divergence) up to rounding of the divergence, where both have one."""
    if not isinstance(a, tuple):
        return a == b
    (text, kl), (other, other_kl) = a, b
    near = kl is None or other_kl is None or abs(kl - other_kl) <= KL_ABSOLUTE + KL_RELATIVE * abs(other_kl)
    return text == other and near
