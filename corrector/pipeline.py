"""Rows of the align loop on their way between the models, without rounds in step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from corrector.decoding import Job, Output, Steering, Tricks, decoder_of, draft_of, fits_window
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.tasks.base import Problem
from corrector.upstreams import Request, State, Upstream

PATIENCE = 4
"""One model goes on until so many times as many rows wait for another: full batches, and none waits for the last."""
Mode = Literal["stream", "continue", "aligner", "upstream"]
Stopped = Literal["end", "empty", "length", "rounds", "unreadable"]


@dataclass(frozen=True)
class Round:
    """One sentence: the answer before it, as the upstream wrote it, and its correction.

    `correction` is None where the corrector did not act (the sentence stands as written); `ended` is False where it
    wrote no end token within its budget; `applied` counts the intervention's applications.
    """

    prefix: str
    last: str
    correction: str | None
    ended: bool = True
    applied: int = 0


@dataclass(frozen=True)
class Limits:
    """Sentences and tokens of an answer, tokens of a sentence, and the rounds that are steered."""

    rounds: int
    tokens: int
    sentence_tokens: int
    steered: tuple[int, int | None]

    def steers(self, k: int) -> bool:
        """Whether round k is steered."""
        first, end = self.steered
        return k >= first and (end is None or k < end)


@dataclass
class Row:
    """A problem under way; `lead` and `last` are of the sentence that is being corrected."""

    index: int
    problem: Problem
    corrected: int
    """Rounds that are corrected."""
    answer: str = ""
    lead: str = ""
    last: str = ""
    rounds: list[Round] = field(default_factory=list)
    stopped: Stopped | None = None


class Pipeline:
    """Of the models, the one with many rows at hand goes on, so that all work on full batches.

    What a server wrote is taken as soon as it is there, and waited for only where no model here has a row at hand.
    Equal requests, and equal corrections of unsteered rows, are made once: those of a sweep's cells and of loops of
    different length until they part.
    """

    def __init__(
        self,
        mode: Mode,
        problems: Sequence[Problem],
        corrected: Sequence[int],
        upstream: Upstream,
        corrector: LanguageModel | None,
        finisher: Upstream | None,
        steer: Steering | None,
        limits: Limits,
        batch_size: int,
        tricks: Tricks | None,
    ) -> None:
        self.rows = [Row(i, problem, k) for i, (problem, k) in enumerate(zip(problems, corrected, strict=True))]
        self.mode, self.corrector, self.steer, self.limits = mode, corrector, steer, limits
        self.upstreams = [upstream, *([finisher] if finisher else [])]
        self.writers = [u.writer() for u in self.upstreams]
        acts = corrector is not None and (mode == "aligner" or any(corrected))
        self.decoder = decoder_of(corrector, steer, 0.0, batch_size, tricks) if corrector and acts else None
        self._asked: dict[tuple[int, Request], list[Row]] = {}
        self._answers: dict[tuple[int, Request], str | None] = {}
        self._correcting: dict[tuple[int, ...], list[Row]] = {}
        self._corrections: dict[tuple[int, ...], Output] = {}
        self._open = Counter(problem.id for problem in problems)

    def run(self, tell: Callable[[], Any]) -> list[Row]:
        """Let every row come to its end; `tell` is called after each step."""
        stations: list[Any] = [*self.writers, *([self.decoder] if self.decoder else [])]
        with ExitStack() as stack:
            for station in stations:
                stack.enter_context(station.running())
            for row in self.rows:
                self._ask(row)
            at = stations[0]
            while live := [s for s in stations if s.load]:
                at = self._turn(live, at)
                if at is self.decoder:
                    for job, output in at.step():
                        self._corrected(job, output)
                else:
                    self._wrote(self.writers.index(at))
                tell()
        return self.rows

    def _turn(self, live: Sequence[Any], at: Any) -> Any:
        """The station whose step comes next, of those with a load; `at` had the last one."""
        by_state: dict[State, list[Any]] = {"answered": [], "works": [], "waits": []}
        for station in live:
            by_state["works" if station is self.decoder else station.state].append(station)
        first = next(stations for stations in by_state.values() if stations)
        busiest = max(first, key=lambda s: s.load)
        return at if at in first and at.load * PATIENCE >= busiest.load else busiest

    def _ask(self, row: Row) -> None:
        """Let a row's next sentence be written; a row that may not go on stops."""
        k = len(row.rounds)
        if k >= self.limits.rounds:
            return self._stop(row, "rounds")
        who = 1 if len(self.writers) > 1 and k >= row.corrected else 0
        request = Request(row.problem, row.answer, k)
        if (key := (who, request)) in self._answers:
            return self._written(row, self._answers[key])
        if key in self._asked:
            self._asked[key].append(row)
            return None
        try:
            fits = self.upstreams[who].fits(request, self.limits.tokens)
        except UserError:
            if not row.answer:  # then it is the question that the upstream cannot read
                raise
            return self._stop(row, "unreadable")
        if not fits:
            return self._stop(row, "length")
        self._asked[key] = [row]
        self.writers[who].submit(request)

    def _wrote(self, who: int) -> None:
        for request, sentence in self.writers[who].step():
            self._answers[who, request] = sentence
            for row in self._asked.pop((who, request)):
                self._written(row, sentence)

    def _written(self, row: Row, span: str | None) -> None:
        """A sentence came: correct it, or take it as it is."""
        if span is None:
            return self._stop(row, "length")
        if not (last := span.strip()):
            return self._stop(row, "end")
        row.lead, row.last, k = span[: span.index(last)], last, len(row.rounds)
        if k >= row.corrected:
            return self._grow(row, Round(row.answer, last, None))
        return self._correct(row, row.answer, last, k, self.limits.sentence_tokens)

    def _correct(self, row: Row, prefix: str, last: str, k: int, budget: int) -> None:
        assert self.corrector is not None and self.decoder is not None
        try:
            prompt = self.corrector.encode(row.problem.question, prefix, last)
        except UserError:
            self.corrector.encode(row.problem.question, "", "")  # a question that it cannot read is the user's to cure
            return self._end(row, "unreadable")
        if not fits_window(self.corrector, len(prompt), budget):
            return self._end(row, "length")
        on = self.steer is not None and self.limits.steers(k)
        if not on and (done := self._corrections.get(prompt.ids)):
            return self._take(row, done)
        if not on and prompt.ids in self._correcting:
            self._correcting[prompt.ids].append(row)
            return None
        if not on:
            self._correcting[prompt.ids] = [row]
        self.decoder.submit(self._job(row, prompt, budget, on))

    def _job(self, row: Row, prompt: Encoded, budget: int, on: bool) -> Job:
        assert self.corrector is not None
        draft, at = draft_of(self.corrector, prompt), row.index
        return Job(prompt, budget, at if on else -1, draft, session=row.problem.id, tag=at)

    def _corrected(self, job: Job, output: Output) -> None:
        rows = [self.rows[job.tag]] if job.row >= 0 else self._correcting.pop(job.prompt.ids)
        if job.row < 0:
            self._corrections[job.prompt.ids] = output
        for row in rows:
            self._take(row, output)

    def _take(self, row: Row, output: Output) -> None:
        assert self.corrector is not None
        correction = self.corrector.decode(list(output.ids))
        if self.mode != "aligner":
            return self._grow(row, Round(row.answer, row.last, correction, output.ended, output.applied))
        row.rounds = [Round("", row.answer.strip(), correction, output.ended, output.applied)]
        row.answer = correction
        return self._end(row, "end" if correction else "empty")

    def _grow(self, row: Row, done: Round) -> None:
        row.rounds.append(done)
        sentence = done.last if done.correction is None else done.correction
        if not sentence:
            return self._stop(row, "empty")
        row.answer += row.lead + sentence
        return self._ask(row)

    def _stop(self, row: Row, reason: Stopped) -> None:
        """The answer is written; an aligner now corrects it as a whole."""
        if self.mode == "aligner" and row.answer.strip():
            return self._correct(row, "", row.answer.strip(), 0, self.limits.tokens)
        return self._end(row, reason)

    def _end(self, row: Row, reason: Stopped) -> None:
        row.stopped = reason
        self._open[row.problem.id] -= 1
        if not self._open[row.problem.id]:
            for station in (*self.writers, *([self.decoder] if self.decoder else [])):
                station.forget(row.problem.id)
