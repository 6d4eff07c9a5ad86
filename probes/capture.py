"""Capture activations: the residual stream of many sequences, reduced to one vector an item and layer.

A backend is a function that runs one padded batch and hands over the tensor of every asked site; batching, spans,
reduction and the count of what was handed over are the same for all backends. `hooked` is the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel, blocks
from probes.sites import Site, check_site, read_hook
from probes.spans import Sequence, resolve_span, sequence

__all__ = ["Activations", "Batch", "Sequence", "capture", "capture_all", "capture_tokens", "hooked", "sequence"]

Reduction = Literal["mean", "last"]
Padding = Literal["left", "right"]
Visit = Callable[[Site, int, Tensor], None]


@dataclass(frozen=True)
class Activations:
    """Activations at one site and span: `h[item, layer]`, float32 on the CPU; `ids` are the items' problem ids."""

    h: Float[Tensor, "item layer d"]
    layers: tuple[int, ...]
    site: str
    span: str
    ids: tuple[str, ...]

    def at(self, layer: int) -> Float[Tensor, "item d"]:
        """One layer's activations; UserError where that layer was not captured."""
        if layer not in self.layers:
            raise UserError(f"layer={layer} not among the captured {list(self.layers)}; capture it first")
        return self.h[:, self.layers.index(layer)]

    def mean_norm(self, layer: int) -> float:
        """The mean over items of ‖h‖ at a layer: the unit of a dose."""
        return float(self.at(layer).norm(dim=-1).mean())


@dataclass(frozen=True)
class Batch:
    """Padded ids; `offsets[i]` is the slot of row i's first token; positions count from it."""

    ids: Int[Tensor, "batch seq"]
    mask: Bool[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    offsets: tuple[int, ...]


Backend = Callable[[LanguageModel, Batch, list[tuple[Site, int]], Visit], None]


class _Enough(Exception):
    """Everything asked for has been read; the rest of the forward is not needed."""


def hooked(lm: LanguageModel, batch: Batch, wanted: list[tuple[Site, int]], visit: Visit) -> None:
    """Run a batch under forward hooks, call `visit(site, layer, h)` for each, stop after the last one needed."""
    left = len(wanted)

    def reader(site: Site, layer: int) -> Callable[[Tensor], None]:
        def read(h: Tensor) -> None:
            nonlocal left
            visit(site, layer, h)
            left -= 1
            if left == 0:
                raise _Enough

        return read

    decoder = blocks(lm.model)
    handles = [read_hook(decoder[layer], site, reader(site, layer)) for site, layer in wanted]
    try:
        # The base model has no output head, and the early stop makes a cache useless.
        lm.model.base_model(
            input_ids=batch.ids, attention_mask=batch.mask.long(), position_ids=batch.positions, use_cache=False
        )
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


def capture(
    lm: LanguageModel,
    sequences: list[Sequence],
    site: Site = "resid_post",
    layers: list[int] | None = None,
    span: str = "prompt_last",
    reduction: Reduction = "mean",
    batch_size: int = 32,
    padding: Padding = "right",
    backend: Backend = hooked,
) -> Activations:
    """Activations [item, layer, d] of one site, each item reduced over its span: its mean, or its last token.

    `layers` counts blocks from 0 (None: all). Raises UserError for an unknown site or layer, an empty or unknown span
    (naming the item), no sequences, or a model in training mode, whose dropout would be read as signal.
    """
    out = capture_all(lm, sequences, (site,), layers, (span,), reduction, batch_size, padding, backend)
    return out[site, span]


def capture_all(
    lm: LanguageModel,
    sequences: list[Sequence],
    sites: tuple[Site, ...] = ("resid_post",),
    layers: list[int] | None = None,
    spans: tuple[str, ...] = ("prompt_last",),
    reduction: Reduction = "mean",
    batch_size: int = 32,
    padding: Padding = "right",
    backend: Backend = hooked,
) -> dict[tuple[str, str], Activations]:
    """Several sites and spans in one pass: `out[site, span]`, each as `capture` gives it."""
    tokens = _read(lm, sequences, sites, layers, spans, batch_size, padding, backend, _REDUCE[reduction])
    chosen, ids = _layers(lm, layers), tuple(s.problem for s in sequences)
    return {
        (site, span): Activations(
            torch.stack([torch.stack([tokens[i, site, span, k] for k in chosen]) for i in range(len(sequences))]),
            chosen,
            site,
            span,
            ids,
        )
        for site in sites
        for span in spans
    }


def capture_tokens(
    lm: LanguageModel,
    sequences: list[Sequence],
    site: Site = "resid_post",
    layers: list[int] | None = None,
    span: str = "output",
    batch_size: int = 32,
    padding: Padding = "right",
    backend: Backend = hooked,
) -> list[Float[Tensor, "layer token d"]]:
    """All tokens of each item's span, not reduced: a ragged list of float32 [layer, token, d]. Raises as `capture`."""
    tokens = _read(lm, sequences, (site,), layers, (span,), batch_size, padding, backend, lambda h: h)
    chosen = _layers(lm, layers)
    return [torch.stack([tokens[i, site, span, k] for k in chosen]) for i in range(len(sequences))]


_REDUCE: dict[str, Callable[[Tensor], Tensor]] = {"mean": lambda h: h.mean(0), "last": lambda h: h[-1]}


@torch.no_grad()
def _read(
    lm: LanguageModel,
    sequences: list[Sequence],
    sites: tuple[Site, ...],
    layers: list[int] | None,
    spans: tuple[str, ...],
    batch_size: int,
    padding: Padding,
    backend: Backend,
    reduce: Callable[[Tensor], Tensor],
) -> dict[tuple[int, str, str, int], Tensor]:
    """The reduced tensor of every (item, site, span, layer)."""
    if not sequences:
        raise UserError("no sequences to capture; give at least one")
    if lm.model.training:
        raise UserError("the model is in training mode, so dropout may be on; call model.eval() before a capture")
    ranges = [{span: _range(s, i, span) for span in spans} for i, s in enumerate(sequences)]
    # Attention is causal, so nothing behind the last token that is read can matter.
    rows = [s.ids[: max(end for _, end in r.values())] for s, r in zip(sequences, ranges, strict=True)]
    wanted: list[tuple[Site, int]] = [(check_site(site), layer) for layer in _layers(lm, layers) for site in sites]
    out: dict[tuple[int, str, str, int], Tensor] = {}

    def keep(items: list[int], batch: Batch, site: Site, layer: int, h: Tensor) -> None:
        if h.shape[:2] != batch.ids.shape:
            raise RuntimeError(f"{site} of layer {layer} has shape {tuple(h.shape)}, not {(*batch.ids.shape, 'd')}")
        for slot, (i, offset) in enumerate(zip(items, batch.offsets, strict=True)):
            for span, (start, end) in ranges[i].items():
                if (i, site, span, layer) in out:
                    raise RuntimeError(f"{site} of layer {layer} was handed over twice for item {i}")
                part = h[slot, offset + start : offset + end].to("cpu", torch.float32)
                out[i, site, span, layer] = reduce(part).clone()

    for items, batch in _batches(rows, batch_size, padding, lm):
        backend(lm, batch, wanted, partial(keep, items, batch))
    expected = len(sequences) * len(wanted) * len(spans)
    if len(out) != expected:
        raise RuntimeError(f"capture read {len(out)} of {expected} (item, site, layer, span); a hook did not fire")
    return out


def _range(s: Sequence, i: int, span: str) -> tuple[int, int]:
    try:
        return resolve_span(s.spans, span)
    except UserError as error:
        raise UserError(f"item {i} (problem {s.problem!r}): {error}") from error


def _layers(lm: LanguageModel, layers: list[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(lm.n_layers))
    for layer in layers:
        if not 0 <= layer < lm.n_layers:
            raise UserError(f"layer={layer} not in 0..{lm.n_layers - 1}; choose --layers in that range")
    if not layers or len(set(layers)) < len(layers):
        raise UserError(f"layers={layers} is empty or names a layer twice; name each layer once")
    return tuple(layers)


def _batches(
    rows: list[tuple[int, ...]], batch_size: int, padding: Padding, lm: LanguageModel
) -> Iterator[tuple[list[int], Batch]]:
    """Batches of rows of like length, with the indices of their items."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for at in tqdm(range(0, len(order), batch_size), desc="capture", delay=2, leave=False, disable=None):
        items = order[at : at + batch_size]
        yield items, pad([rows[i] for i in items], padding, lm.device)


def pad(rows: list[tuple[int, ...]], padding: Padding, device: torch.device) -> Batch:
    """Pad rows to one length; padding is token 0, masked, and its positions are 0."""
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
