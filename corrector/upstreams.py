"""Upstream models: what writes the sentences that the corrector corrects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from corrector.decoding import decode, fits_window
from corrector.errors import UserError
from corrector.models import LanguageModel, load
from corrector.sentences import complete_sentence
from corrector.tasks.base import Problem, Task

LOOKAHEAD = 4
"""Tokens of the next sentence that may be read before the first one is known to be complete."""


class Request(NamedTuple):
    """Ask for the sentence that follows `prefix` (the answer so far, no trailing whitespace) in round 0, 1, ..."""

    problem: Problem
    prefix: str
    round: int


@runtime_checkable
class Upstream(Protocol):
    """Anything that continues answers sentence by sentence."""

    def sentences(self, requests: Sequence[Request]) -> list[str]:
        """For each request the next sentence with its leading whitespace, as written; "" where the answer ends.

        An answer depends on its request alone, never on the others in the list.
        """
        ...

    def fits(self, request: Request, max_tokens: int) -> bool:
        """Whether `prefix` has fewer than `max_tokens` tokens and another sentence fits the model's window."""
        ...


def derived_seed(seed: int, *identity: object) -> int:
    """63 bits of sha256 over a seed and the identity of what is drawn, so that no order of work matters."""
    text = "\x1f".join(map(str, (seed, *identity)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


@dataclass(frozen=True)
class LocalUpstream:
    """A causal model in this process; rows are decoded together and stop once their first sentence is certain.

    Sampling draws from (seed, problem id, round), so two runs that differ in the corrector alone share their draws.
    """

    lm: LanguageModel
    task: Task
    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 0
    """Tokens of one sentence at most; 0: the task's `max_sentence_tokens`."""
    batch_size: int = 64

    @property
    def budget(self) -> int:
        """Tokens that one request may write; LOOKAHEAD more, since a sentence is certain only once the next begins."""
        return (self.max_tokens or self.task.max_sentence_tokens) + LOOKAHEAD

    def sentences(self, requests: Sequence[Request]) -> list[str]:
        prompts = [self.lm.encode_upstream(r.problem.question, r.prefix) for r in requests]
        outputs = decode(
            self.lm,
            prompts,
            max_new_tokens=self.budget,
            temperature=self.temperature,
            seeds=[derived_seed(self.seed, r.problem.id, r.round) for r in requests],
            batch_size=self.batch_size,
            stop=lambda ids: complete_sentence(self._text(ids), self.task.sentences) is not None,
        )
        # behind the prompt's last token, since some tokenizers drop the space before the first token they decode
        tails = [list(p.ids[-1:]) for p in prompts]
        texts = [
            self._text([*tail, *output.ids]).removeprefix(self._text(tail))
            for tail, output in zip(tails, outputs, strict=True)
        ]
        return [next(iter(self.task.sentences(text)), "") for text in texts]

    def fits(self, request: Request, max_tokens: int) -> bool:
        n_answer = len(self.lm.tokenizer(request.prefix, add_special_tokens=False)["input_ids"])
        prompt = self.lm.encode_upstream(request.problem.question, request.prefix)
        return n_answer < max_tokens and fits_window(self.lm, len(prompt), self.budget)

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@dataclass(frozen=True)
class ReplayUpstream:
    """Recorded answers, one list of sentences a problem id: round k plays the k-th, whatever the prefix has become."""

    answers: Mapping[str, Sequence[str]]

    def sentences(self, requests: Sequence[Request]) -> list[str]:
        if missing := [r.problem.id for r in requests if r.problem.id not in self.answers]:
            raise UserError(
                f"no recorded answer for problem {missing[0]!r} among {len(self.answers)}; record one for each problem"
            )
        recorded = [(self.answers[r.problem.id], r.round) for r in requests]
        return [sentences[k] if k < len(sentences) else "" for sentences, k in recorded]

    def fits(self, request: Request, max_tokens: int) -> bool:
        return True


REPLAY = "replay"


def upstream_of(
    ref: str,
    task: Task,
    problems: Sequence[Problem],
    temperature: float | None = None,
    seed: int = 0,
    template: str = "",
    device: str = "cpu",
    dtype: str = "float32",
    batch_size: int = 64,
) -> Upstream:
    """The upstream that a name stands for: a model, or `replay` of the task's recorded answers.

    An empty `ref` and a temperature of None are the task's own. Raises UserError for what is not there.
    """
    name = ref or task.upstream or f"{task.name}-upstream"
    if name == REPLAY:
        return ReplayUpstream({p.id: task.recorded(p, seed) for p in problems})
    chosen = task.temperature if temperature is None else temperature
    return LocalUpstream(load(name, template, device, dtype), task, chosen, seed, batch_size=batch_size)
