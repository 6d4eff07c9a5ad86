"""Upstream models: what writes the sentences that the corrector corrects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from corrector.decoding import Job, Output, Tricks, check_request, decoder_of, fits_window
from corrector.errors import UserError
from corrector.models import LanguageModel, load
from corrector.sentences import complete_sentence
from corrector.tasks.base import Problem, Task

LOOKAHEAD = 4
"""Tokens of the next sentence that may be read before the first one is known to be complete."""


@dataclass(frozen=True, eq=False)
class Request:
    """Ask for the sentence that follows `prefix` (the answer so far, no trailing whitespace) in round 0, 1, ..."""

    problem: Problem
    prefix: str
    round: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, int]:
        return self.problem.id, self.prefix, self.round


@runtime_checkable
class Writer(Protocol):
    """An upstream at work for one loop: requests go in at any time, sentences come out as they are finished."""

    @property
    def load(self) -> int:
        """Requests not answered yet."""
        ...

    def running(self) -> AbstractContextManager[Any]:
        """What it needs while it works."""
        ...

    def submit(self, request: Request) -> None:
        """Ask for a sentence."""
        ...

    def step(self) -> list[tuple[Request, str]]:
        """Work on; the sentences that were finished by it, each with its leading whitespace; "" where the answer ends.

        An answer depends on its request alone, never on the others or on their order.
        """
        ...

    def forget(self, problem: str) -> None:
        """No more requests of this problem will come."""
        ...


@runtime_checkable
class Upstream(Protocol):
    """Anything that continues answers sentence by sentence."""

    def writer(self) -> Writer:
        """A fresh one for a loop."""
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


@dataclass(frozen=True)
class ReplayUpstream:
    """Recorded answers, one list of sentences a problem id: round k plays the k-th, whatever the prefix has become."""

    answers: Mapping[str, Sequence[str]]

    def writer(self) -> ReplayWriter:
        return ReplayWriter(self.answers)

    def fits(self, request: Request, max_tokens: int) -> bool:
        return True


class ReplayWriter:
    """Recorded sentences, at once."""

    def __init__(self, answers: Mapping[str, Sequence[str]]) -> None:
        self.answers = answers
        self._done: list[tuple[Request, str]] = []

    @property
    def load(self) -> int:
        return len(self._done)

    def running(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def submit(self, request: Request) -> None:
        if (name := request.problem.id) not in self.answers:
            raise UserError(f"no recorded answer for problem {name!r} among {len(self.answers)}; record one for each")
        sentences = self.answers[name]
        self._done.append((request, sentences[request.round] if request.round < len(sentences) else ""))

    def step(self) -> list[tuple[Request, str]]:
        done, self._done = self._done, []
        return done

    def forget(self, problem: str) -> None:
        """Nothing is remembered."""


def ask(upstream: Upstream, requests: Sequence[Request]) -> list[str]:
    """The sentences of some requests, in their order."""
    writer, found = upstream.writer(), dict[Request, str]()
    with writer.running():
        for request in dict.fromkeys(requests):
            writer.submit(request)
        while writer.load:
            found |= dict(writer.step())
    return [found[request] for request in requests]


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
