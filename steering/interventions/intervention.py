"""One direction's intervention: an operator on the rows of a batch, each with its own coefficient, at a span."""

from __future__ import annotations

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
from steering.interventions.banks import Coef, Vector, check_norms, coefficients, layers_of, make_bank
from steering.interventions.gates import Gate
from steering.interventions.positions import END, Range, check_span, overlap, resolve
from steering.interventions.states import RowsState, joined, rows_state
from steering.interventions.writes import Write, check_places, hooked
from steering.operators import IDENTITY_AT_ZERO
from steering.operators import operator as operator_named


class Intervention:
    """Per-row steering: row r has h ← operator(h, bank[which[r]], coef[r]) at its span, in each of `layers`.

    Implements `corrector.decoding.LiveSteering`. `layers` name blocks from 0, and h is what stands at `site` of a block
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
        self.values, self.coef = coefficients(coef)
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
        check_norms(bank, layers, {w for w, on in zip(which, self.active, strict=True) if on})
        self.calls, self.reached = 0, False
        """Hooks fired so far, and whether any token of a span was met, before its gate."""
        self._before = 0
        self._state: RowsState = {"applied": torch.zeros(0, dtype=torch.long)}
        self._fed, self._fired = slice(0, 0), 0
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
        self._before, self._ranges, self._opened = self.total, {}, {}
        self._state = self._rows_state([], [])
        self.admit(rows, prompts)

    def admit(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        """More rows behind the live ones; rows below 0 are left alone."""
        if not self.shared and (bad := [r for r in rows if r >= len(self.coef)]):
            raise UserError(f"row {bad[0]} has no coefficient; there are {len(self.coef)}, give one a prompt")
        self._state, self._mask = joined(self._state, self._rows_state(rows, prompts)), None

    def _rows_state(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> RowsState:
        """What is known of rows as they begin, one entry a row."""
        ranges = [resolve(self.span, p.spans) for p in prompts]
        self._ranges |= dict(zip(rows, ranges, strict=True))
        self._opened |= {r: set[int]() for r in rows}
        at = [0 if self.shared or r < 0 else r for r in rows]
        which = [self.which[i] for i in at]
        return rows_state(
            rows,
            prompts,
            ranges,
            vectors=self.bank[which],
            coef=self.values.reshape(-1)[at],
            origin=torch.zeros(len(at), len(self.layers)) if self._origin is None else self._origin[which],
            active=torch.tensor([r >= 0 and self.active[i] for r, i in zip(rows, at, strict=True)], dtype=torch.bool),
        )

    def forward(self, position_ids: Int[Tensor, "fed seq"], real: Bool[Tensor, "fed seq"], first: int = 0) -> None:
        self._state = {name: t.to(position_ids.device) for name, t in self._state.items()}
        self._fed, self._fired = slice(first, first + len(position_ids)), 0
        s, at = self._now(), position_ids[..., None]
        inside = ((at >= s["starts"][:, None]) & (at < s["ends"][:, None])).any(-1)
        self._set_mask(inside & real & s["active"][:, None])
        self.reached = self.reached or not self._idle
        self._positions, self._real, self._undecided = position_ids, real, self.gate is not None

    def pass_by(self, position_ids: Int[Tensor, "fed seq"]) -> None:
        """The next forward feeds rows that are not this intervention's: its hooks do nothing."""
        self._set_mask(torch.zeros_like(position_ids, dtype=torch.bool))
        self._undecided = False

    def _now(self) -> RowsState:
        """The state of the rows that are fed."""
        return {name: t[self._fed] for name, t in self._state.items()}

    def _note(self, **now: Tensor) -> None:
        """New values of the rows that are fed."""
        for name, value in now.items():
            whole = self._state[name].clone()
            whole[self._fed] = value
            self._state[name] = whole

    def retract(self, n_fed: Int[Tensor, " fed"]) -> None:
        """Take back what the last forward applied at positions n_fed and beyond, one number a row it fed."""
        if self._mask is None or self._idle:
            return
        back = self._mask & (self._positions >= n_fed[:, None])
        if bool(back.any()):
            self._note(applied=self._now()["applied"] - back.sum(-1) * self._fired)
            for i, j in back.nonzero().tolist() if self.gate is not None else []:
                self._opened[int(self._now()["row"][i])].discard(int(self._positions[i, j]))

    @property
    def n_below(self) -> int:
        """Blocks that give the same whatever this does: those up to the first that is written to or read."""
        places = [(self.site, min(self.layers)), *([(self.gate.site, self.gate.layer)] if self.gate else [])]
        return min(layer + (site == "resid_post") for site, layer in places)

    def reach(self, row: int, prompt: Encoded) -> int:
        """First position that is written to, or read by the gate."""
        if row < 0 or not self.active[0 if self.shared else row]:
            return END
        starts = [start for start, _ in resolve(self.span, prompt.spans)]
        read = [prompt.spans["prompt"][1] - 1] if self.gate is not None and self.gate.when == "prompt_last" else []
        return min([*starts, *read], default=END)

    def keep(self, index: Int[Tensor, " kept"]) -> None:
        self._before = self.total - int(self._state["applied"][index].sum())
        self._state = {name: t[index] for name, t in self._state.items()}
        self._mask = None

    def expected(self, row: int, n_fed: int) -> int:
        """Applications due; with a gate, of the positions that it opened."""
        if row < 0 or not self.active[0 if self.shared else row]:
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
        mask = self._told(h)
        if not self._undecided:
            return
        s = self._now()
        fires = gate.fires(h).to(mask.device)
        if gate.when == "prompt_last":
            here = (self._positions == s["last"][:, None]) & self._real
            new = here.any(-1) & ~s["decided"]
            s["open"], s["decided"] = torch.where(new, (fires & here).any(-1), s["open"]), s["decided"] | new
            self._note(open=s["open"], decided=s["decided"])
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
        told = self._told(h)
        mask = told.to(h.device)  # of a model on several devices another one than the tokens'
        if self._undecided:
            raise RuntimeError("the gate's condition was not read in this forward: its hook did not fire")
        if self._idle:
            return None
        s = self._now()
        width = self.bank.shape[-1]
        start = 0 if self.head is None else self.head * width
        part = h[..., start : start + width]
        wide = part.to(torch.promote_types(h.dtype, torch.float32))
        steered = self._steer(place, wide, s).to(h.dtype)
        self._note(applied=s["applied"] + told.sum(-1).to(s["applied"].device))
        self._fired += 1
        # where, not a product with the mask: unsteered positions keep their bits
        part = torch.where(mask[..., None], steered, part)
        return torch.cat([h[..., :start], part, h[..., start + width :]], -1) if self.head is not None else part

    def _steer(self, place: int, h: Tensor, s: dict[str, Tensor]) -> Tensor:
        """What h [rows, tokens, width] at a layer becomes, at every token; s is the state of its rows."""
        vectors, coef = s["vectors"][:, place, None].to(h), s["coef"][:, None, None].to(h)
        origin = () if self._origin is None else (s["origin"][:, place, None, None].to(h),)
        return self._operate(h, vectors, coef, *origin)
