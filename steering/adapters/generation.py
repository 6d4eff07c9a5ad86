"""Greedy generation with the same edits in any backend, token for token that of the lab's own decoder."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from corrector.decoding import Output, batches, check_request, decode, left_pad
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from steering.interventions.composition import Composition, Edit, compose
from steering.interventions.context import Start, Steered

Backend = Literal["torch", "transformer_lens", "nnsight"]
Generate = Callable[..., tuple[Tensor, Steered]]
"""(lm, ids, mask, steering, start, max_new_tokens, use_cache) -> tokens written [batch, new], and what was run."""
GENERATORS = {
    "transformer_lens": "steering.adapters.bridge:generate",
    "nnsight": "steering.adapters.traces:generate",
}


def generate_steered(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    edits: Sequence[Edit],
    *,
    max_new_tokens: int,
    backend: Backend = "torch",
    batch_size: int = 64,
    use_cache: bool = True,
) -> list[Output]:
    """Continue every prompt greedily under `edits`, through torch hooks, TransformerLens or nnsight.

    Every operator, span, site, head and gate goes through all three, and a row's coefficients are those of its index
    in `prompts`. The libraries run a copy that shares the model's weights, TransformerLens with eager attention, so
    the tokens are the same as torch's up to near ties of the logits. `use_cache` is for the libraries (torch always
    caches). Raises UserError for an unknown backend and for a model that carries hooks, and RuntimeError when the
    applications counted in a row are not those due.
    """
    steering = compose(edits)
    if backend == "torch":
        return decode(lm, prompts, max_new_tokens=max_new_tokens, steering=steering, batch_size=batch_size)
    if backend not in GENERATORS:
        raise UserError(
            f"backend={backend!r} is not one of torch, {', '.join(GENERATORS)}; choose --backend among them"
        )
    module, name = GENERATORS[backend].split(":")
    generate: Generate = getattr(importlib.import_module(module), name)
    check_request(lm, prompts, max_new_tokens, 0.0, None)
    outputs: dict[int, Output] = {}
    for rows in batches(prompts, batch_size):
        mine = [prompts[r] for r in rows]
        ids, mask, _ = left_pad([p.ids for p in mine], lm)
        with torch.no_grad():
            written, record = generate(
                lm, ids, mask, steering, _starter(steering, rows, mine), max_new_tokens, use_cache
            )
        for j, (r, p) in enumerate(zip(rows, mine, strict=True)):
            _check_applied(steering, j, r, [len(p) + k for k in range(record.forwards)], use_cache)
            outputs[r] = _cut(written[j].tolist(), lm.eos_id, steering, r, len(p))
    return [outputs[i] for i in range(len(prompts))]


def _starter(steering: Composition, rows: list[int], prompts: list[Encoded]) -> Start:
    """Begin with the prompts as they are known here, fields and all."""
    return lambda lengths: steering.begin(rows, prompts)


def _check_applied(steering: Composition, live: int, row: int, fed: list[int], use_cache: bool) -> None:
    """Applications in all that was fed; without a cache every forward feeds the sequence from its first token."""
    applied = int(steering.applied[live])
    due = steering.expected(row, fed[-1]) if use_cache else sum(steering.expected(row, n) for n in fed)
    if applied != due:
        raise RuntimeError(
            f"row {row}: the intervention was applied {applied} times where {due} were due in {len(fed)} forwards; "
            "the library's hooks do not reach the model's blocks as they should"
        )


def _cut(ids: list[int], eos_id: int, steering: Composition, row: int, n_prompt: int) -> Output:
    """What a row wrote before its end token, where the library generates on."""
    ended = eos_id in ids
    ids = ids[: ids.index(eos_id)] if ended else ids
    return Output(tuple(ids), ended, steering.expected(row, n_prompt + len(ids) - (not ended)))
