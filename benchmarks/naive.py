"""The align loop without the lab: all rows in step, both models by HF generate, every prompt encoded anew each round.

`whole` is the paper's released pipeline: the upstream writes its answer to the end and all but the first sentence is
thrown away. `sentence` stops the upstream where the first sentence ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from benchmarks.baselines import generate
from corrector.decoding import unfit
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.tasks.base import Problem, Task
from corrector.upstreams import LOOKAHEAD

LEAST, OFF = 0.05, -1e4
Ask = Literal["whole", "sentence"]


def stops(lm: LanguageModel) -> list[int]:
    """The tokens that end a sentence."""
    return [i for token, i in lm.tokenizer.get_vocab().items() if token.strip() in (".", "!", "?")]


@contextmanager
def endless(lm: LanguageModel) -> Generator[None]:
    """The model writes no special token, so its answer goes on for as many sentences as are asked for.

    Nor does it draw tokens less than LEAST times as likely as the best one, which far from its training text make
    words that the corrector has no token for.
    """
    unfit(lm)  # found out, and remembered, before the logits are what no model gives
    special = torch.tensor(lm.tokenizer.all_special_ids, device=lm.device)

    def silence(_: Any, __: Any, output: Any) -> Any:
        output.logits[..., special] = OFF
        output.logits[output.logits < output.logits.amax(-1, keepdim=True) + math.log(LEAST)] = OFF
        return output

    handle = lm.model.register_forward_hook(silence)
    try:
        yield
    finally:
        handle.remove()


class Sentences(StoppingCriteria):
    """A row is done once it has written n sentence ends."""

    def __init__(self, start: int, n: int, ids: Sequence[int]) -> None:
        self.start, self.n, self.ids = start, n, torch.tensor(list(ids))

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        written = input_ids[:, self.start :]
        return torch.isin(written, self.ids.to(written.device)).sum(1) >= self.n


@dataclass
class Loop:
    """What the naive loop did: answers, every round's rows and longest prompt, and when rounds began and ended."""

    answers: list[str]
    rows: list[int] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)


def run(
    problems: Sequence[Problem],
    upstream: LanguageModel,
    corrector: LanguageModel,
    task: Task,
    rounds: int,
    ask: Ask,
    temperature: float = 0.0,
) -> Loop:
    """Answer every problem in `rounds` sentences, one batch; a `whole` answer has a sentence for every round left.

    A row leaves where the corrector cannot read what was written, as in the lab.
    """
    loop, ends, live = Loop([""] * len(problems)), stops(upstream), list(range(len(problems)))
    budget = task.max_sentence_tokens + LOOKAHEAD
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {}
    for k in range(rounds):
        loop.clock.append(time.process_time())
        n = rounds - k if ask == "whole" else 1
        prompts = [upstream.encode_upstream(problems[i].question, loop.answers[i]) for i in live]
        criteria = StoppingCriteriaList([Sentences(max(map(len, prompts)), n, ends)])
        wrote = generate(upstream, prompts, n * budget, stopping_criteria=criteria, **sampling)
        found: dict[int, tuple[str, Encoded]] = {}
        for i, prompt, ids in zip(live, prompts, wrote, strict=True):
            span = _first(upstream, task, prompt.ids[-1], ids[:budget])
            if not (last := span.strip()):
                raise RuntimeError(f"round {k}: an answer ended before {rounds} rounds")
            with suppress(UserError):
                encoded = corrector.encode(problems[i].question, loop.answers[i], last)
                found[i] = span[: span.index(last)], encoded
        live = list(found)
        corrections = generate(corrector, [encoded for _, encoded in found.values()], task.max_sentence_tokens)
        for i, ids in zip(live, corrections, strict=True):
            loop.answers[i] += found[i][0] + corrector.decode(ids)
        loop.prompts.append(max((len(encoded) for _, encoded in found.values()), default=0))
        loop.rows.append(len(live))
    loop.clock.append(time.process_time())
    return loop


def _first(lm: LanguageModel, task: Task, before: int, ids: Sequence[int]) -> str:
    """The first sentence of what was written behind the token `before`, with its leading whitespace."""
    text, head = (
        str(lm.tokenizer.decode(part, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for part in ([before, *ids], [before])
    )
    return next(iter(task.sentences(text.removeprefix(head))), "")
