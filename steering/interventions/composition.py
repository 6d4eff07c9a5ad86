"""Several vectors in one context: a list of edits for all rows, or one edit a row."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from corrector.errors import UserError
from corrector.prompts import Encoded
from steering.interventions.banks import Coef, Vector, layers_of, make_bank
from steering.interventions.gates import Gate
from steering.interventions.intervention import Intervention
from steering.interventions.writes import Write


@dataclass(frozen=True, eq=False)
class Edit:
    """One vector and how it is written."""

    vector: Vector
    """A direction for each of some layers, in natural units."""
    coef: Coef = 1.0
    """One for all rows, or one a row (None: the row is left alone)."""
    layers: Sequence[int] | None = None
    """Blocks written to, each with its own direction; None: all that the vector has."""
    operator: str = "add"
    """add, ablate, clamp or rotate (`steering.operators`)."""
    span: str = "prompt_last"
    """Tokens written to; the phases are the spans prompt, output and all (`steering.interventions.positions`)."""
    site: str = "resid_post"
    """What of a block is written."""
    head: int | None = None
    """With site z: only this head's d_head numbers."""
    gate: Gate | None = None
    """Where it acts at all; None: everywhere."""
    origin: Sequence[float] | None = None
    """Of clamp: the projection that coefficient 0 sets, one number a layer; None: 0."""

    def intervention(self) -> Intervention:
        """What the decoder runs."""
        return Intervention.of(
            self.vector,
            self.coef,
            self.layers,
            self.operator,
            self.span,
            site=self.site,
            head=self.head,
            gate=self.gate,
            origin=self.origin,
        )


class Composition:
    """Interventions that act together; at one place in the order of the list, each on what the one before left.

    Implements `corrector.decoding.LiveSteering`; applications are the sum of its parts'. A gate reads what the parts
    before it have written.
    """

    def __init__(self, parts: Sequence[Intervention]) -> None:
        if not parts:
            raise UserError("nothing to steer with: the list of edits is empty; give at least one")
        self.parts = tuple(parts)

    @property
    def applied(self) -> Int[Tensor, " live"]:
        return torch.stack([p.applied for p in self.parts]).sum(0)

    @property
    def total(self) -> int:
        """Applications of all parts and rows in all batches so far."""
        return sum(p.total for p in self.parts)

    def writes(self) -> list[Write]:
        """What is done where, in the order of the parts."""
        return [write for p in self.parts for write in p.writes()]

    def check(self, model: Any) -> None:
        """Raise UserError where a part does not fit the model."""
        for p in self.parts:
            p.check(model)

    @contextmanager
    def attach(self, model: Any) -> Generator[Composition]:
        """Hooks of all parts while the context lasts."""
        with ExitStack() as stack:
            for p in self.parts:
                stack.enter_context(p.attach(model))
            yield self

    def begin(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        for p in self.parts:
            p.begin(rows, prompts)

    def admit(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        for p in self.parts:
            p.admit(rows, prompts)

    def forward(self, position_ids: Int[Tensor, "fed seq"], real: Bool[Tensor, "fed seq"], first: int = 0) -> None:
        for p in self.parts:
            p.forward(position_ids, real, first)

    def pass_by(self, position_ids: Int[Tensor, "fed seq"]) -> None:
        for p in self.parts:
            p.pass_by(position_ids)

    @property
    def n_below(self) -> int:
        return min(p.n_below for p in self.parts)

    def retract(self, n_fed: Int[Tensor, " fed"]) -> None:
        for p in self.parts:
            p.retract(n_fed)

    def reach(self, row: int, prompt: Encoded) -> int:
        return min(p.reach(row, prompt) for p in self.parts)

    def keep(self, index: Int[Tensor, " kept"]) -> None:
        for p in self.parts:
            p.keep(index)

    def expected(self, row: int, n_fed: int) -> int:
        return sum(p.expected(row, n_fed) for p in self.parts)


def compose(edits: Sequence[Edit]) -> Composition:
    """Every edit on every row."""
    return Composition([edit.intervention() for edit in edits])


def one_per_row(edits: Sequence[Edit | None]) -> Composition:
    """Row i has edits[i] alone (None: it is left alone), whatever operators, layers and spans they name.

    Edits that differ in vector and coefficient only share their hooks. Raises UserError for an edit whose coefficient
    is not a single number, and where no row has an edit.
    """
    groups: dict[Any, list[int]] = {}
    for i, edit in enumerate(edits):
        if edit is None:
            continue
        if not isinstance(edit.coef, float | int):
            raise UserError(f"the edit of row {i} has several coefficients; give each row's edit one number")
        layers = tuple(layers_of(edit.vector) if edit.layers is None else edit.layers)
        key = (layers, edit.operator, edit.span, edit.site, edit.head, edit.gate, edit.origin is None)
        groups.setdefault(key, []).append(i)
    parts: list[Intervention] = []
    for (layers, operator, span, site, head, gate, no_origin), rows in groups.items():
        mine = [edit for i in rows if (edit := edits[i]) is not None]
        coef: list[float | None] = [None] * len(edits)
        which = [0] * len(edits)
        for k, (i, edit) in enumerate(zip(rows, mine, strict=True)):
            coef[i], which[i] = float(edit.coef), k  # type: ignore[arg-type]
        bank = make_bank([edit.vector for edit in mine], layers, site)
        origin = None if no_origin else torch.tensor([list(edit.origin or ()) for edit in mine])
        parts.append(
            Intervention(bank, layers, which, coef, operator, span, site=site, head=head, gate=gate, origin=origin)
        )
    return Composition(parts)
