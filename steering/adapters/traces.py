"""Steering through nnsight: the interventions run inside a traced generation."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from corrector.models import LanguageModel
from probes.backends.traces import _LOCAL, _LOCK, locate
from probes.sites import Side, first
from steering.interventions.composition import Composition
from steering.interventions.context import Start, Steered, follow
from steering.interventions.writes import Change, in_order, replaced

Place = tuple[Any, Side, Change]


def generate(
    lm: LanguageModel,
    ids: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    steering: Composition,
    start: Start,
    max_new_tokens: int,
    use_cache: bool = True,
) -> tuple[Int[Tensor, "batch new"], Steered]:
    """The generate of nnsight, greedy, until every row ended; the tokens written, and what was run."""
    with _LOCK:
        model = _LOCAL.of(lm)
        steering.check(lm.model)
        writes = in_order(steering.writes())
        located = locate(model, lm, [(w.site, w.layer) for w in writes])
        places: list[Place] = [(module, side, w.change) for (module, side), w in zip(located, writes, strict=True)]
        options = {
            "max_new_tokens": max_new_tokens,
            "do_sample": False,
            "use_cache": use_cache,
            "eos_token_id": lm.eos_id,
            "pad_token_id": lm.eos_id,
        }
        # The model inside is what sees the mask and the cache of every forward.
        with follow(model._module, steering, nullcontext(), start) as record, warnings.catch_warnings():
            # That the open loop over steps ends with the generation is meant.
            warnings.filterwarnings("ignore", message=".*was never reached", category=UserWarning)
            tokens = _trace(model, {"input_ids": ids, "attention_mask": mask.long()}, places, options)
    return tokens[:, ids.shape[1] :], record


def _trace(model: Any, inputs: dict[str, Tensor], places: list[Place], options: dict[str, Any]) -> Tensor:
    with model.generate(**options) as trace:
        with trace.invoke(inputs):
            for _ in trace.all():
                for module, side, change in places:
                    _replace(module, side, change)
        # Where all rows end early nothing behind the loop runs, so the result is of an invoke of its own.
        with trace.invoke():
            tokens = trace.result.save()
    return tokens


def _replace(module: Any, side: Side, change: Change) -> None:
    old = module.input if side == "input" else module.output
    new = change(first(old))
    if new is None:
        return
    if side == "input":
        module.input = new
    else:
        module.output = replaced(old, new)
