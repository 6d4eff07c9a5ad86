"""Capture activations: the residual stream of many sequences, reduced to one vector an item and layer.

A backend is a function that runs one padded batch and hands over the tensor of every asked site (`probes.backends`);
batching, spans, reduction and the count of what was handed over are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.memory import capturing, check_fits
from corrector.models import DTYPES, LanguageModel
from probes import backends, reductions
from probes.backends import Backend, Batch, Point, pad
from probes.backends.hooks import hooked
from probes.reductions import Range, Reducer, Reduction
from probes.sites import Site, by_head, check_site, site_width
from probes.spans import Sequence, resolve_span, sequence

__all__ = [
    "Activations",
    "Batch",
    "Sequence",
    "by_head",
    "capture",
    "capture_all",
    "capture_tokens",
    "hooked",
    "sequence",
]

Padding = Literal["left", "right"]
Storage = Literal["float32", "float16", "bfloat16"]
"""What captured numbers are kept as; means are taken in float32 before."""


@dataclass(frozen=True)
class Activations:
    """Activations at one site and span: `h[item, layer]` on the CPU; `ids` are the items' problem ids.

    `h` is float32 unless a capture was asked for float16 or bfloat16, which halve the memory; `at` always computes
    in float32. d is the model's width, or n_heads x d_head at site `z` (see `by_head`).
    """

    h: Float[Tensor, "item layer d"]
    layers: tuple[int, ...]
    site: str
    span: str
    ids: tuple[str, ...]

    def at(self, layer: int) -> Float[Tensor, "item d"]:
        """One layer's activations as float32; UserError where that layer was not captured."""
        if layer not in self.layers:
            raise UserError(f"layer={layer} not among the captured {list(self.layers)}; capture it first")
        return self.h[:, self.layers.index(layer)].float()

    def mean_norm(self, layer: int) -> float:
        """The mean over items of ‖h‖ at a layer: the unit of a dose."""
        return float(self.at(layer).norm(dim=-1).mean())


def capture(
    lm: LanguageModel,
    sequences: list[Sequence],
    site: Site = "resid_post",
    layers: list[int] | None = None,
    span: str = "prompt_last",
    reduction: Reduction = "mean",
    batch_size: int = 32,
    padding: Padding = "right",
    backend: str | Backend = "torch",
    dtype: Storage = "float32",
) -> Activations:
    """Activations [item, layer, d] of one site, each item reduced over its span: its mean, or its last token.

    `layers` counts blocks from 0 (None: all). `backend` is `torch`, `transformer_lens`, `nnsight` or a function (see
    `probes.backends`). Raises UserError for an unknown site, layer, backend or dtype, an empty or unknown span (naming
    the item), no sequences, a model in training mode, whose dropout would be read as signal, and numbers that float16
    cannot hold.
    """
    out = capture_all(lm, sequences, (site,), layers, (span,), reduction, batch_size, padding, backend, dtype)
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
    backend: str | Backend = "torch",
    dtype: Storage = "float32",
    progress: str = "capture",
) -> dict[tuple[str, str], Activations]:
    """Several sites and spans in one pass: `out[site, span]`, each as `capture` gives it; `progress` names the bar."""
    run = _Run(lm, sequences, sites, layers, spans, batch_size, padding, backend, dtype, progress)
    reduce, ids = reductions.get(reduction), tuple(s.problem for s in sequences)
    run.check_memory(len(ids))
    out: dict[tuple[str, str], Tensor] = {}
    for items, found in run.read(reduce):
        for key, h in found.items():
            if key not in out:
                out[key] = torch.empty(len(ids), *h.shape[1:], dtype=h.dtype)
            out[key][items] = h
    return {(site, span): Activations(h, run.layers, site, span, ids) for (site, span), h in out.items()}


def capture_tokens(
    lm: LanguageModel,
    sequences: list[Sequence],
    site: Site = "resid_post",
    layers: list[int] | None = None,
    span: str = "output",
    batch_size: int = 32,
    padding: Padding = "right",
    backend: str | Backend = "torch",
    dtype: Storage = "float32",
) -> list[Float[Tensor, "layer token d"]]:
    """All tokens of each item's span, not reduced: a ragged list of [layer, token, d]. Raises as `capture`."""
    run = _Run(lm, sequences, (site,), layers, (span,), batch_size, padding, backend, dtype, "capture")
    out: dict[int, Tensor] = {}
    run.check_memory(sum(end - start for of in run.ranges for start, end in of.values()))
    for items, found in run.read(reductions.every):
        lengths = [end - start for start, end in (run.ranges[i][span] for i in items)]
        parts = found[site, span].split(lengths)
        out.update({i: part.transpose(0, 1).contiguous() for i, part in zip(items, parts, strict=True)})
    return [out[i] for i in range(len(sequences))]


class _Run:
    """A capture that was checked and waits to be read."""

    def __init__(
        self,
        lm: LanguageModel,
        sequences: list[Sequence],
        sites: tuple[Site, ...],
        layers: list[int] | None,
        spans: tuple[str, ...],
        batch_size: int,
        padding: Padding,
        backend: str | Backend,
        dtype: Storage,
        progress: str,
    ) -> None:
        if not sequences:
            raise UserError("no sequences to capture; give at least one")
        if lm.model.training:
            raise UserError("the model is in training mode, so dropout may be on; call model.eval() before a capture")
        for name, given in (("sites", sites), ("spans", spans)):
            if not given or len(set(given)) < len(given):
                raise UserError(f"{name}={given} is empty or names one twice; name each once")
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is below 1; choose 1 or more")
        self.lm, self.spans, self.layers = lm, spans, check_layers(lm, layers)
        self.sites: tuple[Site, ...] = tuple(check_site(site) for site in sites)
        self.backend, self.dtype = backends.get(backend), check_dtype(dtype)
        self.batch_size, self.padding, self.progress = batch_size, padding, progress
        self.ranges = [{span: range_of(s, i, span) for span in spans} for i, s in enumerate(sequences)]
        # Attention is causal, so nothing behind the last token that is read can matter.
        self._rows = [s.ids[: max(b for _, b in r.values())] for s, r in zip(sequences, self.ranges, strict=True)]

    def check_memory(self, n_vectors: int) -> None:
        """Raise UserError where so many vectors a layer, and the forward of the longest batch, will not fit."""
        d = max(site_width(self.lm.model.config.get_text_config(), site) for site in self.sites)
        a_vector = len(self.layers) * len(self.sites) * len(self.spans) * d
        rows, longest = min(self.batch_size, len(self._rows)), max(map(len, self._rows))
        need = capturing(self.lm, n_vectors, a_vector, rows, longest, self.dtype.itemsize)
        cure = f"batch_size below {self.batch_size}, fewer layers or spans, dtype='float16', or stream by capture_to"
        check_fits(need, [*self.lm.devices, torch.device("cpu")], cure)

    def read(
        self, reduction: Callable[[Batch, list[Range]], Reducer]
    ) -> Iterator[tuple[list[int], dict[tuple[str, str], Tensor]]]:
        """Batches of items of like length: their indices, and for each (site, span) what was reduced, [:, layer, d]."""
        order = sorted(range(len(self._rows)), key=lambda i: len(self._rows[i]))
        starts = range(0, len(order), self.batch_size)
        device = self.lm.device
        for at in tqdm(starts, desc=self.progress, delay=2, leave=False, disable=None if self.progress else True):
            items = order[at : at + self.batch_size]
            batch = pad([self._rows[i] for i in items], self.padding, device)
            reducers = {span: reduction(batch, [self.ranges[i][span] for i in items]) for span in self.spans}
            seen = self._forward(batch, reducers)
            yield items, {key: self._stored(key[0], h) for key, h in seen.items()}

    @torch.no_grad()  # not on `read`: around a generator that a decorator has wrapped it would cover nothing
    def _forward(self, batch: Batch, reducers: dict[str, Reducer]) -> dict[tuple[str, str], list[Tensor]]:
        """What each (site, span) is at every layer, in the order of `layers`, left on its device."""
        seen: dict[Point, dict[str, Tensor]] = {}
        wanted: list[Point] = [(site, layer) for layer in self.layers for site in self.sites]
        self.backend(self.lm, batch, wanted, partial(_keep, seen, reducers, tuple(batch.ids.shape)))
        if missing := [point for point in wanted if point not in seen]:
            raise RuntimeError(
                f"capture read {len(seen)} of {len(wanted)} (site, layer), not {missing[0]}; a hook did not fire"
            )
        return {
            (site, span): [seen[site, layer][span] for layer in self.layers]
            for site in self.sites
            for span in self.spans
        }

    def _stored(self, site: str, layers: list[Tensor]) -> Tensor:
        h = torch.stack([h.cpu() for h in layers], dim=1)
        out = h.to(self.dtype)
        if self.dtype == torch.float16 and bool((out.isinf() & h.isfinite()).any()):
            largest = float(h[h.isfinite()].abs().max())
            raise UserError(
                f"{site} reaches {largest:.3g}, more than float16 holds; choose --dtype bfloat16 or float32"
            )
        return out


def _keep(
    seen: dict[Point, dict[str, Tensor]],
    reducers: dict[str, Reducer],
    shape: tuple[int, ...],
    site: Site,
    layer: int,
    h: Tensor,
) -> None:
    """Reduce what a backend hands over, and see that it is what it should be."""
    if h.shape[:2] != shape:
        raise RuntimeError(f"{site} of layer {layer} has shape {tuple(h.shape)}, not {(*shape, 'd')}")
    if (site, layer) in seen:
        raise RuntimeError(f"{site} of layer {layer} was handed over twice in one forward")
    seen[site, layer] = {span: reduce(h) for span, reduce in reducers.items()}


def check_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a storage name; UserError names the ones there are."""
    known = ("float32", "float16", "bfloat16")
    if dtype not in known:
        raise UserError(f"dtype={dtype!r} is not one of {', '.join(known)}; choose --dtype among them")
    return DTYPES[dtype]


def check_layers(lm: LanguageModel, layers: list[int] | None) -> tuple[int, ...]:
    """The layers themselves, all where None; UserError where one is not in the model, or named twice."""
    if layers is None:
        return tuple(range(lm.n_layers))
    for layer in layers:
        if not 0 <= layer < lm.n_layers:
            raise UserError(f"layer={layer} not in 0..{lm.n_layers - 1}; choose --layers in that range")
    if not layers or len(set(layers)) < len(layers):
        raise UserError(f"layers={layers} is empty or names a layer twice; name each layer once")
    return tuple(layers)


def range_of(s: Sequence, i: int, span: str) -> Range:
    """The tokens of a span; UserError names item i where it is unknown or empty."""
    try:
        return resolve_span(s.spans, span)
    except UserError as error:
        raise UserError(f"item {i} (problem {s.problem!r}): {error}") from error
