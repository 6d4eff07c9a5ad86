"""One direction's intervention: an operator on the rows of a batch, each with its own coefficient, at a span."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corrector.errors import UserError
from corrector.prompts import Encoded
from probes.sites import Site, check_site
from steering.interventions.banks import Vector, layers_of, make_bank
from steering.interventions.gates import Gate
from steering.interventions.writes import Write, check_places, hooked
from steering.operators import IDENTITY_AT_ZERO
from steering.operators import operator as operator_named
from steering.positions import Range, check_span, overlap, resolve

Coef = float | Sequence[float | None] | Tensor
"""One coefficient for all rows (a number or a tensor []), or one a row (None: the row is left alone)."""


class Intervention:
    """Per-row steering: row r has h ← operator(h, bank[which[r]], coef[r]) at its span, in each of `layers`.

    Implements `corrector.decoding.Steering`. `layers` name blocks from 0, and h is what stands at `site` of a block
    (its output, `resid_post`, by default); `head` narrows site `z` to one head's d_head numbers. A row whose
    coefficient is None keeps its very bits and counts no application, and so does one of coefficient 0 where the
    operator is then the identity; others count one for each real position of the span and layer. `gate` closes
    positions or rows, which count none. `origin` [n, layers] is that of `clamp`. New tensors are written, which are
    differentiable in `bank` and in a tensor `coef` (at 0 as well, where it requires a gradient).

    Raises UserError for shapes that do not fit, coefficients that are not finite, unknown operators, sites and spans,
    vectors that are zero or not finite, and (on `attach`) layers, heads or sizes that the model has not.
    """

    def __init__(
        self,
        bank: Float[Tensor, "n layers d"],
        layers: Sequence[int],
        which: Sequence[int],
        coef: Coef,
        operator: str = "add",
        span: str = "prompt_last",
        *,
        site: str = "resid_post",
        head: int | None = None,
        gate: Gate | None = None,
        origin: Float[Tensor, "n layers"] | None = None,
    ) -> None:
        check_span(span)
        self.values, self.coef = _coefficients(coef)
        self.shared = self.values.ndim == 0
        """One coefficient for whatever rows there are."""
        if len(layers) != bank.shape[1] or len(set(layers)) != len(layers) or not layers:
            raise UserError(f"layers={list(layers)} do not name the bank's {bank.shape[1]} layers once each")
        if len(which) != len(self.coef):
            raise UserError(f"{len(which)} directions for {len(self.coef)} coefficients; give one of each a row")
        if bad := [w for w in which if not 0 <= w < len(bank)]:
            raise UserError(f"which={bad[0]} not in 0..{len(bank) - 1}, the directions of the bank")
        if head is not None and site != "z":
            raise UserError(f"head={head} is of site z, and site={site!r}; choose --site z, or no head")
        if origin is not None and operator != "clamp":
            raise UserError(f"origin is clamp's, and operator={operator!r}; leave it out")
        if gate is not None:
            gate.check_before(site, tuple(layers))
        self.bank, self.layers, self.which = bank, tuple(layers), tuple(which)
        self.operator, self.span, self.head, self.gate = operator, span, head, gate
        self.site: Site = check_site(site)
        self._operate, self._origin = operator_named(operator), origin
        learned = isinstance(coef, Tensor) and coef.requires_grad
        at_zero = learned or operator not in IDENTITY_AT_ZERO
        self.active = tuple(c is not None and (c != 0 or at_zero) for c in self.coef)
        """Of each row, whether it is steered."""
        _check_norms(bank, layers, {w for w, on in zip(which, self.active, strict=True) if on})
        self.calls, self.reached = 0, False
        """Hooks fired so far, and whether any token of a span was met, before its gate."""
        self._before = 0
        self._state: dict[str, Tensor] = {"applied": torch.zeros(0, dtype=torch.long)}
        self._ranges: dict[int, list[Range]] = {}
        self._opened: dict[int, set[int]] = {}
        self._mask: Tensor | None = None

    @classmethod
    def of(
        cls,
        vector: Vector,
        coef: Coef,
        layers: Sequence[int] | None = None,
        operator: str = "add",
        span: str = "prompt_last",
        *,
        site: str = "resid_post",
        head: int | None = None,
        gate: Gate | None = None,
        origin: Sequence[float] | None = None,
    ) -> Intervention:
        """One vector for every row; `layers` defaults to all that the vector has, `origin` is one number a layer."""
        chosen = layers_of(vector) if layers is None else list(layers)
        n = 1 if isinstance(coef, float | int) else coef.numel() if isinstance(coef, Tensor) else len(coef)
        bank = make_bank([vector], chosen, site)
        origins = None if origin is None else torch.tensor([list(origin)], dtype=torch.float32)
        return cls(bank, chosen, [0] * n, coef, operator, span, site=site, head=head, gate=gate, origin=origins)

    @property
    def total(self) -> int:
        """Applications of all rows in all batches so far."""
        return self._before + int(self._state["applied"].sum())

    @property
    def applied(self) -> Int[Tensor, " live"]:
        """Applications (positions x layers) of each live row in this batch."""
        return self._state["applied"]

    def writes(self) -> list[Write]:
        """What is done where, for any library that can replace activations: the gate's reading first."""
        gate = self.gate
        read = [] if gate is None else [Write(check_site(gate.site), gate.layer, partial(self._decide, gate))]
        return [*read, *(Write(self.site, k, partial(self._write, i)) for i, k in enumerate(self.layers))]

    def check(self, model: Any) -> None:
        """Raise UserError where this does not fit the model."""
        check_places(model, self.site, self.layers, self.bank.shape[-1], self.head)
        if self.gate is not None:
            check_places(model, self.gate.site, [self.gate.layer], len(self.gate.vector))

    @contextmanager
    def attach(self, model: Any) -> Generator[Intervention]:
        """Hooks on the model's blocks while the context lasts."""
        self.check(model)
        with hooked(model, self.writes()):
            yield self

    def begin(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        if not self.shared and (bad := [r for r in rows if not 0 <= r < len(self.coef)]):
            raise UserError(f"row {bad[0]} has no coefficient; there are {len(self.coef)}, give one a prompt")
        ranges = [resolve(self.span, p.spans) for p in prompts]
        self._ranges = dict(zip(rows, ranges, strict=True))
        self._opened = {r: set() for r in rows}
        self._before, n = self.total, max([1, *map(len, ranges)])
        padded = torch.tensor([[*r, *[(0, 0)] * (n - len(r))] for r in ranges])
        at = [0 if self.shared else r for r in rows]
        which = [self.which[i] for i in at]
        origin = torch.zeros(len(at), len(self.layers)) if self._origin is None else self._origin[which]
        self._state = {
            "row": torch.tensor(list(rows)),
            "starts": padded[..., 0],
            "ends": padded[..., 1],
            "last": torch.tensor([p.spans["prompt"][1] - 1 for p in prompts]),
            "vectors": self.bank[which],
            "coef": self.values.reshape(-1)[at],
            "origin": origin,
            "active": torch.tensor([self.active[i] for i in at]),
            "applied": torch.zeros(len(at), dtype=torch.long),
            "decided": torch.zeros(len(at), dtype=torch.bool),
            "open": torch.zeros(len(at), dtype=torch.bool),
        }
        self._mask = None

    def forward(self, position_ids: Int[Tensor, "live seq"], real: Bool[Tensor, "live seq"]) -> None:
        s = self._state = {name: t.to(position_ids.device) for name, t in self._state.items()}
        at = position_ids[..., None]
        inside = ((at >= s["starts"][:, None]) & (at < s["ends"][:, None])).any(-1)
        self._set_mask(inside & real & s["active"][:, None])
        self.reached = self.reached or not self._idle
        self._positions, self._real, self._undecided = position_ids, real, self.gate is not None

    def keep(self, index: Int[Tensor, " kept"]) -> None:
        self._before = self.total - int(self._state["applied"][index].sum())
        self._state = {name: t[index] for name, t in self._state.items()}
        self._mask = None

    def expected(self, row: int, n_fed: int) -> int:
        """Applications due; with a gate, of the positions that it opened."""
        if not self.active[0 if self.shared else row]:
            return 0
        if self.gate is not None:
            return sum(p < n_fed for p in self._opened[row]) * len(self.layers)
        return overlap(self._ranges[row], n_fed) * len(self.layers)

    def _set_mask(self, mask: Tensor) -> None:
        self._mask, self._idle = mask, not bool(mask.any())

    def _told(self, h: Tensor) -> Tensor:
        """The mask of this forward."""
        if self._mask is None or self._mask.shape != h.shape[:2]:
            got = None if self._mask is None else tuple(self._mask.shape)
            raise RuntimeError(
                f"the model runs {tuple(h.shape[:2])} (rows, tokens) where the intervention was told of {got}; "
                "call forward(position_ids, real) before each forward, or use steer(...)"
            )
        return self._mask

    def _decide(self, gate: Gate, h: Tensor) -> None:
        """Take from the mask what the gate closes, and note which positions it opens."""
        mask, s = self._told(h), self._state
        fires = gate.fires(h).to(mask.device)
        if gate.when == "prompt_last":
            here = (self._positions == s["last"][:, None]) & self._real
            new = here.any(-1) & ~s["decided"]
            s["open"], s["decided"] = torch.where(new, (fires & here).any(-1), s["open"]), s["decided"] | new
            if bool((mask & ~s["decided"][:, None]).any()):
                raise RuntimeError(
                    "a token is to be steered before its prompt's last token, at which the gate decides, was fed; "
                    "feed prompts whole, or gate by token"
                )
            fires = s["open"][:, None]
        self._set_mask(mask & fires)
        self._undecided = False
        if not self._idle:
            for i, j in (mask & fires).nonzero().tolist():
                self._opened[int(s["row"][i])].add(int(self._positions[i, j]))

    def _write(self, place: int, h: Tensor) -> Tensor | None:
        self.calls += 1
        mask, s = self._told(h).to(h.device), self._state
        if self._undecided:
            raise RuntimeError("the gate's condition was not read in this forward: its hook did not fire")
        if self._idle:
            return None
        width = self.bank.shape[-1]
        start = 0 if self.head is None else self.head * width
        part = h[..., start : start + width]
        wide = part.to(torch.promote_types(h.dtype, torch.float32))
        vectors, coef = s["vectors"][:, place, None].to(wide), s["coef"][:, None, None].to(wide)
        origin = () if self._origin is None else (s["origin"][:, place, None, None].to(wide),)
        steered = self._operate(wide, vectors, coef, *origin).to(h.dtype)
        s["applied"] = s["applied"] + mask.sum(-1).to(s["applied"].device)
        # where, not a product with the mask: unsteered positions keep their bits
        part = torch.where(mask[..., None], steered, part)
        return torch.cat([h[..., :start], part, h[..., start + width :]], -1) if self.head is not None else part


def _coefficients(coef: Coef) -> tuple[Tensor, tuple[float | None, ...]]:
    """As a tensor ([] or [rows], 0 for None), and one a row as numbers (a single one where all share it)."""
    if isinstance(coef, Tensor):
        if coef.ndim > 1:
            raise UserError(f"coef of shape {tuple(coef.shape)} is neither one number nor one a row")
        values, given = coef, tuple(coef.detach().reshape(-1).tolist())
    else:
        given = (coef,) if isinstance(coef, float | int) else tuple(coef)
        filled = [0.0 if c is None else c for c in given]
        values = torch.tensor(filled[0] if isinstance(coef, float | int) else filled, dtype=torch.float64)
    if bad := [c for c in given if c is not None and not math.isfinite(c)]:
        raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
    return values, given


def _check_norms(bank: Tensor, layers: Sequence[int], used: set[int]) -> None:
    norms = bank.detach().float().norm(dim=-1)
    for w in sorted(used):
        for layer, norm in zip(layers, norms[w].tolist(), strict=True):
            if not 0 < norm < math.inf:
                raise UserError(f"direction {w} has norm {norm} at layer {layer}; give one that is finite and not 0")
