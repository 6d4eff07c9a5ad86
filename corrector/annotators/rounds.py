"""Pairs made round by round: the upstream writes a sentence, the annotator corrects it, the prefix grows by that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from corrector.annotators.base import FAILED, Annotator, Dropped, Sentence
from corrector.errors import UserError
from corrector.tasks.base import Annotation, Problem
from corrector.upstreams import Request, Upstream, ask


@dataclass
class Made:
    """One problem's pairs so far.

    `stopped` by the upstream's or the annotator's end (`end`, `eos`), `rounds`, `length`, `unreadable` (a text that
    the upstream has no tokens for), or `dropped`: a sentence without a correction, behind which nothing can follow;
    `dropped` is then why.
    """

    problem: Problem
    prefix: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""
    dropped: str = ""

    @property
    def failed(self) -> bool:
        """It stopped at what may be asked again."""
        return self.dropped == FAILED

    def row(self) -> dict[str, Any]:
        """The row of annotations.jsonl."""
        problem = self.problem
        return {
            "problem": problem.id,
            "question": problem.question,
            "solution": problem.gold,
            "stopped": self.stopped,
            "dropped": self.dropped,
            "rounds": self.rounds,
        }


def make(
    problems: Sequence[Problem], upstream: Upstream, annotator: Annotator, max_rounds: int = 12, max_tokens: int = 512
) -> list[Made]:
    """Grow each problem's answer by corrected sentences until it stops (see `Made`), all problems in step.

    `eos` of a round is what the annotator says; where it does not say, whether the upstream then ended.
    """
    made = [Made(problem) for problem in problems]
    for k in range(max_rounds):
        live = [m for m in made if not m.stopped]
        requests = [r for m in live if (r := _request(m, upstream, k, max_tokens))]
        live = [m for m in live if not m.stopped]
        asked: list[tuple[Made, str, Sentence]] = []
        for m, span in zip(live, ask(upstream, requests) if requests else [], strict=True):
            if span is None:
                m.stopped = "length"
            elif last := span.strip():
                asked.append((m, span[: span.index(last)], Sentence(m.problem, m.prefix, last, k)))
            else:
                m.stopped = "end"
        for (m, lead, s), said in zip(asked, annotator.annotate([s for _, _, s in asked]), strict=True):
            _grow(m, lead, s, said)
    for m in made:
        m.stopped = m.stopped or "rounds"
        for k, r in enumerate(m.rounds):
            if r["eos"] is None:
                r["eos"] = m.stopped == "end" and k + 1 == len(m.rounds)
    return made


def _request(m: Made, upstream: Upstream, k: int, max_tokens: int) -> Request | None:
    request = Request(m.problem, m.prefix, k)
    try:
        m.stopped = "" if upstream.fits(request, max_tokens) else "length"
    except UserError:
        if not m.prefix:  # then it is the question that the upstream cannot read
            raise
        m.stopped = "unreadable"
    return None if m.stopped else request


def _grow(m: Made, lead: str, s: Sentence, said: Annotation | Dropped) -> None:
    reason = said.reason if isinstance(said, Dropped) else "" if said.correction else "empty"
    if reason or isinstance(said, Dropped):
        m.stopped, m.dropped = "dropped", reason
        return
    m.rounds.append(
        {
            "prefix": s.prefix,
            "last": s.last,
            "correction": said.correction,
            "is_wrong": said.is_wrong,
            "eos": said.eos,
            "source": said.source,
        }
    )
    m.prefix += lead + said.correction
    if said.eos:
        m.stopped = "eos"


def pairs_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The pairs of a row of annotations.jsonl, in the release's fields."""
    solution = {"solution": row["solution"]} if row["solution"] else {}
    return [
        {"question": row["question"], **r, **solution, "problem": row["problem"], "round": k}
        for k, r in enumerate(row["rounds"])
    ]
