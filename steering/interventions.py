"""Write directions to the residual stream: per row in the lab's decoder, or as a context manager on any model."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corrector.errors import UserError
from corrector.models import blocks
from corrector.prompts import Encoded
from steering.operators import operator as operator_named
from steering.positions import Range, check_span, overlap, resolve
from steering.tracking import Tracker


@runtime_checkable
class LayerVectors(Protocol):
    """A vector for each of some layers, in natural units (`steering.vectors.SteeringVector`)."""

    @property
    def directions(self) -> Mapping[int, Any]: ...

    def at(self, layer: int) -> Tensor: ...


Vector = LayerVectors | Mapping[int, Tensor]


def make_bank(vectors: Sequence[Vector], layers: Sequence[int]) -> Float[Tensor, "n layers d"]:
    """Stack the vectors at `layers`, float32.

    Raises UserError for a layer that a vector lacks, and for one read at another site than `resid_post`, where
    interventions write.
    """
    rows = []
    for vector in vectors:
        if (site := getattr(vector, "site", "resid_post")) != "resid_post":
            raise UserError(f"the vector was read at site={site!r}; read it where it is written, at resid_post")
        have = sorted(vector.directions if isinstance(vector, LayerVectors) else vector)
        if missing := [layer for layer in layers if layer not in have]:
            raise UserError(f"layer={missing[0]} is not in the vector, which has {have}; choose --layers among them")
        at = vector.at if isinstance(vector, LayerVectors) else vector.__getitem__
        rows.append(torch.stack([at(layer).detach().float() for layer in layers]))
    return torch.stack(rows)


class Intervention:
    """Per-row steering: row r has h ← operator(h, bank[which[r]], coef[r]) at its span, after each of `layers`.

    Implements `corrector.decoding.Steering`. A row of coefficient 0 keeps its very bits and counts no application;
    others count one for each real position of the span and layer. `layers` name blocks from 0, and a vector is added
    to the block's output (site `resid_post`).

    Raises UserError for shapes that do not fit, coefficients that are not finite, unknown operators and spans,
    vectors that are zero or not finite, and (on `attach`) layers or sizes that the model has not.
    """

    def __init__(
        self,
        bank: Float[Tensor, "n layers d"],
        layers: Sequence[int],
        which: Sequence[int],
        coef: Sequence[float],
        operator: str = "add",
        span: str = "prompt_last",
    ) -> None:
        check_span(span)
        if len(layers) != bank.shape[1] or len(set(layers)) != len(layers) or not layers:
            raise UserError(f"layers={list(layers)} do not name the bank's {bank.shape[1]} layers once each")
        if len(which) != len(coef):
            raise UserError(f"{len(which)} directions for {len(coef)} coefficients; give one of each a row")
        if bad := [c for c in coef if not math.isfinite(c)]:
            raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
        if bad := [w for w in which if not 0 <= w < len(bank)]:
            raise UserError(f"which={bad[0]} not in 0..{len(bank) - 1}, the directions of the bank")
        norms = bank.float().norm(dim=-1)
        for w in sorted({w for w, c in zip(which, coef, strict=True) if c != 0}):
            for layer, norm in zip(layers, norms[w].tolist(), strict=True):
                if not 0 < norm < math.inf:
                    raise UserError(
                        f"direction {w} has norm {norm} at layer {layer}; give one that is finite and not 0"
                    )
        self.bank, self.layers, self.which, self.coef = bank, tuple(layers), tuple(which), tuple(coef)
        self.operator, self.span = operator_named(operator), span
        self.calls = 0
        self._before = 0
        self._applied = torch.zeros(0, dtype=torch.long)
        self._ranges: dict[int, list[Range]] = {}
        self._mask: Tensor | None = None

    @classmethod
    def of(
        cls,
        vector: Vector,
        coef: Sequence[float],
        layers: Sequence[int] | None = None,
        operator: str = "add",
        span: str = "prompt_last",
    ) -> Intervention:
        """One vector for every row, with a coefficient each; `layers` defaults to all that the vector has."""
        have = sorted(vector.directions if isinstance(vector, LayerVectors) else vector)
        chosen = have if layers is None else list(layers)
        return cls(make_bank([vector], chosen), chosen, [0] * len(coef), coef, operator, span)

    @property
    def total(self) -> int:
        """Applications of all rows in all batches so far."""
        return self._before + int(self._applied.sum())

    @property
    def applied(self) -> Int[Tensor, " live"]:
        """Applications (positions x layers) of each live row in this batch."""
        return self._applied

    @contextmanager
    def attach(self, model: Any) -> Generator[Intervention]:
        """Hooks on the model's blocks while the context lasts."""
        modules = blocks(model)
        for layer in self.layers:
            if not 0 <= layer < len(modules):
                raise UserError(f"layer={layer} not in 0..{len(modules) - 1}; choose --layers in that range")
        d = model.config.hidden_size
        if self.bank.shape[-1] != d:
            raise UserError(f"a vector of {self.bank.shape[-1]} numbers does not fit a model of hidden size {d}")
        with ExitStack() as handles:
            for place, layer in enumerate(self.layers):
                handles.callback(modules[layer].register_forward_hook(self._hook(place)).remove)
            yield self

    def begin(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        if bad := [r for r in rows if not 0 <= r < len(self.coef)]:
            raise UserError(f"row {bad[0]} has no coefficient; there are {len(self.coef)}, give one a prompt")
        ranges = [resolve(self.span, p.spans) for p in prompts]
        self._ranges = dict(zip(rows, ranges, strict=True))
        n = max([1, *map(len, ranges)])
        self._before = self.total
        padded = torch.tensor([[*r, *[(0, 0)] * (n - len(r))] for r in ranges])
        self._starts, self._ends = padded.unbind(-1)
        self._vectors = self.bank[[self.which[r] for r in rows]]
        self._coef = torch.tensor([self.coef[r] for r in rows], dtype=torch.float32)
        self._applied = torch.zeros(len(rows), dtype=torch.long)
        self._mask = None

    def forward(self, position_ids: Int[Tensor, "live seq"], real: Bool[Tensor, "live seq"]) -> None:
        device = position_ids.device
        if self._applied.device != device:
            for name in ("_starts", "_ends", "_vectors", "_coef", "_applied"):
                setattr(self, name, getattr(self, name).to(device))
        at = position_ids[..., None]
        inside = ((at >= self._starts[:, None]) & (at < self._ends[:, None])).any(-1)
        self._mask = inside & real & (self._coef != 0)[:, None]
        self._idle = not bool(self._mask.any())

    def keep(self, index: Int[Tensor, " kept"]) -> None:
        self._before = self.total - int(self._applied[index].sum())
        for name in ("_starts", "_ends", "_vectors", "_coef", "_applied"):
            setattr(self, name, getattr(self, name)[index])
        self._mask = None

    def expected(self, row: int, n_fed: int) -> int:
        return 0 if self.coef[row] == 0 else overlap(self._ranges[row], n_fed) * len(self.layers)

    def _hook(self, place: int) -> Any:
        def write(module: Any, args: Any, output: Any) -> Any:
            self.calls += 1
            h = output if isinstance(output, Tensor) else output[0]
            if self._mask is None or self._mask.shape != h.shape[:2]:
                got = None if self._mask is None else tuple(self._mask.shape)
                raise RuntimeError(
                    f"the model runs {tuple(h.shape[:2])} (rows, tokens) where the intervention was told of {got}; "
                    "call forward(position_ids, real) before each forward, or use steer(...)"
                )
            if self._idle:
                return None
            mask = self._mask.to(h.device)
            wide = h.to(torch.promote_types(h.dtype, torch.float32))
            vectors = self._vectors[:, place, None].to(wide)
            steered = self.operator(wide, vectors, self._coef[:, None, None].to(wide)).to(h.dtype)
            self._applied = self._applied + mask.sum(-1).to(self._applied.device)
            # where, not a product with the mask: unsteered positions keep their bits
            new = torch.where(mask[..., None], steered, h)
            return new if isinstance(output, Tensor) else (new, *output[1:])

        return write


@dataclass
class Steered:
    """What a `steer` block did so far: forwards of the model, and applications (tokens x layers)."""

    forwards: int = 0
    applied: int = 0


@contextmanager
def steer(
    model: Any,
    vector: Vector,
    coef: float = 1.0,
    layers: Sequence[int] | None = None,
    operator: str = "add",
    span: str = "prompt_last",
    prompt_lengths: Sequence[int] | None = None,
) -> Generator[Steered]:
    """Steer a bare Hugging Face model while the block lasts: plain forwards and `generate`, cached or not.

    Positions are absolute: they are read from the attention mask and the cache on the top module, so left padding
    and a cache change nothing. The prompt is what the first forward of a sequence feeds (its real tokens, row by
    row); a forward with a cache, or one whose `input_ids` begin with the prompt's, continues it, and any other starts
    a new one. Give `prompt_lengths` (real tokens, one a row) where that is not so, as in teacher forcing.

    On leaving, the model is as before. Leaving without an exception raises RuntimeError when forwards ran and the
    hooks never fired, and UserError when no token of any forward lay in the span: the block had no effect.
    """
    for name in ("question", "prefix", "last"):
        if name in span.split("+"):
            raise UserError(
                f"span={span!r} needs a prompt's fields; use decode(..., steering=Intervention(...)) instead"
            )
    intervention = Intervention.of(vector, [coef], layers, operator, span)
    record, tracker = Steered(), Tracker(prompt_lengths)

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        fed = tracker.read(module, args, kwargs)
        record.forwards += 1
        if fed.prompt_lengths is not None:
            intervention.begin([0] * len(fed.prompt_lengths), [_whole(n) for n in fed.prompt_lengths])
        intervention.forward(fed.positions, fed.real)

    with intervention.attach(model):
        handle = model.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield record
        finally:
            handle.remove()
            record.applied = intervention.total
    if coef == 0 or record.forwards == 0:
        return
    if intervention.calls == 0:
        raise RuntimeError(
            f"{record.forwards} forwards ran and no hook fired: the blocks that were hooked are not the ones that run"
        )
    if record.applied == 0:
        raise UserError(
            f"no token of the {record.forwards} forwards lay in span={span!r}, so nothing was steered; "
            "choose another span, or generate more tokens"
        )


def _whole(n: int) -> Encoded:
    """A prompt of which only the length is known."""
    return Encoded(tuple(range(n)), {"prompt": (0, n), "prompt_last": (n - 1, n)})
