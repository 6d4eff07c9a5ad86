"""A task in larger units: one correction takes several sentences together."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import cast

from corrector.errors import UserError
from corrector.tasks.base import Example, Pair, Problem, Split, Step, Task

LONGEST = 512
"""Tokens of a unit at most, as of an answer; so many sentences are all of it."""
WHOLE = "answer"
"""The unit of a task whose corrector takes whole answers, as an Aligner."""


def in_units(task: Task, n: int) -> Task:
    """The task with n of its sentences to a unit; the last unit of an answer may hold fewer. n = 1: the task itself.

    Everything that goes by `sentences` then goes by units: where the upstream stops in the align loop, what the
    corrector is given, the pairs that it is trained and measured on. Questions, grades and upstream stay. UserError for
    n below 1.
    """
    if n < 1:
        raise UserError(f"unit={n} sentences; choose --unit 1 or more")
    if n == 1:
        return task
    # Names and sizes are a class's in `Task`, so the units of a task have a class of their own.
    of_task = {
        **{"name": f"{task.name}@{WHOLE if n >= LONGEST else n}", "upstream": task.upstream or f"{task.name}-upstream"},
        **{"outcomes": task.outcomes, "temperature": task.temperature},
        "max_sentence_tokens": min(n * task.max_sentence_tokens, LONGEST),
    }
    return cast(Task, type("Units", (_Units,), of_task)(task, n))


class _Units(Task):
    """See `in_units`."""

    def __init__(self, inner: Task, n: int) -> None:
        self.inner, self.n = inner, n

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        return self.inner.problems(split, n, seed)

    def size(self, split: Split) -> int:
        return self.inner.size(split)

    def example(self, problem: Problem, rng: random.Random) -> Example:
        steps = self.inner.example(problem, rng).steps
        return Example(problem, tuple(joined(steps[i : i + self.n]) for i in range(0, len(steps), self.n)))

    def upstream_spans(self, problem: Problem, rng: random.Random) -> list[tuple[str, bool]]:
        return self.inner.upstream_spans(problem, rng)

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        return self.inner.grade(problem, answer)

    def charged(self, answer: str) -> dict[str, float]:
        return self.inner.charged(answer)

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        """Whether every sentence of it is, each behind those before it."""
        found = [self.inner.is_right(p, s) for p, s in self._apart(pair, sentence)]
        return None if None in found else bool(found) and all(found)

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        return bool(parts := self._apart(pair, sentence)) and all(self.inner.well_formed(p, s) for p, s in parts)

    def is_valid(self, pair: Pair, sentence: str) -> bool:
        return bool(parts := self._apart(pair, sentence)) and all(self.inner.is_valid(p, s) for p, s in parts)

    def recorded(self, problem: Problem, seed: int) -> list[str]:
        return self._grouped(self.inner.recorded(problem, seed))

    def sentences(self, answer: str) -> list[str]:
        return self._grouped(self.inner.sentences(answer))

    def _grouped(self, spans: Sequence[str]) -> list[str]:
        return ["".join(spans[i : i + self.n]) for i in range(0, len(spans), self.n)]

    def _apart(self, pair: Pair, text: str) -> list[tuple[Pair, str]]:
        """The sentences of a text in the place of `pair.last`, each with the pair that has it as `last`."""
        spans = self.inner.sentences(text)
        before = accumulate(spans, initial=pair.prefix + " " * bool(pair.prefix))
        return [
            (replace(pair, prefix=prefix.rstrip(), last=span.strip()), span.strip())
            for prefix, span in zip(before, spans, strict=False)
        ]


def joined(steps: Sequence[Step]) -> Step:
    """Steps that follow each other as one: its first branch is what they chose, the k-th joins their next k-th ones."""
    chosen = "".join(s.chosen for s in steps)
    leads = [s.chosen[: len(s.chosen) - len(s.chosen.lstrip())] for s in steps]
    branches: list[Pair] = []
    for k in range(max(len(s.branches) for s in steps)):
        parts = [s.branches[(s.taken + k) % len(s.branches)] for s in steps]
        last, correction = (
            "".join(lead + text for lead, text in zip(leads, texts, strict=True)).lstrip()
            for texts in ([p.last for p in parts], [p.correction for p in parts])
        )
        wrong = [p.is_wrong for p in parts]
        known = [p.badness for p in parts if p.badness is not None]
        branches.append(
            replace(
                parts[0],
                last=last,
                correction=correction,
                is_wrong=True if True in wrong else None if None in wrong else False,
                kind="+".join(sorted({p.kind for p in parts})),
                badness=max(known) if len(known) == len(parts) else None,
                source="unit",
            )
        )
    return Step(steps[0].prefix, tuple(branches), chosen)
