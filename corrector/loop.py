"""The align loop: the upstream writes a sentence, the corrector copies or rewrites it, the upstream goes on from that.

A pipeline without rounds in step: a row whose sentence is corrected asks for its next one while others still wait.
Source: Stream Aligner, 2501.05336.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector.decoding import Job, Steering, Tricks, check_request, decoder_of, draft_of, fits_window
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Problem, Task
from corrector.upstreams import Request, Upstream

PATIENCE = 4
"""One model goes on until so many times as many rows wait for the other: full batches, and none waits for the last."""
Mode = Literal["stream", "upstream"]
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
class Alignment:
    """One problem's finished answer, and why it stopped (see `align`)."""

    problem: Problem
    answer: str
    rounds: tuple[Round, ...]
    stopped: Stopped
    outcomes: dict[str, float]

    def row(self) -> dict[str, Any]:
        """The row of alignments.jsonl, without its task and cell."""
        return {
            "problem": self.problem.id,
            "question": self.problem.question,
            "gold": self.problem.gold,
            "answer": self.answer,
            "stopped": self.stopped,
            "outcomes": self.outcomes,
            "rounds": [{"last": r.last, "correction": r.correction, "ended": r.ended} for r in self.rounds],
        }


@dataclass
class _Row:
    """A problem on its way through the loop; `lead` and `last` are of the sentence that is being corrected."""

    index: int
    problem: Problem
    answer: str = ""
    lead: str = ""
    last: str = ""
    rounds: list[Round] = field(default_factory=list)
    stopped: Stopped | None = None


def align(
    problems: Sequence[Problem],
    upstream: Upstream,
    corrector: LanguageModel | None = None,
    *,
    task: Task,
    mode: Mode = "stream",
    rounds: int | None = None,
    max_rounds: int = 12,
    max_tokens: int = 512,
    batch_size: int = 64,
    steer: Steering | None = None,
    steer_rounds: tuple[int, int | None] | None = None,
    tricks: Tricks | None = None,
    progress: str = "",
) -> list[Alignment]:
    """Answer every problem sentence by sentence.

    In each round the upstream writes the next sentence y1 behind the answer so far; in mode `stream` the corrector
    reads (question, prefix, y1) and writes y2, and the answer grows by y2 with y1's leading whitespace. With `rounds`
    = k the corrector acts in the first k rounds only and the upstream finishes alone; mode `upstream` is k = 0. A row
    is `stopped` by the upstream's `end`, an `empty` y2, `max_rounds` sentences (`rounds`), `max_tokens` tokens of
    answer by the upstream's tokenizer or a prompt that fills a model's window (`length`), or a text that a model wrote
    and the next one has no tokens for (`unreadable`; collapsed models of a closed vocabulary write such).

    Problems may repeat, as when one call serves several cells of a sweep: row i of `steer` is problem i; with
    `steer_rounds` = (i, j) it acts in rounds i..j-1 only, counted from 0 (j None: to the end). `tricks` are the
    corrector's decoder's. Raises UserError for modes and numbers that do not fit.
    """
    if mode not in ("stream", "upstream"):
        raise UserError(f"mode={mode!r} is not one of stream, upstream; choose --mode among them")
    if mode == "stream" and corrector is None:
        raise UserError("mode='stream' needs a corrector; give one, or choose mode upstream")
    if steer is not None and mode == "upstream":
        raise UserError("steer was given, but mode='upstream' has no corrector to steer; leave one of them out")
    n_corrected = 0 if mode == "upstream" else max_rounds if rounds is None else rounds
    limits = {"rounds": (rounds or 0, 0), "max_rounds": (max_rounds, 1), "max_tokens": (max_tokens, 1)}
    if bad := [f"{name}={n} is below {least}" for name, (n, least) in limits.items() if n < least]:
        raise UserError(f"{bad[0]}; choose a larger one")
    limit = _Limits(n_corrected, max_rounds, max_tokens, task.max_sentence_tokens, steer_rounds or (0, None))
    pipeline = _Pipeline(problems, upstream, corrector, steer, limit, batch_size, tricks)
    with tqdm(total=len(problems), desc=progress, unit="problem", disable=not progress) as bar:
        rows = pipeline.run(bar)
    return [
        Alignment(r.problem, r.answer, tuple(r.rounds), r.stopped or "rounds", task.grade(r.problem, r.answer))
        for r in rows
    ]


@dataclass(frozen=True)
class _Limits:
    corrected: int
    rounds: int
    tokens: int
    sentence_tokens: int
    steered: tuple[int, int | None]

    def steers(self, k: int) -> bool:
        first, end = self.steered
        return k >= first and (end is None or k < end)


class _Pipeline:
    """Rows between two models. Of the two that with more rows at hand goes on, so that both work on full batches.

    Equal requests, as of the cells of a sweep before they part, are asked once.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        upstream: Upstream,
        corrector: LanguageModel | None,
        steer: Steering | None,
        limits: _Limits,
        batch_size: int,
        tricks: Tricks | None,
    ) -> None:
        self.rows = [_Row(i, problem) for i, problem in enumerate(problems)]
        self.upstream, self.writer = upstream, upstream.writer()
        self.corrector, self.steer, self.limits = corrector, steer, limits
        acts = corrector is not None and limits.corrected > 0
        self.decoder = decoder_of(corrector, steer, 0.0, batch_size, tricks) if corrector and acts else None
        self._asked: dict[Request, list[_Row]] = {}
        self._answers: dict[Request, str] = {}
        self._open = Counter(problem.id for problem in problems)

    def run(self, bar: Any) -> list[_Row]:
        with self.writer.running(), self.decoder.running() if self.decoder else nullcontext():
            for row in self.rows:
                self._ask(row)
            correcting = False
            while (n_last := self.decoder.load if self.decoder else 0) + self.writer.load:
                here, there = (n_last, self.writer.load) if correcting else (self.writer.load, n_last)
                correcting ^= here * PATIENCE < there or not here
                if self.decoder and correcting:
                    for job, output in self.decoder.step():
                        self._corrected(self.rows[job.tag], output.ids, output.ended, output.applied)
                else:
                    for request, sentence in self.writer.step():
                        self._answers[request] = sentence
                        for row in self._asked.pop(request):
                            self._written(row, sentence)
                bar.update(sum(row.stopped is not None for row in self.rows) - bar.n)
        return self.rows

    def _ask(self, row: _Row) -> None:
        """Let the upstream write the row's next sentence; a row that may not go on stops."""
        k = len(row.rounds)
        if k == self.limits.rounds:
            return self._stop(row, "rounds")
        request = Request(row.problem, row.answer, k)
        if request in self._answers:
            return self._written(row, self._answers[request])
        if request in self._asked:
            self._asked[request].append(row)
            return None
        try:
            fits = self.upstream.fits(request, self.limits.tokens)
        except UserError:
            if not row.answer:  # then it is the question that the upstream cannot read
                raise
            return self._stop(row, "unreadable")
        if not fits:
            return self._stop(row, "length")
        self._asked[request] = [row]
        self.writer.submit(request)

    def _written(self, row: _Row, span: str) -> None:
        """The upstream wrote a sentence: correct it, or take it as it is."""
        if not (last := span.strip()):
            return self._stop(row, "end")
        row.lead, row.last, k = span[: span.index(last)], last, len(row.rounds)
        if self.decoder is None or self.corrector is None or k >= self.limits.corrected:
            return self._grow(row, Round(row.answer, last, None))
        try:
            prompt = self.corrector.encode(row.problem.question, row.answer, last)
        except UserError:
            self.corrector.encode(row.problem.question, "", "")  # a question that it cannot read is the user's to cure
            return self._stop(row, "unreadable")
        if not fits_window(self.corrector, len(prompt), self.limits.sentence_tokens):
            return self._stop(row, "length")
        check_request(self.corrector, [prompt], self.limits.sentence_tokens, 0.0, None)
        on = self.steer is not None and self.limits.steers(k)
        draft = draft_of(self.corrector, prompt)
        self.decoder.submit(
            Job(
                prompt,
                self.limits.sentence_tokens,
                row.index if on else -1,
                draft,
                session=row.problem.id,
                tag=row.index,
            )
        )

    def _corrected(self, row: _Row, ids: Sequence[int], ended: bool, applied: int) -> None:
        assert self.corrector is not None
        self._grow(row, Round(row.answer, row.last, self.corrector.decode(list(ids)), ended, applied))

    def _grow(self, row: _Row, done: Round) -> None:
        row.rounds.append(done)
        sentence = done.last if done.correction is None else done.correction
        if not sentence:
            return self._stop(row, "empty")
        row.answer += row.lead + sentence
        self._ask(row)

    def _stop(self, row: _Row, reason: Stopped) -> None:
        row.stopped = reason
        self._open[row.problem.id] -= 1
        if not self._open[row.problem.id]:
            self.writer.forget(row.problem.id)
            if self.decoder:
                self.decoder.forget(row.problem.id)
