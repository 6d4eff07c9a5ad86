"""Measured numbers under the names that the paper's claims are held against (`analysis.paper`)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from corrector.statistics import bootstrap_mean, crossed_mean


@dataclass(frozen=True)
class Found:
    """One number of one subject (a corrector or a scan), with its 95 % interval over problems."""

    key: str
    """What was measured, such as dialogue/helpful/omega."""
    subject: str
    """Of which corrector."""
    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""
    null: float = 0.0
    """What the number would be without an effect: 0 of differences, 1 of ratios."""
    holds: bool | None = None
    """The verdict of a scan, where there is no one number."""

    @property
    def sign(self) -> int | None:
        """On which side of the null it lies: -1, 0 or 1; None without a number."""
        return None if self.value is None else (self.value > self.null) - (self.value < self.null)

    @property
    def significant(self) -> bool | None:
        """Whether the interval leaves the null out; None without an interval."""
        return None if self.low is None or self.high is None else not self.low <= self.null <= self.high


def finding(
    key: str,
    subject: str,
    numbers: ndarray | Sequence[float],
    seed: int = 0,
    note: str = "",
    null: float = 0.0,
    groups: Sequence[Hashable] | ndarray | None = None,
) -> Found:
    """The mean of some numbers, one a problem (or grouped by problem), with its bootstrap interval.

    Of an array [seed, problem] the interval resamples training seeds and problems.
    """
    if isinstance(numbers, ndarray) and numbers.ndim == 2:
        mean = crossed_mean(numbers, seed=seed)
    else:
        mean = bootstrap_mean(numbers, groups, seed=seed)
    low, high = (None if x != x else x for x in (mean.low, mean.high))
    return Found(key, subject, mean.mean, low, high, mean.n, note, null)


def by_seed(values: Float[ndarray, "seed problem"]) -> str:
    """The mean of each training seed, for a note; empty of one seed."""
    return f"by training seed {', '.join(f'{v:.2f}' for v in values.mean(1))}" if len(values) > 1 else ""


def plain(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The findings as rows of JSON."""
    return [asdict(f) for f in found]


def read(rows: Sequence[dict[str, Any]]) -> list[Found]:
    """The findings of rows that `plain` wrote."""
    return [Found(**row) for row in rows]


def amount(found: Found) -> str:
    """`value [low, high]`; empty without a value."""
    if found.value is None:
        return ""
    ends = "" if found.low is None or found.high is None else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{ends}"


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line a finding, for the terminal."""
    return [f"{f.subject}: {f.key} {amount(f)}, n = {f.n} ({f.note})" for f in read(rows)]
