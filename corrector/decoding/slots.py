"""Keys and values of the live rows, where slot = absolute position: rows of any length side by side, without padding.

What a row was fed by mistake (a draft that was rejected) lies beyond its last position, is masked, and is overwritten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from corrector.decoding.windows import Window
from corrector.models import LanguageModel

ATTENTION = ("eager", "sdpa")
"""Attention implementations that take a four-dimensional mask."""
LAYER_TYPES = {"full_attention", "sliding_attention"}

Stored = list[tuple[Tensor, Tensor]]
"""Keys and values of one sequence, [heads, n, d_head] a layer."""


@dataclass
class Place:
    """Where the next forward writes, the same for every layer: which rows, at which slots, seen how far."""

    first: int = 0
    n: int = 0
    rows: Tensor | None = None
    slots: Tensor | None = None
    length: int = 0


class SlotLayer(CacheLayerMixin):
    """One layer's buffers [rows, heads, slots, d_head]; the last slot takes what padding writes."""

    def __init__(self, place: Place, n_rows: int, n_slots: int) -> None:
        super().__init__()
        self.place, self.n_rows, self.n_slots = place, n_rows, n_slots

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # zeros, not empty: a NaN in a masked slot would reach the output as 0 · NaN
        self.keys, self.values = (
            torch.zeros(self.n_rows, x.shape[1], self.n_slots, x.shape[-1], dtype=x.dtype, device=x.device)
            for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        p = self.place
        out: list[Tensor] = []
        for buffer, new in zip(self._buffers(), (key_states, value_states), strict=True):
            at = [cast(Tensor, index).to(new.device) for index in (p.rows, p.slots)]
            buffer[at[0], :, at[1]] = new.transpose(1, 2)
            out.append(buffer[p.first : p.first + p.n, :, : p.length])
        return out[0], out[1]

    def _buffers(self) -> tuple[Tensor, Tensor]:
        return cast(Tensor, self.keys), cast(Tensor, self.values)

    def grow(self, n_rows: int, n_slots: int) -> None:
        """At least so many rows and slots; what is there stays."""
        if n_rows <= self.n_rows and n_slots <= self.n_slots:
            return
        n_rows, n_slots = max(n_rows, self.n_rows), max(n_slots, self.n_slots)
        if self.is_initialized:
            old = self._buffers()
            self.n_rows, self.n_slots = n_rows, n_slots
            self.lazy_initialization(*old)
            for new, before in zip(self._buffers(), old, strict=True):
                new[: before.shape[0], :, : before.shape[2]] = before
        self.n_rows, self.n_slots = n_rows, n_slots

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Rows `source` into the places of rows `target`, their first `length` slots."""
        if self.is_initialized:
            for buffer in self._buffers():
                here, there = source.to(buffer.device), target.to(buffer.device)
                buffer[there, :, :length] = buffer[here, :, :length]

    def get_seq_length(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.place.length, 0

    def get_max_length(self) -> int:
        return -1


class Slots:
    """The cache of a decoder's live rows: rows 0..n-1 of the buffers, in the decoder's order."""

    def __init__(self, lm: LanguageModel) -> None:
        self.lm, self.place = lm, Place()
        self.layers = [SlotLayer(self.place, 0, 0) for _ in range(lm.n_layers)]
        self.cache = Cache(layers=list(self.layers))

    def reserve(self, n_rows: int, n_slots: int) -> None:
        """Room for so many rows of so many tokens; doubles at least, so that many small steps cost little."""
        rows, slots = self.layers[0].n_rows, self.layers[0].n_slots
        if n_rows > rows or n_slots + 1 > slots:
            rows = n_rows if n_rows <= rows else max(n_rows, 2 * rows)
            slots = n_slots + 1 if n_slots + 1 <= slots else max(n_slots + 1, 2 * slots)
            for layer in self.layers:
                layer.grow(rows, slots)

    def forward(self, first: int, w: Window) -> Float[Tensor, "fed logits vocab"]:
        """Feed rows first, first + 1, ...; logits of the window's last `n_logits` columns."""
        ids, positions, real, n_logits = w.ids, w.positions, w.real, w.n_logits
        n, place = len(ids), self.place
        place.first, place.n = first, n
        place.rows = torch.arange(first, first + n, device=ids.device)[:, None]
        place.slots = torch.where(real, positions, self.layers[0].n_slots - 1)
        place.length = int(positions.max()) + 1
        return self.lm.model(
            input_ids=ids,
            attention_mask=_masks(self.lm.model.config, positions, place.length, self.lm.model.dtype),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=n_logits,
        ).logits[:, -n_logits:]

    def move(self, source: list[int], target: list[int], length: int) -> None:
        """Rows `source` into the places of rows `target`."""
        if source:
            at = [torch.tensor(rows, device=self.lm.device) for rows in (source, target)]
            for layer in self.layers:
                layer.move(at[0], at[1], length)

    def read(self, row: int, n: int) -> Stored:
        """A copy of a row's first n slots."""
        return [(k[row, :, :n].clone(), v[row, :, :n].clone()) for k, v in self._all()]

    def write(self, first: int, n_rows: int, stored: Stored, n: int, n_below: int = 0) -> None:
        """The first n slots of a stored sequence into n_rows rows from `first` on, all its slots below `n_below`."""
        for i, ((keys, values), (k, v)) in enumerate(zip(self._all(stored), stored, strict=True)):
            end = k.shape[1] if i < n_below else n
            keys[first : first + n_rows, :, :end] = k[:, :end]
            values[first : first + n_rows, :, :end] = v[:, :end]

    def _all(self, like: Stored | None = None) -> list[tuple[Tensor, Tensor]]:
        for layer, kv in zip(self.layers, like or [None] * len(self.layers), strict=True):
            if not layer.is_initialized and kv is not None:
                layer.lazy_initialization(kv[0][None], kv[1][None])
        return [(cast(Tensor, layer.keys), cast(Tensor, layer.values)) for layer in self.layers]


def supported(config: Any) -> bool:
    """Whether the config says that masks over slots are all that its layers need."""
    types = set(getattr(config, "layer_types", None) or [])
    return types <= LAYER_TYPES and config._attn_implementation in ATTENTION


def _masks(config: Any, positions: Int[Tensor, "fed seq"], length: int, dtype: torch.dtype) -> Any:
    """Who sees whom: slot j is seen from position p where j <= p (and p - j < window in sliding layers)."""
    slots = torch.arange(length, device=positions.device)
    at = positions[:, None, :, None]
    full, near = slots <= at, getattr(config, "sliding_window", None)
    types = set(getattr(config, "layer_types", None) or [])
    if "sliding_attention" in types and near:
        sliding = full & (slots > at - near)
        return {
            "full_attention": _as_attention_takes(config, full, dtype),
            "sliding_attention": _as_attention_takes(config, sliding, dtype),
        }
    if not types and near:  # one mask for all layers, as in Mistral
        full = full & (slots > at - near)
    return _as_attention_takes(config, full, dtype)


def _as_attention_takes(config: Any, mask: Tensor, dtype: torch.dtype) -> Tensor:
    if config._attn_implementation == "sdpa":
        return mask
    return torch.zeros((), dtype=dtype, device=mask.device).where(mask, torch.finfo(dtype).min)
