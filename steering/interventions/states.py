"""The live rows of an intervention as tensors, one entry a row, so that rows can join, leave and change places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from corrector.prompts import Encoded
from steering.interventions.positions import Range

RowsState = dict[str, Tensor]


def rows_state(
    rows: Sequence[int], prompts: Sequence[Encoded], ranges: Sequence[Sequence[Range]], **given: Tensor
) -> RowsState:
    """Rows as they begin: where they are steered (`starts`, `ends`, empty ranges as 0, 0), and what is counted."""
    n = max([1, *map(len, ranges)])
    padded = torch.tensor([[*r, *[(0, 0)] * (n - len(r))] for r in ranges], dtype=torch.long).reshape(-1, n, 2)
    return {
        **given,
        "row": torch.tensor(list(rows), dtype=torch.long),
        "starts": padded[..., 0],
        "ends": padded[..., 1],
        "last": torch.tensor([p.spans["prompt"][1] - 1 for p in prompts], dtype=torch.long),
        "applied": torch.zeros(len(rows), dtype=torch.long),
        "decided": torch.zeros(len(rows), dtype=torch.bool),
        "open": torch.zeros(len(rows), dtype=torch.bool),
    }


def joined(old: RowsState, new: RowsState) -> RowsState:
    """The rows of both, the old ones first."""
    if not len(old["row"]):
        return new
    return {name: torch.cat(_same_width(old[name], t.to(old[name].device))) for name, t in new.items()}


def _same_width(old: Tensor, new: Tensor) -> list[Tensor]:
    """Both, the narrower of two that hold ranges widened by empty ones."""
    if old.ndim != 2 or old.shape[1] == new.shape[1]:
        return [old, new]
    n = max(old.shape[1], new.shape[1])
    return [pad(t, (0, n - t.shape[1])) for t in (old, new)]
