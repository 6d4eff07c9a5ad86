"""What the align loop asks of an upstream, and what it gets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from corrector.tasks.base import Problem

State = Literal["works", "waits", "answered"]
"""What a step of a writer would do: compute in this process, wait for another machine, hand over what is there."""


@dataclass(frozen=True, eq=False)
class Request:
    """Ask for the sentence that follows `prefix` (the answer so far, no trailing whitespace) in round 0, 1, ..."""

    problem: Problem
    prefix: str
    round: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[str, str, int]:
        return self.problem.id, self.prefix, self.round


@runtime_checkable
class Writer(Protocol):
    """An upstream at work for one loop: requests go in at any time, sentences come out as they are finished."""

    @property
    def load(self) -> int:
        """Requests not answered yet."""
        ...

    @property
    def state(self) -> State:
        """What a step would do now, where there is a load."""
        ...

    def running(self) -> AbstractContextManager[Any]:
        """What it needs while it works."""
        ...

    def submit(self, request: Request) -> None:
        """Ask for a sentence."""
        ...

    def step(self) -> Sequence[tuple[Request, str | None]]:
        """Work on; the sentences that were finished by it, each with its leading whitespace; "" where the answer ends,
        None where its window has no room for another.

        An answer depends on its request alone, never on the others or on their order.
        """
        ...

    def forget(self, problem: str) -> None:
        """No more requests of this problem will come."""
        ...


@runtime_checkable
class Upstream(Protocol):
    """Anything that continues answers sentence by sentence."""

    def writer(self) -> Writer:
        """A fresh one for a loop."""
        ...

    def fits(self, request: Request, max_tokens: int) -> bool:
        """Whether `prefix` has fewer than `max_tokens` tokens and another sentence fits the model's window."""
        ...


def derived_seed(seed: int, *identity: object) -> int:
    """63 bits of sha256 over a seed and the identity of what is drawn, so that no order of work matters."""
    text = "\x1f".join(map(str, (seed, *identity)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def ask(upstream: Upstream, requests: Sequence[Request]) -> list[str | None]:
    """What a writer makes of some requests, in their order."""
    writer, found = upstream.writer(), dict[Request, str | None]()
    with writer.running():
        for request in dict.fromkeys(requests):
            writer.submit(request)
        while writer.load:
            found |= dict(writer.step())
    return [found[request] for request in requests]
