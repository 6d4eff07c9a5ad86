"""What a backend is given and what it does: run one padded batch and hand over the tensor of every asked site."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from corrector.errors import UserError
from corrector.models import LanguageModel
from probes.sites import SITES, Site

Point = tuple[Site, int]
"""A site of a layer."""
Visit = Callable[[Site, int, Tensor], None]
"""Takes the tensor [batch, seq, d] of a site and layer; it may be overwritten afterwards, so what is kept is copied."""


@dataclass(frozen=True)
class Batch:
    """Padded ids; `offsets[i]` is the slot of row i's first token; positions count from it."""

    ids: Int[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    offsets: tuple[int, ...]

    def inputs(self) -> dict[str, Tensor]:
        """Arguments of a forward. Positions always go along: left padding shifts absolute ones where a model counts."""
        return {"input_ids": self.ids, "attention_mask": self.mask.long(), "position_ids": self.positions}


Backend = Callable[[LanguageModel, Batch, list[Point], Visit], None]
"""Runs the batch and calls `visit` once for every wanted point, in any order; runs no further than it needs."""


def pad(rows: list[tuple[int, ...]], padding: str, device: torch.device) -> Batch:
    """Pad rows to one length, on the left or right; padding is token 0, masked, and its positions are 0."""
    if padding not in ("left", "right"):
        raise UserError(f"padding={padding!r} is not left or right; choose --padding among them")
    width = max(len(row) for row in rows)
    offsets = tuple(width - len(row) if padding == "left" else 0 for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (row, offset) in enumerate(zip(rows, offsets, strict=True)):
        ids[i, offset : offset + len(row)] = torch.tensor(row)
        mask[i, offset : offset + len(row)] = True
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    positions[~mask] = 0
    return Batch(ids.to(device), mask.to(device), positions.to(device), offsets)


def in_order(wanted: Iterable[Point]) -> list[Point]:
    """The points in the order in which a forward computes them."""
    return sorted(wanted, key=lambda point: (point[1], SITES.index(point[0])))


class Countdown:
    """Hands values on to `visit` and raises `stop` after the last of n, since the rest of the forward is not needed."""

    def __init__(self, n: int, visit: Visit, stop: Callable[[Tensor], Exception]) -> None:
        self.left, self.visit, self.stop = n, visit, stop

    def read(self, site: Site, layer: int, h: Tensor) -> None:
        """What the hook of one point calls."""
        self.visit(site, layer, h)
        self.left -= 1
        if self.left == 0:
            raise self.stop(h)
