"""The task's own scorer as a judge: the outcomes that the runs recorded are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corrector.judges.base import Duel, Verdict, scored


@dataclass(frozen=True)
class TaskJudge:
    """Higher is better in each of the task's outcomes."""

    aspects: tuple[str, ...]

    def verdicts(self, duels: Sequence[Duel]) -> list[Verdict]:
        return [
            scored(d.problem, name, d.own.outcomes[name], d.other.outcomes[name] if d.other else None)
            for name in self.aspects
            for d in duels
        ]

    def said(self) -> str:
        return ""
