"""Recorded correction pairs from a file, in Stream Aligner's field names or Aligner's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from corrector.errors import UserError
from corrector.tasks.base import Example, Pair, Problem, Split, Step, check_disjoint, split_of
from corrector.tasks.dataset import Grouped, key_of, problem_id
from corrector.tasks.fields import Fields
from corrector.tasks.grading import grade
from corrector.tasks.reading import rows_of

STREAM = ("question", "prefix", "last", "correction")
ALIGNER = ("question", "answer", "correction")
MAY_BE_EMPTY = ("prefix", "correction")


class Jsonl(Grouped):
    """Pairs of a file, grouped into problems by question and split by the question's hash (8 : 1 : 1).

    Questions that differ only in case or spacing count as one. Wholly right or wrong text cannot be told from pairs
    alone, so `is_right` is None unless the file says it, and `grade` needs a `solution` in the rows.
    """

    name: ClassVar[str] = "jsonl"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)
    max_sentence_tokens: ClassVar[int] = 256
    upstream: ClassVar[str] = "replay"
    hub: ClassVar[str] = ""
    """Where such pairs are on the hub."""

    def __init__(self, data: str = "") -> None:
        if not data:
            cure = f", or a hub id such as {self.hub}" if self.hub else ", one JSON object a line"
            raise UserError(f"task {self.name!r} has no data; give --data a file of correction pairs{cure}")
        self.data = data
        self._pairs: dict[str, list[Pair]] = {}
        solutions: dict[str, str] = {}
        for where, pair, solution in _read(data, self.name):
            self._pairs.setdefault(pair.problem, []).append(pair)
            if solution is not None and solutions.setdefault(pair.problem, solution) != solution:
                raise UserError(
                    f"{where}: field 'solution' is {solution!r}, but an earlier row of the same question has "
                    f"{solutions[pair.problem]!r}; one question has one solution"
                )
        splits: dict[Split, list[Problem]] = {"train": [], "validation": [], "test": []}
        for name, pairs in self._pairs.items():
            question = pairs[0].question
            splits[split_of(key_of(question))].append(Problem(name, question, solutions.get(name, "")))
        self._problems = splits
        check_disjoint({split: [p.question for p in problems] for split, problems in splits.items()})

    def example(self, problem: Problem, rng: random.Random) -> Example:
        """One step a row, each with the prefix that its row has: rows of a question need not follow one another."""
        pairs = self._pairs[problem.id]
        return Example(problem, tuple(Step(pair.prefix, (pair,), pair.correction) for pair in pairs))

    def draft(self, example: Example, rng: random.Random) -> str:
        """The answer of a question with one row that has no prefix, as in Aligner's data; UserError for others."""
        if len(example.steps) != 1 or example.steps[0].prefix:
            raise UserError(
                f"{self.data}: question {example.problem.question[:60]!r} has {len(example.steps)} rows of sentences, "
                f"no whole answer; give rows of {', '.join(ALIGNER)}, one a question, or train with --method stream"
            )
        return super().draft(example, rng)

    def recorded(self, problem: Problem, seed: int) -> list[str]:
        """The `last` of every row of the question, in the file's order, as the upstream's sentences."""
        return [p.last if i == 0 else f" {p.last}" for i, p in enumerate(self._pairs[problem.id])]

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """`correct` 1 or 0 against the rows' solution; `unparsed` 1 where no answer was found, which counts as wrong.

        Raises UserError where the rows have no solution.
        """
        if not problem.gold:
            raise UserError(
                f"{self.data}: question {problem.question[:60]!r} has no field 'solution' to grade by; add it"
            )
        found = grade(problem.gold, answer)
        return {"correct": float(found is True), "unparsed": float(found is None)}


class StreamAligner(Jsonl):
    """Pairs of Stream Aligner's release (2501.05336)."""

    name: ClassVar[str] = "stream-aligner"
    hub: ClassVar[str] = "htlou/stream-aligner:math.json"


class Aligner(Jsonl):
    """Whole answers with corrections of Aligner's release (2402.02416)."""

    name: ClassVar[str] = "aligner"
    hub: ClassVar[str] = "aligner/aligner-20K"


def load_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a file, folder or hub data set, in order.

    Fields are `question, prefix, last, correction` (Stream Aligner) or `question, answer, correction` (Aligner, where
    `last` is the whole answer and `prefix` empty); optional `solution`, `is_wrong` (true or false), `source`; others
    are ignored. `last` and `correction` lose outer space, `prefix` its trailing space. Raises UserError naming file,
    line and field.
    """
    return [pair for _, pair, _ in _read(str(path))]


def _read(data: str, name: str = "jsonl") -> Iterator[tuple[str, Pair, str | None]]:
    """(where, pair, solution) of every row."""
    empty = True
    for read in rows_of(data, what="correction pairs"):
        empty = False
        yield read.where, *_pair(Fields(read.row, read.where, STREAM), name)
    if empty:
        raise UserError(f"{data} holds no rows; one object with {', '.join(STREAM)} a line is expected")


def _pair(row: Fields, name: str) -> tuple[Pair, str | None]:
    aligner = "answer" in row.row and "last" not in row.row
    row.expected = (f"{', '.join(STREAM)} or {', '.join(ALIGNER)}",)
    texts = {field: row.text(field, field in MAY_BE_EMPTY) for field in (ALIGNER if aligner else STREAM)}
    is_wrong = row.flag("is_wrong") if row.has("is_wrong") else None
    solution = row.row.get("solution")
    if isinstance(solution, int | float) and not isinstance(solution, bool):
        solution = str(solution)
    if solution is not None and not isinstance(solution, str):
        raise row.wrong("solution", "a text or a number")
    source = row.text("source") if row.has("source") else ""
    question, correction = texts["question"], texts["correction"].strip()
    last = texts["answer" if aligner else "last"].strip()
    prefix = texts.get("prefix", "").rstrip()
    return Pair(problem_id(name, question), question, prefix, last, correction, is_wrong, source=source), solution
