"""A causal model in this process as upstream."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from corrector.decoding import Job, Output, Tricks, check_request, decoder_of, fits_window
from corrector.models import LanguageModel
from corrector.sentences import complete_sentence
from corrector.tasks.base import Task
from corrector.upstreams.base import Request, State, derived_seed

LOOKAHEAD = 4
"""Tokens of the next sentence that may be read before the first one is known to be complete."""


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
    tricks: Tricks | None = None
    """Of its decoder; None: all."""

    @property
    def budget(self) -> int:
        """Tokens that one request may write; LOOKAHEAD more, since a sentence is certain only once the next begins."""
        return (self.max_tokens or self.task.max_sentence_tokens) + LOOKAHEAD

    def writer(self) -> LocalWriter:
        return LocalWriter(self)

    def fits(self, request: Request, max_tokens: int) -> bool:
        n_answer = len(self.lm.tokenizer(request.prefix, add_special_tokens=False)["input_ids"])
        prompt = self.lm.encode_upstream(request.problem.question, request.prefix)
        return n_answer < max_tokens and fits_window(self.lm, len(prompt), self.budget)

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as they stand, spaces kept."""
        return str(self.lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class LocalWriter:
    """The decoder of a local upstream; a problem's rounds keep the cache of question and prefix."""

    def __init__(self, upstream: LocalUpstream) -> None:
        self.upstream = upstream
        self._decoder = decoder_of(upstream.lm, None, upstream.temperature, upstream.batch_size, upstream.tricks)
        self._requests: dict[Job, Request] = {}

    @property
    def load(self) -> int:
        return self._decoder.load

    @property
    def state(self) -> State:
        return "works"

    def running(self) -> AbstractContextManager[Any]:
        return self._decoder.running()

    def submit(self, request: Request) -> None:
        up = self.upstream
        prompt = up.lm.encode_upstream(request.problem.question, request.prefix)
        check_request(up.lm, [prompt], up.budget, up.temperature, [0])
        seed = derived_seed(up.seed, request.problem.id, request.round)
        job = Job(prompt, up.budget, seed=seed, stop=self._complete, session=request.problem.id)
        self._requests[job] = request
        self._decoder.submit(job)

    def step(self) -> list[tuple[Request, str]]:
        return [(self._requests.pop(job), self._first(job, output)) for job, output in self._decoder.step()]

    def forget(self, problem: str) -> None:
        self._decoder.forget(problem)

    def _complete(self, ids: list[int]) -> bool:
        return complete_sentence(self.upstream.text(ids), self.upstream.task.sentences) is not None

    def _first(self, job: Job, output: Output) -> str:
        # behind the prompt's last token, since some tokenizers drop the space before the first token they decode
        up, tail = self.upstream, list(job.prompt.ids[-1:])
        text = up.text([*tail, *output.ids]).removeprefix(up.text(tail))
        return next(iter(up.task.sentences(text)), "")
