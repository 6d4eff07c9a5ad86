"""What the statistics take and give: numbers of which none is missing, and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from corrector.errors import UserError

CONFIDENCE = 0.95
LEVEL = 0.05
"""Significance: what an interval of CONFIDENCE leaves."""
TIE = 1e-9
"""Values that differ by no more are equal but for rounding."""
Numbers = Sequence[float | int | None] | ndarray
"""What the functions take; None is typed only so that it can be refused with a count."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; `n` is how many units (questions) were resampled.

    One unit says nothing about spread: then `low` and `high` are nan.
    """

    mean: float
    low: float
    high: float
    n: int


def numbers(values: Numbers, where: str) -> Float[ndarray, " n"]:
    """An array of the values; UserError, which names the function `where`, for none, and for missing ones."""
    listed = list(values)
    missing = sum(v is None or v != v for v in listed)
    if missing:
        raise UserError(f"{where} got {missing} missing of {len(listed)} values; drop them first, and count them")
    if not listed:
        raise UserError(f"{where} got no values; there is no number without data")
    return np.asarray(listed, dtype=float)


def paired(x: Numbers, y: Numbers, where: str) -> tuple[ndarray, ndarray]:
    """Both as arrays; UserError where they have different lengths, or as in `numbers`."""
    if len(x) != len(y):
        raise UserError(f"{where} got {len(x)} x and {len(y)} y; give as many of each")
    return numbers(x, where), numbers(y, where)
