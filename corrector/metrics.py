"""Edit metrics of a correction: how far y2 (`correction`) is from y1 (`last`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import Levenshtein

from corrector.errors import UserError


@dataclass(frozen=True)
class Edit:
    """Every edit metric of one (y1, y2), each under its own name; lengths in characters unless said otherwise.

    `edit_ratio` exceeds 1 and grows with len(y2) alone, so it is never read without `copied` and `length_ratio`.
    """

    distance: int
    """Levenshtein distance, unit costs."""
    edit_ratio: float
    """distance / len(y1), in [0, inf)."""
    norm_distance: float
    """distance / max(len(y1), len(y2)), in [0, 1]."""
    similarity: float
    """Levenshtein.ratio: 1 - indel distance / (len(y1) + len(y2)), in [0, 1]."""
    copied: bool
    """y1 and y2 are equal after strip."""
    length_ratio: float
    """len(y2) / len(y1)."""
    first_divergence: int | None
    """Index of the first token in which the two sequences differ (the shorter's length if it is a prefix of the
    other); None when they are equal."""
    token_copy_rate: float
    """Share of y2's tokens that lie in blocks matching y1's tokens in order; 0.0 for an empty y2, which copies
    nothing."""


def edit(y1: str, y2: str, tokens1: Sequence[int], tokens2: Sequence[int]) -> Edit:
    """All edit metrics of (y1, y2), with the token ids of both under one tokenizer.

    Raises UserError for an empty y1 (its edit ratio does not exist) and for text whose tokens are missing.
    """
    if not y1:
        raise UserError("last='' has no edit ratio; drop and count rows with an empty last before measuring")
    for name, text, tokens in (("last", y1, tokens1), ("correction", y2, tokens2)):
        if text.strip() and not tokens:
            raise UserError(f"{name}={text[:40]!r} came with no tokens; pass its token ids")
    distance = Levenshtein.distance(y1, y2)
    return Edit(
        distance=distance,
        edit_ratio=distance / len(y1),
        norm_distance=distance / max(len(y1), len(y2)),
        similarity=Levenshtein.ratio(y1, y2),
        copied=y1.strip() == y2.strip(),
        length_ratio=len(y2) / len(y1),
        first_divergence=first_divergence(tokens1, tokens2),
        token_copy_rate=token_copy_rate(tokens1, tokens2),
    )


def first_divergence(tokens1: Sequence[int], tokens2: Sequence[int]) -> int | None:
    """Index of the first differing token, or None when the sequences are equal."""
    for i, (a, b) in enumerate(zip(tokens1, tokens2, strict=False)):
        if a != b:
            return i
    return None if len(tokens1) == len(tokens2) else min(len(tokens1), len(tokens2))


def token_copy_rate(tokens1: Sequence[int], tokens2: Sequence[int]) -> float:
    """Tokens of y2 in blocks matching y1 in order, over len(tokens2); the blocks are those of the edit alignment."""
    if not tokens2:
        return 0.0
    ops = Levenshtein.opcodes(list(tokens1), list(tokens2))
    return sum(b2 - b1 for tag, _, _, b1, b2 in ops if tag == "equal") / len(tokens2)
