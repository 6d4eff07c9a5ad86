"""How a correction breaks down where a coefficient is too large, and the range of coefficients where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from corrector.errors import UserError
from corrector.sentences import repeats

Collapse = Literal["none", "repetition", "no_end", "empty", "malformed"]
KINDS: tuple[Collapse, ...] = get_args(Collapse)
LOOPS = range(4, 9)
"""Words of a block that stands twice in a row: 4 to 8, which covers loops of every period from 1 to 8."""

WELL_FORMED = 0.95
"""Least share of well-formed corrections at which a coefficient counts as usable."""


def collapse(text: str, ended: bool, well_formed: bool) -> Collapse:
    """The first rule that holds: empty, repetition, no_end, malformed; else none.

    `empty` is blank text, `repetition` a block of 4 to 8 words followed at once by itself, `no_end` a text that filled
    its budget without the end token, and `malformed` what the task calls not well formed for another reason. So none
    holds of well-formed, ended texts only.
    """
    if not text.strip():
        return "empty"
    if any(repeats(text, n) for n in LOOPS):
        return "repetition"
    if not ended:
        return "no_end"
    return "none" if well_formed else "malformed"


def usable_range(coefs: Sequence[float], well_formed: Sequence[float]) -> list[float]:
    """The contiguous coefficients around 0 at which the share of well-formed corrections is 0.95 or more.

    Empty when 0 itself is below. Raises UserError without a coefficient 0, for then nothing is a baseline.
    """
    if 0.0 not in coefs:
        raise UserError(f"coefs {list(coefs)} lack 0, the unsteered corrector; add it to --coef")
    good = {coef for coef, share in zip(coefs, well_formed, strict=True) if share >= WELL_FORMED}
    kept: list[float] = []
    for side in (sorted(c for c in coefs if c >= 0), sorted((c for c in coefs if c < 0), reverse=True)):
        if 0.0 not in good:
            return []
        for coef in side:
            if coef not in good:
                break
            kept.append(coef)
    return sorted(kept)
