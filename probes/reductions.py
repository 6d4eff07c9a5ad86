"""From a batch's hidden states to what is kept of each row: its last token, its mean, or every token of a span.

One gather a span, whatever the number of rows, so that a capture costs little beside the forward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from corrector.errors import UserError
from probes.backends import Batch

Range = tuple[int, int]
"""First token of a span and the one behind its last, counted from the row's own first token."""
Reducer = Callable[[Tensor], Tensor]
Reduction = Literal["mean", "last"]


def last(batch: Batch, ranges: list[Range]) -> Reducer:
    """[batch, seq, d] -> [batch, d]: the last token of each row's range."""
    at = torch.tensor([offset + end - 1 for offset, (_, end) in zip(batch.offsets, ranges, strict=True)])
    rows = torch.arange(len(ranges))
    return lambda h: h[rows.to(h.device), at.to(h.device)].float()


def mean(batch: Batch, ranges: list[Range]) -> Reducer:
    """[batch, seq, d] -> [batch, d]: the mean over each row's range, in float32."""
    lengths = torch.tensor([end - start for start, end in ranges])
    if int(lengths.max()) == 1:
        return last(batch, ranges)
    starts = torch.tensor([offset + start for offset, (start, _) in zip(batch.offsets, ranges, strict=True)])
    steps = torch.arange(int(lengths.max()))
    # Short ranges repeat their last token at weight 0: what lies outside may be anything, NaN too.
    at = starts[:, None] + torch.minimum(steps, lengths[:, None] - 1)
    weights = (steps < lengths[:, None]).float() / lengths[:, None]
    rows = torch.arange(len(ranges))[:, None]
    return lambda h: torch.einsum("bn,bnd->bd", weights.to(h.device), h[rows.to(h.device), at.to(h.device)].float())


def every(batch: Batch, ranges: list[Range]) -> Reducer:
    """[batch, seq, d] -> [token, d]: all tokens of all rows' ranges, one row after the other, on the CPU."""
    spans = [(offset + start, offset + end) for offset, (start, end) in zip(batch.offsets, ranges, strict=True)]
    width = batch.ids.shape[1]
    at = torch.cat([torch.arange(row * width + start, row * width + end) for row, (start, end) in enumerate(spans)])
    return lambda h: h.flatten(0, 1)[at.to(h.device)].float().cpu()


def get(reduction: str) -> Callable[[Batch, list[Range]], Reducer]:
    """`mean` or `last` by name; UserError for another."""
    known = {"mean": mean, "last": last}
    if reduction not in known:
        raise UserError(f"reduction={reduction!r} is not one of {', '.join(known)}; choose --reduction among them")
    return known[reduction]
