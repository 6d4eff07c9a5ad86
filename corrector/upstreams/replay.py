"""Recorded answers as upstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from corrector.errors import UserError
from corrector.upstreams.base import Request, State


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

    @property
    def state(self) -> State:
        return "works"

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
