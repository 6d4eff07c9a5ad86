"""The align loop: the lab's pipeline against loops that keep all rows in step and read everything anew each round."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import corrector
from benchmarks import naive
from benchmarks.results import Row, rows_of
from benchmarks.timing import Contestant, Work, race
from corrector import tasks
from corrector.decoding import PLAIN, Tricks
from corrector.loop import align
from corrector.models import LanguageModel
from corrector.tasks.base import Problem, Task
from corrector.upstreams import LocalUpstream

TOKENS = 2**16
"""Tokens of an answer at most: more than any has."""


@dataclass(frozen=True)
class Stage:
    """The two models of a loop, and its task."""

    task: Task
    upstream: LanguageModel
    corrector: LanguageModel
    rounds: int

    def lab(
        self, problems: Sequence[Problem], batch_size: int, temperature: float, tricks: Tricks | None, r: int
    ) -> Work:
        """The pipeline, `batch_size` problems at a time."""
        found, n = dict[Hashable, Any](), 0
        for at in range(0, len(problems), batch_size):
            part = problems[at : at + batch_size]
            writer = LocalUpstream(self.upstream, self.task, temperature, r, batch_size=batch_size, tricks=tricks)
            done = align(
                part,
                writer,
                self.corrector,
                task=self.task,
                max_rounds=self.rounds,
                max_tokens=TOKENS,
                batch_size=batch_size,
                tricks=tricks,
            )
            if early := [a.stopped for a in done if a.stopped not in ("rounds", "unreadable")]:
                raise RuntimeError(f"a loop of {self.rounds} rounds stopped early: {early[0]}")
            n += sum(len(a.rounds) for a in done)
            found |= {(a.problem.id, r if temperature else 0): a.answer for a in done}
        return Work(n, found)

    def naive(self, problems: Sequence[Problem], batch_size: int, temperature: float, ask: naive.Ask, r: int) -> Work:
        """The naive loop, `batch_size` problems at a time; at a temperature its draws are its own."""
        found, n = dict[Hashable, Any](), 0
        torch.manual_seed(r)
        for at in range(0, len(problems), batch_size):
            part = problems[at : at + batch_size]
            loop = naive.run(part, self.upstream, self.corrector, self.task, self.rounds, ask, temperature)
            n += sum(loop.rows)
            if temperature == 0:
                found |= {(p.id, 0): answer for p, answer in zip(part, loop.answers, strict=True)}
        return Work(n, found)


def stage(task: str, upstream: str, ref: str, rounds: int, device: str, dtype: str) -> Stage:
    """Load the models of a loop."""
    models = [corrector.load(name, device=device, dtype=dtype) for name in (upstream, ref)]
    return Stage(tasks.get(task), models[0], models[1], rounds)


def measure(s: Stage, batched: int, singles: int, rounds: int, seed: int, strict: bool) -> list[Row]:
    """Rows of the loop's table: greedy and at temperature 1, all problems in one batch and one at a time."""
    return [
        row
        for batch_size, n in ((batched, batched), (1, singles))
        for temperature in (0.0, 1.0)
        for row in measured(s, batch_size, n, temperature, rounds, seed, strict)
    ]


def measured(s: Stage, batch_size: int, n: int, temperature: float, rounds: int, seed: int, strict: bool) -> list[Row]:
    """The contestants on n problems, `batch_size` at a time.

    The upstream writes no end token, so every answer has as many sentences as the loop has rounds.
    """
    device, problems = str(s.corrector.device), s.task.problems("test", n, seed)
    how = "greedy" if temperature == 0 else f"temperature {temperature:g}"
    contestants = _contestants(s, problems, batch_size, temperature)
    with naive.endless(s.upstream):
        times = race(contestants, rounds, device, f"loop, batch {batch_size}, {how}")
    name = f"{s.upstream.ref} + {s.corrector.ref}, {s.rounds} rounds, {how}, batch {batch_size}"
    return rows_of("loop", name, "ms a round and row", contestants, times, device, strict)


def _contestants(s: Stage, problems: Sequence[Problem], batch_size: int, temperature: float) -> list[Contestant]:
    n = f"{len(problems)} problems"
    own = "" if temperature == 0 else "; own draws"
    plain = Contestant("lab without tricks", partial(s.lab, problems, batch_size, temperature, PLAIN), n, True)
    return [
        Contestant("lab pipeline", partial(s.lab, problems, batch_size, temperature, None), n),
        *([plain] if temperature == 0 else []),
        Contestant("naive, whole answers", partial(s.naive, problems, batch_size, temperature, "whole"), n + own),
        Contestant("naive, one sentence", partial(s.naive, problems, batch_size, temperature, "sentence"), n + own),
    ]
