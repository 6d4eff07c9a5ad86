"""Absolute positions of what a bare model is fed, read from the arguments of its forwards."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from corrector.errors import UserError


@dataclass(frozen=True)
class Fed:
    """One forward: each slot's absolute position, whether it is real, and, where a prompt starts, its lengths."""

    positions: Int[Tensor, "batch seq"]
    real: Bool[Tensor, "batch seq"]
    prompt_lengths: tuple[int, ...] | None


class Tracker:
    """Follows prompts through the forwards of one model.

    A forward starts a prompt when its cache is empty, unless its `input_ids` begin with the running prompt's (that
    is generation without a cache). Raises UserError for what cannot be followed: a mask that is not two-dimensional,
    a cache that was filled before, rows that left inside a generation.
    """

    def __init__(self, prompt_lengths: Sequence[int] | None = None) -> None:
        self._given = None if prompt_lengths is None else tuple(prompt_lengths)
        self._prompt: Tensor | None = None
        self._n_rows: int | None = None

    def read(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Fed:
        """The forward `module(*args, **kwargs)` that is about to run."""
        given = inspect.signature(module.forward).bind_partial(*args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        ids, embeds = given.get("input_ids"), given.get("inputs_embeds")
        fed = ids if ids is not None else embeds
        if fed is None:
            raise UserError("the model was given neither input_ids nor inputs_embeds, so nothing can be steered")
        cache = given.get("past_key_values")
        n_cached = 0 if cache is None else int(cache.get_seq_length())
        rows, n = fed.shape[:2]
        mask = _mask(given.get("attention_mask"), rows, n_cached + n, fed.device)
        real = mask[:, n_cached:]
        positions = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, n_cached:]
        if given.get("attention_mask") is None and given.get("position_ids") is not None:
            positions = given["position_ids"].expand(rows, n)
        return Fed(positions, real, self._start(ids, real, rows, n_cached))

    def _start(self, ids: Tensor | None, real: Tensor, rows: int, n_cached: int) -> tuple[int, ...] | None:
        """Lengths of the prompts that start here; None where running ones go on."""
        if self._given is not None and len(self._given) != rows:
            raise UserError(f"prompt_lengths has {len(self._given)} numbers for {rows} rows; give one a row")
        if n_cached and self._n_rows is None and self._given is None:
            raise UserError(
                f"the first forward of the block continues a cache of {n_cached} tokens; "
                "start the sequence inside the block, or give prompt_lengths"
            )
        if n_cached and self._n_rows is not None and rows != self._n_rows:
            raise UserError(
                f"a generation of {self._n_rows} rows goes on with {rows}; where rows leave the batch use "
                "decode(..., steering=Intervention(...))"
            )
        if self._n_rows == rows and (n_cached or self._continues(ids)):
            return None
        self._prompt, self._n_rows = ids, rows
        return self._given or tuple(int(k) for k in real.sum(-1).tolist())

    def _continues(self, ids: Tensor | None) -> bool:
        before = self._prompt
        if ids is None or before is None or ids.shape[1] <= before.shape[1]:
            return False
        return torch.equal(ids[:, : before.shape[1]], before)


def _mask(mask: Any, rows: int, n_slots: int, device: torch.device) -> Tensor:
    if mask is None:
        return torch.ones(rows, n_slots, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or tuple(mask.shape) != (rows, n_slots):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise UserError(
            f"attention_mask {shape} is not the ({rows}, {n_slots}) rows x slots that steer reads; for the lab's own "
            "decoding use decode(..., steering=Intervention(...))"
        )
    return mask.to(device).bool()
