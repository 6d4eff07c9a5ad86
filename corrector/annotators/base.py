"""What an annotator is given, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from corrector.tasks.base import Annotation, Problem

FAILED = "failed"


@dataclass(frozen=True)
class Sentence:
    """A sentence of an upstream behind the corrected answer so far, in round 0, 1, ..."""

    problem: Problem
    prefix: str
    last: str
    round: int


@dataclass(frozen=True)
class Dropped:
    """No annotation, and why; `failed` alone may be asked again."""

    reason: str


@runtime_checkable
class Annotator(Protocol):
    """Anything that corrects sentences."""

    def annotate(self, sentences: Sequence[Sentence]) -> list[Annotation | Dropped]:
        """One annotation a sentence, in order; none is guessed."""
        ...

    def said(self) -> str:
        """What annotating took, in one line; empty where there is nothing to say."""
        ...
