"""Recorded correction pairs from a file, in Stream Aligner's field names or Aligner's."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from corrector.errors import UserError
from corrector.grading import grade
from corrector.sentences import repeats
from corrector.tasks.base import Example, Pair, Problem, Split, Step, Task, check_disjoint, split_of

STREAM = ("question", "prefix", "last", "correction")
ALIGNER = ("question", "answer", "correction")
MAY_BE_EMPTY = ("prefix", "correction")


class Jsonl(Task):
    """Pairs of a file, grouped into problems by question and split by the question's hash (8 : 1 : 1).

    Questions that differ only in case or spacing count as one. Wholly right or wrong text cannot be told from pairs
    alone, so `is_right` is None unless the file says it, and `grade` needs a `solution` in the rows.
    """

    name: ClassVar[str] = "jsonl"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)
    max_sentence_tokens: ClassVar[int] = 256
    upstream: ClassVar[str] = "replay"

    def __init__(self, data: str = "") -> None:
        if not data:
            raise UserError("task 'jsonl' has no data; give --data a file of correction pairs, one JSON object a line")
        self.path = Path(data).expanduser()
        self._pairs: dict[str, list[Pair]] = {}
        self._solutions: dict[str, str] = {}
        for where, pair, solution in _read(self.path):
            self._pairs.setdefault(pair.problem, []).append(pair)
            if solution is not None and self._solutions.setdefault(pair.problem, solution) != solution:
                raise UserError(
                    f"{where}: field 'solution' is {solution!r}, but an earlier row of the same question has "
                    f"{self._solutions[pair.problem]!r}; one question has one solution"
                )
        self._splits: dict[Split, list[str]] = {"train": [], "validation": [], "test": []}
        for problem, pairs in self._pairs.items():
            self._splits[split_of(_key(pairs[0].question))].append(problem)
        check_disjoint({s: [self._pairs[p][0].question for p in problems] for s, problems in self._splits.items()})

    def size(self, split: Split) -> int:
        return len(self._splits[split])

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        if n > self.size(split):
            raise UserError(
                f"{n} problems asked of the {split} split of {self.path}, which holds {self.size(split)} questions; "
                "ask for fewer"
            )
        chosen = random.Random(f"jsonl/{split}/{seed}").sample(self._splits[split], n)
        return [Problem(p, self._pairs[p][0].question, self._solutions.get(p, "")) for p in chosen]

    def example(self, problem: Problem, rng: random.Random) -> Example:
        """One step a row, each with the prefix that its row has: rows of a question need not follow one another."""
        pairs = self._pairs[problem.id]
        return Example(problem, tuple(Step(pair.prefix, (pair,), pair.correction) for pair in pairs))

    def draft(self, example: Example, rng: random.Random) -> str:
        """The answer of a question with one row that has no prefix, as in Aligner's data; UserError for others."""
        if len(example.steps) != 1 or example.steps[0].prefix:
            raise UserError(
                f"{self.path}: question {example.problem.question[:60]!r} has {len(example.steps)} rows of sentences, "
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
                f"{self.path}: question {problem.question[:60]!r} has no field 'solution' to grade by; add it"
            )
        found = grade(problem.gold, answer)
        return {"correct": float(found is True), "unparsed": float(found is None)}

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        """True for the correction itself; for `last`, what the file's `is_wrong` says; else None."""
        if sentence.strip() == pair.correction:
            return True
        if sentence.strip() == pair.last and pair.is_wrong is not None:
            return not pair.is_wrong
        return None

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        """Not empty, and no four words repeated at once."""
        return bool(sentence.strip()) and not repeats(sentence)


def load_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a file, in order: a JSON object a line, or one JSON list of objects.

    Fields are `question, prefix, last, correction` (Stream Aligner) or `question, answer, correction` (Aligner, where
    `last` is the whole answer and `prefix` empty); optional `solution`, `is_wrong` (true or false), `source`; others
    are ignored. `last` and `correction` lose outer space, `prefix` its trailing space. Raises UserError naming file,
    line and field.
    """
    return [pair for _, pair, _ in _read(Path(path).expanduser())]


def _read(path: Path) -> Iterator[tuple[str, Pair, str | None]]:
    """(where, pair, solution) of every row."""
    empty = True
    for where, row in _rows(path):
        empty = False
        if not isinstance(row, dict):
            raise UserError(f"{where}: {type(row).__name__} is no row; an object with {', '.join(STREAM)} is expected")
        aligner = "answer" in row and "last" not in row
        texts = {name: _text(row, name, where) for name in (ALIGNER if aligner else STREAM)}
        is_wrong, solution = row.get("is_wrong"), row.get("solution")
        if is_wrong is not None and not isinstance(is_wrong, bool):
            raise UserError(f"{where}: field 'is_wrong' is {is_wrong!r}; true, false or null is expected")
        if isinstance(solution, int | float) and not isinstance(solution, bool):
            solution = str(solution)
        if solution is not None and not isinstance(solution, str):
            raise UserError(f"{where}: field 'solution' is {solution!r}; a text or a number is expected")
        source = _text(row, "source", where) if row.get("source") is not None else ""
        question, correction = texts["question"], texts["correction"].strip()
        last = texts["answer" if aligner else "last"].strip()
        prefix = texts.get("prefix", "").rstrip()
        name = "jsonl-" + hashlib.sha256(_key(question).encode()).hexdigest()[:12]
        yield where, Pair(name, question, prefix, last, correction, is_wrong, source=source), solution
    if empty:
        raise UserError(f"{path} holds no rows; one object with {', '.join(STREAM)} a line is expected")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is no file; give one of correction pairs, one JSON object a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{error.lineno}: no JSON ({error.msg}); a list of objects is expected") from None
        yield from ((f"{path}: row {n}", row) for n, row in enumerate(rows, 1))
        return
    for n, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{path}:{n}: no JSON ({error.msg}); one object a line is expected") from None
            yield f"{path}:{n}", row


def _text(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        raise UserError(
            f"{where}: field {field!r} is missing; there are {', '.join(map(str, row))}; expected are "
            f"{', '.join(STREAM)} or {', '.join(ALIGNER)}"
        )
    value = row[field]
    if not isinstance(value, str):
        raise UserError(f"{where}: field {field!r} is {value!r}; a text is expected")
    if field not in MAY_BE_EMPTY and not value.strip():
        raise UserError(f"{where}: field {field!r} is empty; drop the row or fill it in")
    return value


def _key(question: str) -> str:
    return " ".join(question.lower().split())
