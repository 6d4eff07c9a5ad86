"""What a training step draws: the same questions, corrected answers and sentences for every method of one seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

from corrector.recipes import Train
from corrector.tasks.base import Example, Pair, Problem, Task


@dataclass(frozen=True)
class Draw:
    """One question of a step: its example, and the sentence pairs that a stream corrector trains on.

    `draft` is the whole answer before its correction `example.answer`, for the methods that take answers whole.
    """

    example: Example
    pairs: tuple[Pair, ...]
    draft: str = ""

    @property
    def whole(self) -> Pair:
        """The pair of a corrector that reads and writes whole answers: no prefix, the draft as `last`."""
        problem, answer = self.example.problem, self.example.answer
        return Pair(problem.id, problem.question, "", self.draft, answer, self.draft != answer, source="whole")


def problems_at(step: int, pool: Sequence[Problem], config: Train) -> tuple[list[Problem], random.Random]:
    """The problems of a step, a function of (seed, step) alone, and the generator that goes on from there."""
    rng = random.Random(f"{config.seed}/{step}")
    return [pool[rng.randrange(len(pool))] for _ in range(config.batch)], rng


def draws_at(step: int, pool: Sequence[Problem], task: Task, config: Train) -> list[Draw]:
    """What a step draws, a function of (seed, step) alone and equal for all methods.

    Drafts come from generators of their own, so that drawing them changes nothing else; method `stream` has none.
    """
    problems, rng = problems_at(step, pool, config)
    draws: list[Draw] = []
    for k, problem in enumerate(problems):
        example = task.example(problem, rng)
        pairs = [p for s in example.steps for p in s.branches]
        sampled = tuple(rng.sample(pairs, min(config.branches, len(pairs))))
        own = random.Random(f"draft/{config.seed}/{step}/{k}")
        draws.append(Draw(example, sampled, "" if config.method == "stream" else task.draft(example, own)))
    return draws


def counted(pool: Sequence[Problem], config: Train) -> dict[str, int]:
    """Questions that a whole run trains on: all that are drawn, and the distinct ones among them."""
    drawn = [p.id for step in range(config.steps) for p in problems_at(step, pool, config)[0]]
    return {"questions": len(drawn), "distinct_questions": len(set(drawn))}


def answers_hash(pool: Sequence[Problem], task: Task, config: Train, steps: int = 200) -> str:
    """16 hex digits of sha256 over the questions and corrected answers of the first steps: equal means equal data."""
    h = hashlib.sha256()
    for step in range(min(steps, config.steps)):
        for draw in draws_at(step, pool, task, config):
            h.update(f"{draw.example.problem.question}\x1f{draw.example.answer}\x1e".encode())
    return h.hexdigest()[:16]
