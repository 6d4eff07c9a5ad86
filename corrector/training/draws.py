"""What a training step draws: the same questions, corrected answers and sentences for every method of one seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corrector.errors import UserError
from corrector.recipes import Train
from corrector.tasks.base import Example, Pair, Problem, Task

EXAMPLES = 16
"""Examples of a question that are searched for a rewritten sentence, to annotate a copied one wrongly."""


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

    Drafts come from generators of their own, so that drawing them changes nothing else; method `stream` has none. So
    do `identity` and `noise`: whatever they are, questions and corrected answers are the same.
    """
    problems, rng = problems_at(step, pool, config)
    warming = step < config.warmup * config.steps
    draws: list[Draw] = []
    for k, problem in enumerate(problems):
        example = task.example(problem, rng)
        pairs = [p for s in example.steps for p in s.branches]
        if config.noise:
            pairs = [annotated_wrongly(p, problem, task, config) for p in pairs]
        sampled = tuple(rng.sample(pairs, min(config.branches, len(pairs))))
        if config.identity < 1:
            chance = random.Random(f"identity/{config.seed}/{step}/{k}")
            kept = [p for p in pairs if not _is_copy(p) or chance.random() < config.identity]
            sampled = tuple(chance.sample(kept, min(config.branches, len(kept))))
        if warming:
            sampled = tuple(replace(p, correction=p.last) for p in sampled)
        own = random.Random(f"draft/{config.seed}/{step}/{k}")
        draws.append(Draw(example, sampled, "" if config.method == "stream" else task.draft(example, own)))
    return draws


def annotated_wrongly(pair: Pair, problem: Problem, task: Task, config: Train) -> Pair:
    """The pair, or in a share `config.noise` of all sentences the pair with a wrong correction.

    A rewritten sentence is then copied; a copied one gets what another sentence of its question was rewritten to. That
    is a function of seed, question and sentence, so one sentence is right or wrong whenever it is drawn. The prefixes
    behind it, which are the annotator's true corrections, stay. UserError where no sentence of the question is
    rewritten.
    """
    rng = random.Random(f"noise/{config.seed}/{pair.question}/{pair.last}")
    if rng.random() >= config.noise:
        return pair
    if not _is_copy(pair):
        return replace(pair, correction=pair.last)
    for _ in range(EXAMPLES):
        branches = [p for s in task.example(problem, rng).steps for p in s.branches]
        if rewrites := [p.correction for p in branches if not _is_copy(p) and p.correction != pair.last]:
            return replace(pair, correction=rng.choice(rewrites))
    raise UserError(
        f"noise={config.noise}: no sentence of the question {problem.question[:60]!r} is rewritten, so a copied one "
        "cannot be; leave --noise out"
    )


def _is_copy(pair: Pair) -> bool:
    return pair.last.strip() == pair.correction.strip()


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
