"""What work costs: tokens that pass through a model, and seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from corrector.errors import UserError
from corrector.models import LanguageModel


@dataclass
class Cost:
    """Seconds, and the tokens fed to each model (padding and rejected drafts too, as they cost the same)."""

    seconds: float = 0.0
    tokens: list[int] = field(default_factory=list)


@contextmanager
def metered(models: Sequence[LanguageModel]) -> Generator[Cost]:
    """Measure what is done within: CPU seconds of this process, or wall seconds where a model is on an accelerator.

    Raises UserError for one model given twice, whose tokens could not be told apart.
    """
    if len({id(lm.model) for lm in models}) != len(models):
        raise UserError("one model was given twice to be measured, so its tokens cannot be told apart; load it again")
    cost = Cost(tokens=[0] * len(models))
    clock, settle = _clock(models)
    with ExitStack() as stack:
        for i, lm in enumerate(models):
            hook = lm.model.register_forward_pre_hook(_counter(cost, i), with_kwargs=True)
            stack.callback(hook.remove)
        settle()
        began = clock()
        yield cost
        settle()
        cost.seconds = clock() - began


def _counter(cost: Cost, i: int) -> Callable[..., None]:
    def count(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        cost.tokens[i] += int(ids.numel())

    return count


def _clock(models: Sequence[LanguageModel]) -> tuple[Callable[[], float], Callable[[], None]]:
    if any(lm.device.type == "cuda" for lm in models):
        return time.perf_counter, torch.cuda.synchronize
    if any(lm.device.type == "mps" for lm in models):
        return time.perf_counter, torch.mps.synchronize
    return time.process_time, lambda: None
