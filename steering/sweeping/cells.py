"""One cell of a sweep: the same pairs corrected under one setting, one row an item."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from corrector.decoding import Output, decode
from corrector.decoding.scoring import kl_per_token
from corrector.metrics import edit
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.tasks.base import Pair, Task
from steering.interventions import Gate, Intervention, Vector, make_bank
from steering.operators import IDENTITY_AT_ZERO
from steering.sweeping.collapse import collapse


@dataclass(frozen=True)
class Setting:
    """How a vector is written: after which blocks, at which span, by which operator, and where a `gate` lets it."""

    layers: tuple[int, ...]
    span: str
    operator: str = "add"
    gate: Gate | None = None


@dataclass(frozen=True)
class Cell:
    """One setting of a sweep: a direction by name, its vector (None: unsteered) and a coefficient.

    `layers` are where the vector is written, where these are not the setting's own. `factor` is what multiplies the
    vector (None: `coef` itself), where coefficients are in another unit than multiples of the vector. `dose` is
    |coef|·‖v‖ / mean‖h‖ (None: not known). `instruction` is put behind every question, as prompt baselines have it.
    `origin` is that of `clamp`, a number for each layer.
    """

    direction: str
    coef: float
    vector: Vector | None = None
    layers: tuple[int, ...] | None = None
    factor: float | None = None
    dose: float | None = None
    instruction: str = ""
    origin: tuple[float, ...] | None = None


def intervention(cell: Cell, setting: Setting, n: int) -> Intervention | None:
    """The cell's intervention on n rows; None for a cell without a vector."""
    if cell.vector is None:
        return None
    layers = cell.layers or setting.layers
    bank = make_bank([cell.vector], layers)
    coef = cell.coef if cell.factor is None else cell.factor
    origin = None if cell.origin is None else torch.tensor([cell.origin])
    return Intervention(
        bank, layers, [0] * n, [coef] * n, setting.operator, setting.span, gate=setting.gate, origin=origin
    )


def is_unsteered(cell: Cell, setting: Setting) -> bool:
    """Whether the cell leaves the model and its prompts alone, as coefficient 0 does of all operators but clamp."""
    acts = cell.vector is not None and (cell.coef != 0 or setting.operator not in IDENTITY_AT_ZERO)
    return not acts and not cell.instruction


def prompts_of(lm: LanguageModel, pairs: Sequence[Pair], instruction: str = "") -> list[Encoded]:
    """The pairs' prompts, with the instruction behind the question."""
    tail = f" {instruction}" if instruction else ""
    return [lm.encode(p.question + tail, p.prefix, p.last) for p in pairs]


def correct(
    lm: LanguageModel, task: Task, pairs: Sequence[Pair], cell: Cell, setting: Setting, batch_size: int = 64
) -> list[dict[str, Any]]:
    """Correct every pair in one cell; a row has the texts, all edit metrics, the labels and `applied`, but no `kl`.

    Behind a gate it has `opened` as well: whether anything was written (None where the cell writes nothing).
    `question` is the pair's own, also where the cell puts an instruction behind it.
    """
    outputs = decode(
        lm,
        prompts_of(lm, pairs, cell.instruction),
        max_new_tokens=task.max_sentence_tokens,
        steering=intervention(cell, setting, len(pairs)),
        batch_size=batch_size,
    )
    return [
        row(lm, task, cell, setting, i, pair, output)
        for i, (pair, output) in enumerate(zip(pairs, outputs, strict=True))
    ]


def row(
    lm: LanguageModel, task: Task, cell: Cell, setting: Setting, item: int, pair: Pair, output: Output
) -> dict[str, Any]:
    """The row of one pair in one cell: see `correct`."""
    correction = lm.decode(list(output.ids))
    formed = task.well_formed(pair, correction)
    opened = None if cell.vector is None else output.applied > 0
    edited = edit(pair.last, correction, lm.encode_target(pair.last)[:-1], list(output.ids))
    return {
        "task": task.name,
        "coef": cell.coef,
        "direction": cell.direction,
        "layers": list(cell.layers or setting.layers),
        "span": setting.span,
        "item": item,
        "problem": pair.problem,
        "question": pair.question,
        "prefix": pair.prefix,
        "last": pair.last,
        "correction": correction,
        **{name: getattr(edited, name) for name in edited.__dataclass_fields__},
        "is_wrong": pair.is_wrong,
        "is_right_after": task.is_right(pair, correction),
        "well_formed": formed,
        "ended": output.ended,
        "kind": pair.kind,
        "badness": pair.badness,
        "applied": output.applied,
        **({} if setting.gate is None else {"opened": opened}),
        "dose": 0.0 if is_unsteered(cell, setting) else cell.dose,
        "collapse": collapse(correction, output.ended, formed),
    }


def unsteered_tokens(lm: LanguageModel, task: Task, pairs: Sequence[Pair], batch_size: int = 64) -> list[list[int]]:
    """The very tokens that the unsteered corrector writes, with the end token where it wrote one.

    Not the text encoded again: that can be other tokens, and text that a closed vocabulary lacks.
    """
    outputs = decode(lm, prompts_of(lm, pairs), max_new_tokens=task.max_sentence_tokens, batch_size=batch_size)
    return [[*output.ids, *[lm.eos_id] * output.ended] for output in outputs]


def with_kl(
    lm: LanguageModel,
    pairs: Sequence[Pair],
    rows: list[dict[str, Any]],
    unsteered: Sequence[Sequence[int]],
    cell: Cell,
    setting: Setting,
) -> list[dict[str, Any]]:
    """Add `kl`: nats a token of KL(unsteered ‖ steered), teacher-forced on the tokens of `unsteered_tokens`.

    None for a prompt baseline, whose prompt is another. For many cells at once see `steering.sweeping.crossing`.
    """
    steering = intervention(cell, setting, len(pairs))
    if steering is None:
        return [{**row, "kl": None if cell.instruction else 0.0} for row in rows]
    kl = kl_per_token(lm, prompts_of(lm, pairs), unsteered, steering)
    return [{**row, "kl": value} for row, value in zip(rows, kl, strict=True)]


def mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    """Mean of a column that no row lacks."""
    return statistics.fmean(float(row[name]) for row in rows)
