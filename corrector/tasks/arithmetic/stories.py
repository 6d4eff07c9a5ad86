"""Word problems with known steps: drawn, written as a question, and read back from one."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from corrector.errors import UserError
from corrector.tasks.arithmetic.words import CLAUSES, CLOSINGS, NAMES, OBJECT_FORM, OPENINGS, PRONOUNS, THINGS

TOTALS = range(1, 100)
"""Running totals that a story or a writer may reach."""
CARRY_SHARE = 0.6
"""Share of problems in which at least one step needs a carry or a borrow."""

N_QUESTIONS = 10**9
"""Fewer than the two-step questions alone, in all splits together."""


@dataclass(frozen=True)
class Calculation:
    """One stated equation `left op right = result`; `result` may be wrong, `value` is right."""

    left: int
    op: str
    right: int
    result: int

    @property
    def value(self) -> int:
        return apply(self.left, self.op, self.right)

    @property
    def equation(self) -> str:
        return f"{self.left}{self.op}{self.right}={self.result}"


@dataclass(frozen=True)
class Story:
    """What a question says: who, what, the first number, and the operations in order."""

    name: str
    things: str
    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def pronoun(self) -> str:
        return PRONOUNS[self.name]

    def calculation(self, index: int, total: int) -> Calculation:
        """Step `index` done rightly from a running total, which may itself be wrong."""
        op, right = self.operations[index]
        return Calculation(total, op, right, apply(total, op, right))

    def continuation(self, index: int, total: int) -> list[Calculation]:
        """Steps `index`, index + 1, ... done rightly from a running total."""
        steps: list[Calculation] = []
        for i in range(index, len(self.operations)):
            steps.append(self.calculation(i, total))
            total = steps[-1].result
        return steps


def apply(left: int, op: str, right: int) -> int:
    """The value of `left op right` for op in + - *."""
    return left + right if op == "+" else left - right if op == "-" else left * right


def needs_carry(step: Calculation) -> bool:
    """Whether the sum carries, the difference borrows or the product carries out of the units."""
    units, right = step.left % 10, step.right % 10
    if step.op == "-":
        return units < right
    return apply(units, step.op, right) >= 10


def forget_carry(step: Calculation) -> int:
    """The result of working digit by digit without a carry or borrow: 27+15=32, 42-15=33, 27*2=44.

    A borrow forgotten takes the smaller digit from the larger (the "smaller-from-larger" bug of Brown & Burton 1978).
    """
    (tens, units), (right_tens, right_units) = divmod(step.left, 10), divmod(step.right, 10)
    if step.op == "*":
        return tens * step.right * 10 + units * step.right % 10
    if step.op == "+":
        return (tens + right_tens) * 10 + (units + right_units) % 10
    return abs(tens - right_tens) * 10 + abs(units - right_units)


def draw_story(rng: random.Random) -> Story:
    """A story of 2 to 5 operations, totals in 1..99; with probability CARRY_SHARE some step needs a carry.

    The number of steps is drawn first and kept, so it tells nothing about carrying.
    """
    n_steps, carry = rng.randint(2, 5), rng.random() < CARRY_SHARE
    name, things = rng.choice(NAMES), rng.choice(THINGS)
    while True:
        start = total = rng.randint(2, 60)
        operations: list[tuple[str, int]] = []
        for _ in range(n_steps):
            operations.append(_draw_operation(total, rng))
            total = apply(total, *operations[-1])
        story = Story(name, things, start, tuple(operations))
        if any(map(needs_carry, story.continuation(0, start))) == carry:
            return story


def _draw_operation(total: int, rng: random.Random) -> tuple[str, int]:
    op = rng.choices("+-*", (0.38, 0.36, 0.26))[0]
    if op == "*":
        factor = rng.choice((2, 3))
        if total * factor in TOTALS:
            return op, factor
        op = rng.choice("+-")
    if total < 4 or (op == "+" and total < 97):
        return "+", rng.randint(2, min(45, 99 - total))
    return "-", rng.randint(2, min(45, total - 1))


def write_question(story: Story, rng: random.Random) -> str:
    """The question in randomly drawn words."""

    def fill(templates: Sequence[str], n: int) -> str:
        pronoun = story.pronoun
        friend = rng.choice([other for other in NAMES if other != story.name])
        fields = {"S": pronoun, "s": pronoun.lower(), "o": OBJECT_FORM[pronoun], "friend": friend}
        return rng.choice(templates).format(n=n, name=story.name, things=story.things, **fields)

    clauses = [fill(CLAUSES[op], right) for op, right in story.operations]
    return " ".join([fill(OPENINGS, story.start), *clauses, fill(CLOSINGS, 0)])


def _pattern(template: str) -> re.Pattern[str]:
    fields = {
        "name": f"(?P<name>{'|'.join(NAMES)})",
        "friend": f"(?:{'|'.join(NAMES)})",
        "things": f"(?P<things>{'|'.join(THINGS)})",
        "n": "(?P<n>[1-9][0-9]?)",
        "S": "(?:She|He)",
        "s": "(?:she|he)",
        "o": "(?:her|him)",
    }
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile("".join(fields[p] if i % 2 else re.escape(p) for i, p in enumerate(parts)))


_OPENING = [_pattern(t) for t in OPENINGS]
_CLAUSE = [(op, _pattern(t)) for op, group in CLAUSES.items() for t in group]
_CLOSING = [_pattern(t) for t in CLOSINGS]


@lru_cache(maxsize=65536)
def read_question(question: str) -> Story:
    """The story that a question tells; UserError names the sentence that is not of this task's grammar."""
    sentences = re.split(r"(?<=[.?])\s+", question.strip())
    first, clauses, last = sentences[0], sentences[1:-1], sentences[-1]
    opening = next((m for p in _OPENING if (m := p.fullmatch(first))), None)
    if opening is None:
        raise _unreadable(first)
    operations: list[tuple[str, int]] = []
    for clause in clauses:
        found = next(((op, m) for op, p in _CLAUSE if (m := p.fullmatch(clause))), None)
        if found is None:
            raise _unreadable(clause)
        operations.append((found[0], int(found[1]["n"])))
    if not operations or not any(p.fullmatch(last) for p in _CLOSING):
        raise _unreadable(last)
    return Story(opening["name"], opening["things"], int(opening["n"]), tuple(operations))


def steps_of(question: str) -> list[Calculation]:
    """The right calculations of a question, in order, read from its text alone."""
    story = read_question(question)
    return story.continuation(0, story.start)


def _unreadable(sentence: str) -> UserError:
    return UserError(
        f"{sentence[:80]!r} is not a sentence that arithmetic questions have there; "
        "take questions from the task's problems(), or another --task"
    )
