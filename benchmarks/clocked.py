"""An upstream that tells when it is asked, so that the rounds of a pipeline can be told apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from corrector.upstreams import LocalUpstream, Request, State, Writer


@dataclass
class Clocked:
    """An upstream that notes when each sentence is asked for, in CPU seconds; of one problem at a time."""

    upstream: LocalUpstream
    asked: list[float] = field(default_factory=list)

    def writer(self) -> Writer:
        return _ClockedWriter(self.upstream.writer(), self.asked)

    def fits(self, request: Request, max_tokens: int) -> bool:
        return self.upstream.fits(request, max_tokens)


class _ClockedWriter:
    def __init__(self, writer: Writer, asked: list[float]) -> None:
        self.writer, self.asked = writer, asked

    @property
    def load(self) -> int:
        return self.writer.load

    @property
    def state(self) -> State:
        return self.writer.state

    def running(self) -> AbstractContextManager[Any]:
        return self.writer.running()

    def submit(self, request: Request) -> None:
        self.asked.append(time.process_time())
        self.writer.submit(request)

    def step(self) -> Sequence[tuple[Request, str | None]]:
        return self.writer.step()

    def forget(self, problem: str) -> None:
        self.writer.forget(problem)
