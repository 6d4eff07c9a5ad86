"""What one forward is fed: stretches of several rows, aligned where their logits begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corrector.memory import LOGITS_HELD

PADDING = 1.25
"""Rows are fed together as long as padding them to one length costs no more than this."""


@dataclass(frozen=True)
class Stretch:
    """Tokens of one row from an absolute position on; logits are wanted from token `at` on."""

    start: int
    tokens: tuple[int, ...]
    at: int


@dataclass(frozen=True)
class Window:
    """Stretches as tensors; `left[i]` columns of padding stand before row i."""

    ids: Int[Tensor, "fed seq"]
    positions: Int[Tensor, "fed seq"]
    real: Bool[Tensor, "fed seq"]
    n_logits: int
    left: tuple[int, ...]

    def align(self, parts: Sequence[Float[Tensor, "_ d"]]) -> Float[Tensor, "fed seq d"]:
        """What is known of every token, put where the tokens stand; 0 in the padding."""
        out = parts[0].new_zeros(*self.ids.shape, parts[0].shape[-1])
        for i, (part, left) in enumerate(zip(parts, self.left, strict=True)):
            out[i, left : left + len(part)] = part
        return out


def window(stretches: Sequence[Stretch], pad_id: int, device: torch.device) -> Window:
    """Stretches side by side, with their `at`-th tokens in one column."""
    before = max(s.at for s in stretches)
    after = max(len(s.tokens) - s.at for s in stretches)
    width = before + after
    ids, positions, real = ([[x] * width for _ in stretches] for x in (pad_id, 0, False))
    for i, s in enumerate(stretches):
        here = slice(before - s.at, before - s.at + len(s.tokens))
        ids[i][here] = s.tokens
        positions[i][here] = range(s.start, s.start + len(s.tokens))
        real[i][here] = [True] * len(s.tokens)
    left = tuple(before - s.at for s in stretches)
    as_tensor = partial(torch.tensor, device=device)
    return Window(as_tensor(ids), as_tensor(positions), as_tensor(real), after, left)


def runs(lengths: Sequence[int], n_logits: int, n_vocabulary: int, step: float) -> list[tuple[int, int]]:
    """Cut rows, sorted by length, into runs that are fed together: padded at little cost, with few enough logits.

    `step` is what a forward costs of itself, in tokens.
    """
    most = max(1, LOGITS_HELD // (max(n_logits, 1) * n_vocabulary))
    out: list[tuple[int, int]] = []
    start, total = 0, 0
    for i, n in enumerate(lengths):
        padded = n * (i - start + 1)
        if i > start and (padded > PADDING * (total + n) + step or i - start >= most):
            out.append((start, i))
            start, total = i, 0
        total += n
    return [*out, (start, len(lengths))] if lengths else []
