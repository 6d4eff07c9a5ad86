"""The align loop: the upstream writes a sentence, the corrector copies or rewrites it, the upstream goes on from that.

Source: Stream Aligner, 2501.05336.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector.decoding import Steering, decode, fits_window
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.tasks.base import Problem, Task
from corrector.upstreams import Request, Upstream

Mode = Literal["stream", "upstream"]
Stopped = Literal["end", "empty", "length", "rounds", "unreadable"]
SteerRows = Callable[[list[int]], Steering]
"""Given the indices (into `problems`) of the rows that a round corrects, in order, their intervention."""


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
    """A problem on its way through the loop."""

    index: int
    problem: Problem
    answer: str = ""
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
    steer: SteerRows | None = None,
    steer_rounds: tuple[int, int | None] | None = None,
    progress: str = "",
) -> list[Alignment]:
    """Answer every problem sentence by sentence; all problems go through a round together.

    In each round the upstream writes the next sentence y1 behind the answer so far; in mode `stream` the corrector
    reads (question, prefix, y1) and writes y2, and the answer grows by y2 with y1's leading whitespace. With `rounds`
    = k the corrector acts in the first k rounds only and the upstream finishes alone; mode `upstream` is k = 0. A row
    is `stopped` by the upstream's `end`, an `empty` y2, `max_rounds` sentences (`rounds`), `max_tokens` tokens of
    answer by the upstream's tokenizer or a prompt that fills a model's window (`length`), or a text that a model wrote
    and the next one has no tokens for (`unreadable`; collapsed models of a closed vocabulary write such).

    Problems may repeat, as when one call serves several cells of a sweep: `steer(live)` gives the intervention for
    those indices; with `steer_rounds` = (i, j) it is asked in rounds i..j-1 only, counted from 0 (j None: to the end),
    and the corrector acts unsteered in the others. Raises UserError for modes and numbers that do not fit.
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
    first, end = steer_rounds or (0, None)
    rows = [_Row(i, problem) for i, problem in enumerate(problems)]
    with tqdm(total=len(rows), desc=progress, unit="problem", disable=not progress) as bar:
        for k in range(max_rounds):
            if not (live := [row for row in rows if row.stopped is None]):
                break
            written = _write(upstream, live, k, max_tokens)
            if corrector is not None and k < n_corrected:
                on = k >= first and (end is None or k < end)
                _correct(corrector, written, task.max_sentence_tokens, batch_size, steer if on else None)
            else:
                for row, lead, last in written:
                    _grow(row, lead, Round(row.answer, last, None))
            bar.update(sum(row.stopped is not None for row in rows) - bar.n)
    return [
        Alignment(r.problem, r.answer, tuple(r.rounds), r.stopped or "rounds", task.grade(r.problem, r.answer))
        for r in rows
    ]


Written = tuple[_Row, str, str]


def _write(upstream: Upstream, rows: list[_Row], k: int, max_tokens: int) -> list[Written]:
    """(row, leading whitespace, y1) for every row that goes on; the others stop. Equal requests are asked once."""
    requests: dict[tuple[str, str], Request] = {}
    for row in rows:
        request = Request(row.problem, row.answer, k)
        try:
            fits = upstream.fits(request, max_tokens)
        except UserError:
            if not row.answer:  # then it is the question that the upstream cannot read
                raise
            row.stopped = "unreadable"
        else:
            row.stopped = None if fits else "length"
        if row.stopped is None:
            requests[row.problem.id, row.answer] = request
    spans = dict(zip(requests, upstream.sentences(list(requests.values())), strict=True))
    written: list[Written] = []
    for row in rows:
        if row.stopped is None:
            span = spans[row.problem.id, row.answer]
            if last := span.strip():
                written.append((row, span[: span.index(last)], last))
            else:
                row.stopped = "end"
    return written


def _correct(
    corrector: LanguageModel, written: list[Written], budget: int, batch_size: int, steer: SteerRows | None
) -> None:
    """Decode one round's corrections and let the answers grow by them; a prompt beyond the window stops its row."""
    todo: list[tuple[_Row, str, str, Encoded]] = []
    for row, lead, last in written:
        try:
            prompt = corrector.encode(row.problem.question, row.answer, last)
        except UserError:
            corrector.encode(row.problem.question, "", "")  # a question that it cannot read is the user's to cure
            row.stopped = "unreadable"
            continue
        if fits_window(corrector, len(prompt), budget):
            todo.append((row, lead, last, prompt))
        else:
            row.stopped = "length"
    steering = steer([row.index for row, *_ in todo]) if steer and todo else None
    prompts = [prompt for *_, prompt in todo]
    outputs = decode(corrector, prompts, max_new_tokens=budget, steering=steering, batch_size=batch_size)
    for (row, lead, last, _), output in zip(todo, outputs, strict=True):
        correction = corrector.decode(list(output.ids))
        _grow(row, lead, Round(row.answer, last, correction, output.ended, output.applied))


def _grow(row: _Row, lead: str, done: Round) -> None:
    row.rounds.append(done)
    sentence = done.last if done.correction is None else done.correction
    if sentence:
        row.answer += lead + sentence
    else:
        row.stopped = "empty"
