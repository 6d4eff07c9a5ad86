"""What a judge is given and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from corrector.statistics import TIE

Outcome = Literal["win", "loss", "tie", "swapped", "unparsed", "rejected", "too_long", "failed"]
DECIDED: tuple[Outcome, ...] = ("win", "loss", "tie", "swapped")
"""Outcomes that count; `swapped` is the tie of a judge that changed its mind with the order of the answers."""
SKIPPED: tuple[Outcome, ...] = ("unparsed", "rejected", "too_long", "failed")
"""Outcomes without a verdict: counted, never scored. Only `failed` is asked again by a rerun."""


@dataclass(frozen=True)
class Answer:
    """An answer with the task's own outcomes."""

    text: str
    outcomes: Mapping[str, float]


@dataclass(frozen=True)
class Duel:
    """The answers of two runs to one question; without `other` there is nothing to win, only to score."""

    problem: str
    question: str
    own: Answer
    other: Answer | None


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a duel under one aspect.

    `score` and `other_score` are those of judges that score answers one by one, higher is better; `orders` are the
    server's words for both orders (own answer first, other answer first), each as `own`, `other` or `tie`.
    """

    problem: str
    aspect: str
    outcome: Outcome | None
    score: float | None = None
    other_score: float | None = None
    orders: tuple[str | None, str | None] | None = None
    reason: str = ""


@runtime_checkable
class Judge(Protocol):
    """Anything that compares answers."""

    @property
    def aspects(self) -> Sequence[str]:
        """What it judges by, such as helpful and harmless."""
        ...

    def verdicts(self, duels: Sequence[Duel]) -> list[Verdict]:
        """One verdict an aspect and duel, aspect by aspect."""
        ...

    def said(self) -> str:
        """What judging took, in one line; empty where there is nothing to say."""
        ...


def scored(problem: str, aspect: str, score: float, other: float | None) -> Verdict:
    """The verdict of two scores, higher is better."""
    if other is None:
        return Verdict(problem, aspect, None, score)
    gap = score - other
    outcome: Outcome = "tie" if abs(gap) <= TIE else "win" if gap > 0 else "loss"
    return Verdict(problem, aspect, outcome, score, other)
