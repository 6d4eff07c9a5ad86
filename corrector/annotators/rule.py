"""The task's own annotator."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from corrector.annotators.base import Dropped, Sentence
from corrector.tasks.base import Annotation, Task


@dataclass(frozen=True)
class RuleAnnotator:
    """Asks `Task.annotate`; its draws depend on (seed, problem, round) alone."""

    task: Task
    seed: int = 0

    def annotate(self, sentences: Sequence[Sentence]) -> list[Annotation | Dropped]:
        return [self._one(s) or Dropped("undecided") for s in sentences]

    def said(self) -> str:
        return ""

    def _one(self, s: Sentence) -> Annotation | None:
        rng = random.Random(f"annotate/{self.seed}/{s.problem.id}/{s.round}")
        return self.task.annotate(s.problem, s.prefix, s.last, rng)
