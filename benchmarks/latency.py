"""Until the first corrected token: after one sentence, as the loop has it, or after a whole answer, as an Aligner."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from benchmarks import naive
from benchmarks.loop import Stage
from benchmarks.results import Row, rows_of
from benchmarks.timing import Contestant, Work, race
from corrector.decoding import Stop, decode
from corrector.tasks.base import Problem
from corrector.upstreams import LocalUpstream, Request, ask, derived_seed

LONGEST = 512
"""Tokens of a whole answer at most."""


@dataclass(frozen=True)
class Answers:
    """Whose answers are waited for: a stage, the upstream's temperature, and sentences (0: as many as it writes)."""

    stage: Stage
    temperature: float
    sentences: int = 0

    def sentence(self, problems: list[Problem], r: int) -> Work:
        """One sentence of the upstream, then one token of the corrector, problem after problem."""
        s = self.stage
        upstream = LocalUpstream(s.upstream, s.task, self.temperature, r, batch_size=1)
        for p in problems:
            (span,) = ask(upstream, [Request(p, "", 0)])
            self._first_token(p, (span or "").strip())
        return Work(len(problems))

    def whole(self, problems: list[Problem], r: int) -> Work:
        """The upstream's whole answer, then one token of the corrector, which reads it as its suffix."""
        s, stop = self.stage, self._stop()
        for p in problems:
            prompt = s.upstream.encode_upstream(p.question, "")
            (wrote,) = decode(
                s.upstream,
                [prompt],
                max_new_tokens=LONGEST,
                temperature=self.temperature,
                seeds=[derived_seed(r, p.id, 0)],
                batch_size=1,
                stop=stop,
            )
            self._first_token(p, s.upstream.decode(list(wrote.ids)))
        return Work(len(problems))

    def _first_token(self, problem: Problem, last: str) -> None:
        if not last:
            raise RuntimeError(f"{problem.id}: the upstream wrote nothing, so there is nothing to correct")
        lm = self.stage.corrector
        decode(lm, [lm.encode(problem.question, "", last)], max_new_tokens=1, batch_size=1)

    def _stop(self) -> Stop | None:
        ends = set(naive.stops(self.stage.upstream))
        return (lambda ids: sum(i in ends for i in ids) >= self.sentences) if self.sentences else None


def measure(answers: Answers, n: int, rounds: int, seed: int) -> list[Row]:
    """Two rows: what the first corrected token costs after one sentence, and after a whole answer."""
    s = answers.stage
    problems, device = s.task.problems("test", n, seed), str(s.corrector.device)
    how = "greedy" if answers.temperature == 0 else f"temperature {answers.temperature:g}"
    long = f"answers of {answers.sentences} sentences" if answers.sentences else "answers as they are"
    contestants = [
        Contestant("after one sentence", partial(answers.sentence, problems), f"{n} problems, batch 1"),
        Contestant(
            "after a whole answer",
            partial(answers.whole, problems),
            f"{n} problems, batch 1; same corrector as Aligner",
        ),
    ]
    with naive.endless(s.upstream) if answers.sentences else nullcontext():
        times = race(contestants, rounds, device, f"first token, {s.task.name}, {long}", warm=True)
    where = f"{s.upstream.ref} + {s.corrector.ref}, {how}, {long}"
    return rows_of("first-token", where, "ms to the first token", contestants, times, device, strict=False)
