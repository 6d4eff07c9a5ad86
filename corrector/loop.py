"""The align loop: the upstream writes a sentence, the corrector copies or rewrites it, the upstream goes on from that.

A pipeline without rounds in step: a row whose sentence is corrected asks for its next one while others still wait.
Source: Stream Aligner, 2501.05336.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from corrector.correction import shown
from corrector.decoding import Steering, Tricks
from corrector.display.table import Html, framed, paragraph, table
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.pipeline import Limits, Mode, Pipeline, Round, Stopped
from corrector.tasks.base import Problem, Task
from corrector.upstreams import LocalUpstream, Upstream

__all__ = ["MODES", "Alignment", "Mode", "Round", "Stopped", "align"]

MODES: tuple[Mode, ...] = ("stream", "continue", "aligner", "upstream")


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

    def _repr_html_(self) -> str:
        """Its rounds as a table of coloured diffs, and what came of them."""
        rows = [(k, *_told(r)) for k, r in enumerate(self.rounds)]
        numbers = ", ".join(f"{name} {value:g}" for name, value in self.outcomes.items())
        gold = f"; gold: {self.problem.gold}" if self.problem.gold else ""
        return framed(
            table(("round", "sentence", ""), rows, self.problem.question, numbers=[0]),
            paragraph(f"{numbers}{gold}; stopped by {self.stopped}", "dim"),
        )


def _told(r: Round) -> tuple[Html | str, str]:
    """A round's sentence as a diff, and in one word what became of it."""
    if r.correction is None:
        return r.last, "not corrected"
    return shown(r.last, r.correction), "copied" if r.correction == r.last else "rewritten"


def align(
    problems: Sequence[Problem],
    upstream: Upstream,
    corrector: LanguageModel | None = None,
    *,
    task: Task,
    mode: Mode = "stream",
    rounds: int | Sequence[int | None] | None = None,
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
    = k the corrector acts in the first k rounds only, then the upstream finishes alone, or in mode `continue` the
    corrector itself, as a plain language model behind the answer so far. Mode `upstream` is k = 0; mode `aligner` lets
    the upstream write the whole answer, which the corrector then corrects as one (2402.02416).

    A row is `stopped` by the writer's `end`, an `empty` y2, `max_rounds` sentences (`rounds`), `max_tokens` tokens of
    answer by the upstream's tokenizer or a prompt that fills a model's window (`length`), or a text that a model wrote
    and the next one has no tokens for (`unreadable`; collapsed models of a closed vocabulary write such).

    Problems may repeat, as when one call serves several cells of a sweep, and `rounds` may be one number a problem:
    what such rows share is asked and corrected once. Row i of `steer` is problem i; with `steer_rounds` = (i, j) it
    acts in rounds i..j-1 only, counted from 0 (j None: to the end). `tricks` are the corrector's decoder's. Raises
    UserError for modes and numbers that do not fit.
    """
    if mode not in MODES:
        raise UserError(f"mode={mode!r} is not one of {', '.join(MODES)}; choose --mode among them")
    if mode != "upstream" and corrector is None:
        raise UserError(f"mode={mode!r} needs a corrector; give one, or choose mode upstream")
    if steer is not None and mode == "upstream":
        raise UserError("steer was given, but mode='upstream' has no corrector to steer; leave one of them out")
    each = [rounds] * len(problems) if rounds is None or isinstance(rounds, int) else [*rounds]
    if len(each) != len(problems):
        raise UserError(f"rounds has {len(each)} numbers for {len(problems)} problems; give one each, or one for all")
    corrected = [0 if mode in ("upstream", "aligner") else max_rounds if k is None else k for k in each]
    least = {"rounds": (min((k for k in [*each, rounds] if isinstance(k, int)), default=0), 0)}
    least |= {"max_rounds": (max_rounds, 1), "max_tokens": (max_tokens, 1)}
    if bad := [f"{name}={n} is below {low}" for name, (n, low) in least.items() if n < low]:
        raise UserError(f"{bad[0]}; choose a larger one")
    limits = Limits(max_rounds, max_tokens, task.max_sentence_tokens, steer_rounds or (0, None))
    finisher = None
    if mode == "continue" and corrector is not None:
        finisher = LocalUpstream(corrector, task, batch_size=batch_size, tricks=tricks)
    pipeline = Pipeline(mode, problems, corrected, upstream, corrector, finisher, steer, limits, batch_size, tricks)
    with tqdm(total=len(problems), desc=progress, unit="problem", disable=not progress) as bar:
        rows = pipeline.run(lambda: bar.update(sum(row.stopped is not None for row in pipeline.rows) - bar.n))
    return [
        Alignment(r.problem, r.answer, tuple(r.rounds), r.stopped or "rounds", task.grade(r.problem, r.answer))
        for r in rows
    ]
