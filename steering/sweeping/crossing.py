"""Every pair in every cell of a sweep, in one go: what cells have in common is computed once.

The cells of an item share its prompt and the blocks below the first steered one. What the unsteered corrector writes
is the draft of every cell; the forward that verifies it is teacher-forced on the unsteered tokens, so its logits also
give the divergence between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.decoding import PLAIN, Output, Tricks, decode, unfit
from corrector.decoding.scoring import divergence, kl_per_token
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.tasks.base import Pair, Task
from steering.interventions import Intervention, make_bank
from steering.sweeping.cells import Cell, Setting, prompts_of, row

BATCH = 128
"""Rows decoded together."""


@dataclass(frozen=True)
class Unsteered:
    """What the corrector does with some pairs by itself.

    `targets` are the very tokens it writes, with the end token where it wrote one (not the text encoded again: that
    can be other tokens, and text that a closed vocabulary lacks); `logits` predict each of them.
    """

    prompts: list[Encoded]
    outputs: list[Output]
    targets: list[tuple[int, ...]]
    logits: dict[int, Float[Tensor, "target vocab"]]
    tricks: Tricks
    """How the cells are to be decoded: plainly where no trick is wanted or the model cannot be served fast."""


def unsteered(
    lm: LanguageModel, task: Task, pairs: Sequence[Pair], batch_size: int = BATCH, tricks: Tricks | None = None
) -> Unsteered:
    """Correct the pairs without steering, and keep the logits of what is written."""
    prompts = prompts_of(lm, pairs)
    chosen = PLAIN if unfit(lm) else tricks or Tricks()
    outputs = decode(lm, prompts, max_new_tokens=task.max_sentence_tokens, batch_size=batch_size, tricks=chosen)
    targets = [(*o.ids, *[lm.eos_id] * o.ended) for o in outputs]
    logits: dict[int, Tensor] = {}
    if chosen == PLAIN:
        return Unsteered(prompts, outputs, targets, logits, chosen)
    decode(
        lm,
        prompts,
        max_new_tokens=task.max_sentence_tokens,
        drafts=targets,
        on_draft=lambda i, x: logits.update({i: x.clone()}),
        batch_size=batch_size,
        tricks=chosen,
    )
    return Unsteered(prompts, outputs, targets, logits, chosen)


def cross(
    lm: LanguageModel,
    task: Task,
    pairs: Sequence[Pair],
    cells: Sequence[Cell],
    setting: Setting,
    plain: Unsteered,
    batch_size: int = BATCH,
) -> list[list[dict[str, Any]]]:
    """Rows of every cell, [cell][item]: those of `steering.sweeping.cells.correct`, and `kl`.

    `kl`: mean over the unsteered tokens of KL(unsteered ‖ steered) in nats, teacher-forced on them; 0.0 for cells
    without a vector, None for prompt baselines, whose prompt is another.
    """
    found: dict[int, list[tuple[Output, float | None]]] = {}
    groups: dict[tuple[Any, ...], list[int]] = {}
    for c, cell in enumerate(cells):
        if cell.vector is not None:
            groups.setdefault((cell.layers or setting.layers, cell.origin is None), []).append(c)
        elif cell.instruction:
            prompts = prompts_of(lm, pairs, cell.instruction)
            outputs = decode(
                lm, prompts, max_new_tokens=task.max_sentence_tokens, batch_size=batch_size, tricks=plain.tricks
            )
            found[c] = [(output, None) for output in outputs]
        else:
            found[c] = [(output, 0.0) for output in plain.outputs]
    for (layers, _), members in groups.items():
        found |= _steered(lm, task, [cells[c] for c in members], members, layers, setting, plain, batch_size)
    return [
        [
            row(lm, task, cell, setting, i, pair, output) | {"kl": kl}
            for i, (pair, (output, kl)) in enumerate(zip(pairs, found[c], strict=True))
        ]
        for c, cell in enumerate(cells)
    ]


def joint(cells: Sequence[Cell], setting: Setting, n: int, layers: tuple[int, ...] = ()) -> Intervention | None:
    """One intervention for n items in every cell: row i·m + k is item i in cell k of m. None where no cell steers.

    The cells write at the same `layers` (by default the setting's); those without a vector leave their rows alone.
    """
    layers = layers or setting.layers
    vectors = [cell.vector for cell in cells if cell.vector is not None]
    if not vectors:
        return None
    origins = [cell.origin for cell in cells if cell.vector is not None and cell.origin is not None]
    which, coefs = list[int](), list[float | None]()
    for cell in cells:
        which.append(len([c for c in coefs if c is not None]) if cell.vector is not None else 0)
        coefs.append(None if cell.vector is None else cell.coef if cell.factor is None else cell.factor)
    return Intervention(
        make_bank(vectors, layers),
        layers,
        which * n,
        coefs * n,
        setting.operator,
        setting.span,
        gate=setting.gate,
        origin=torch.tensor(origins) if origins else None,
    )


def _steered(
    lm: LanguageModel,
    task: Task,
    cells: Sequence[Cell],
    names: Sequence[int],
    layers: tuple[int, ...],
    setting: Setting,
    plain: Unsteered,
    batch_size: int,
) -> dict[int, list[tuple[Output, float | None]]]:
    """Outputs and divergences of cells that write at the same layers; rows are item by item, so that prompts meet."""
    n, m = len(plain.prompts), len(cells)
    steering = joint(cells, setting, n, layers)
    assert steering is not None, "these cells have vectors"
    fast, kl = plain.tricks != PLAIN, dict[int, float]()
    prompts = [prompt for prompt in plain.prompts for _ in cells]
    targets = [target for target in plain.targets for _ in cells]

    def note(i: int, logits: Tensor) -> None:
        kl[i] = divergence(plain.logits[i // m], logits)

    outputs = decode(
        lm,
        prompts,
        max_new_tokens=task.max_sentence_tokens,
        steering=steering,
        drafts=targets,
        on_draft=note if fast else None,
        batch_size=batch_size,
        tricks=plain.tricks,
    )
    if not fast:
        kl = dict(enumerate(kl_per_token(lm, prompts, targets, steering)))
    # where nothing was written (a closed gate) no bit differs, and what divergence there is comes from other batches
    found = [(output, kl[j] if output.applied else 0.0) for j, output in enumerate(outputs)]
    return {name: [found[i * m + k] for i in range(n)] for k, name in enumerate(names)}
