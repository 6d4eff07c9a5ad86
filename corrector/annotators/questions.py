"""Bare questions of a file as something to annotate: no gold, no rules."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path
from typing import Any, ClassVar

from corrector.errors import UserError
from corrector.sentences import repeats
from corrector.tasks.base import Example, Pair, Problem, Split, Task
from corrector.tasks.dataset import key_of
from corrector.tasks.reading import read_rows

FIELDS = ("question", "prompt", "problem")
HH_TURN = re.compile(r"\A\s*Human:(.*?)(?:\n\nAssistant:|\Z)", re.S)


class Questions(Task):
    """Questions of a JSONL file (plain or .gz) by field question, prompt or problem, or HH-RLHF's first human turns.

    Equal questions count once; `dropped` counts the others. They are not split: the pairs made of them are, by
    question, when task jsonl reads them.
    """

    name: ClassVar[str] = "questions"
    outcomes: ClassVar[tuple[str, ...]] = ()
    max_sentence_tokens: ClassVar[int] = 256

    def __init__(self, path: Path) -> None:
        self.path = path
        found = [_question(row, where) for where, row in read_rows(path.expanduser(), "questions")]
        unique = {key_of(q): q for q in reversed(found)}
        self._questions = list(reversed(unique.values()))
        self.dropped = len(found) - len(unique)
        if not found:
            raise UserError(f"{path} holds no questions; give one JSON object with {FIELDS[0]} a line")

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        if not 1 <= n <= self.size(split):
            raise UserError(f"{n} problems asked of {self.path}, which holds {self.size(split)}; ask for fewer")
        chosen = random.Random(f"questions/{seed}").sample(self._questions, n)
        return [Problem("question-" + hashlib.sha256(q.encode()).hexdigest()[:12], q) for q in chosen]

    def size(self, split: Split) -> int:
        return len(self._questions)

    def example(self, problem: Problem, rng: random.Random) -> Example:
        raise UserError(f"{self.path} holds questions without answers; annotate them first")

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        raise UserError(f"{self.path} holds questions without answers, so none can be graded")

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        return None

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        """Not empty, and no four words repeated at once."""
        return bool(sentence.strip()) and not repeats(sentence)


def _question(row: Any, where: str) -> str:
    fields: dict[str, Any] = row if isinstance(row, dict) else {}
    value = next((fields[name] for name in FIELDS if name in fields), None)
    if value is None and isinstance(fields.get("chosen"), str):
        turn = HH_TURN.match(fields["chosen"])
        value = turn[1] if turn else None
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: no question; an object with {', '.join(FIELDS)} or HH-RLHF's chosen is expected")
    return value.strip()
