"""Conditions of a task, so that a vector fitted under one can be measured under another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.arithmetic import steps_of
from corrector.tasks.base import Pair, Split, Task
from corrector.tasks.dialogue import grammar
from probes.contrasts import Contrast, as_corrected, contrast_pairs, copy_rewrite

Name = Literal["any", "first", "later", "short", "long", "harmless", "harmful"]
"""All pairs; the answer's first sentence, or a later one; problems of up to 3 steps, or of more; questions by harm."""
SHORT = 3
"""Most steps of a short problem."""
DRAWS = (1, 2, 4, 8, 16)
"""How many times the pairs asked for are drawn, at most, to find enough that meet a condition."""


@dataclass(frozen=True)
class Condition:
    """Which pairs it keeps, and the one task that it knows (empty: every task)."""

    keeps: Callable[[Pair], bool]
    task: str = ""


CONDITIONS: dict[str, Condition] = {
    "any": Condition(lambda pair: True),
    "first": Condition(lambda pair: not pair.prefix.strip()),
    "later": Condition(lambda pair: bool(pair.prefix.strip())),
    "short": Condition(lambda pair: len(steps_of(pair.question)) <= SHORT, "arithmetic"),
    "long": Condition(lambda pair: len(steps_of(pair.question)) > SHORT, "arithmetic"),
    "harmless": Condition(lambda pair: not grammar.topic_of(pair.question).domain.harmful, "dialogue"),
    "harmful": Condition(lambda pair: grammar.topic_of(pair.question).domain.harmful, "dialogue"),
}


def condition(task: Task, name: str) -> Condition:
    """A condition by name; UserError where there is none, or the task has no such thing."""
    if name not in CONDITIONS:
        raise UserError(f"condition={name!r} not in {', '.join(get_args(Name))}; choose one of them")
    found = CONDITIONS[name]
    if found.task not in ("", task.name):
        raise UserError(f"condition {name!r} is of task {found.task!r}, not {task.name!r}; choose any, first or later")
    return found


def pairs_under(task: Task, split: Split, n: int, seed: int, name: str) -> list[Pair]:
    """The first n pairs of a split that meet the condition; all alike where it is `any`. UserError for too few."""
    keeps = condition(task, name).keeps
    return _first(lambda asked: [p for p in task.pairs(split, asked, seed) if keeps(p)], n, split, name)


def contrast_under(lm: LanguageModel, task: Task, split: Split, n: int, seed: int, name: str) -> Contrast:
    """What the corrector rewrites against what it copies, of n matched pairs that meet the condition.

    The two suffixes of a match share question and prefix, so both meet it or neither.
    """
    keeps = condition(task, name).keeps
    found = _first(lambda asked: [p for p in contrast_pairs(task, split, asked, seed) if keeps(p)], 2 * n, split, name)
    return copy_rewrite(as_corrected(lm, task, found))


def _first(draw: Callable[[int], list[Pair]], n: int, split: Split, name: str) -> list[Pair]:
    found: list[Pair] = []
    for times in DRAWS:
        try:
            found = draw(n * times)
        except UserError as error:
            raise UserError(f"{len(found)} of {n} pairs of {split} are {name!r}: {error}") from error
        if len(found) >= n:
            return found[:n]
    raise UserError(f"{len(found)} of {n} pairs of {split} are {name!r}; ask for fewer")
