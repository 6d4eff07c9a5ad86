"""GSM8K as a correction task: a sentence is a line, and wrong lines are made from the annotated equations."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

from corrector.errors import UserError
from corrector.sentences import repeats, split_lines
from corrector.tasks.base import (
    Annotation,
    Example,
    MinimalPair,
    Pair,
    Problem,
    Split,
    Step,
    Task,
    check_disjoint,
    split_of,
)
from corrector.tasks.grading import final_number, number, same_number
from corrector.tasks.gsm8k.corrupt import FINAL, Corruption, carry, change_digit, numbers_in, operand, operation, slip
from corrector.tasks.gsm8k.equations import NUMBER, SIGNS, Line, parse_line, result_of, statements
from corrector.tasks.gsm8k.rows import load

REPLAY_RATE = 0.3
"""Share of equations at which the recorded upstream errs: two answers in three then hold an error."""


class Gsm8k(Task):
    """Train and validation come from train.jsonl (9 : 1 by the question's hash), test from test.jsonl.

    A training question that test holds too, or that stands twice, is dropped and counted in `dropped`.
    """

    name: ClassVar[str] = "gsm8k"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)
    max_sentence_tokens: ClassVar[int] = 96
    upstream: ClassVar[str] = "replay"

    def __init__(self, data: str = "") -> None:
        rows = load(data)
        self.dropped = 0
        self._rows: dict[Split, list[tuple[str, str, str]]] = {"train": [], "validation": [], "test": []}
        self._characters = set("0123456789+-*/").union(
            *(text for file in rows.values() for row in file for text in row)
        )
        seen: set[str] = set()
        for file in ("test", "train"):
            for n, (question, answer) in enumerate(rows[file], 1):
                key = " ".join(question.lower().split())
                if key in seen:
                    self.dropped += 1
                    continue
                seen.add(key)
                split: Split = "test" if file == "test" else split_of(question, 0.9, 0.1)
                self._rows[split].append((f"gsm8k-{file}-{n}", question, answer))
        check_disjoint({split: [question for _, question, _ in of] for split, of in self._rows.items()})

    def size(self, split: Split) -> int:
        return len(self._rows[split])

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        if n > self.size(split):
            raise UserError(
                f"{n} problems asked of gsm8k's {split} split, which holds {self.size(split)}; ask for fewer"
            )
        return [_problem(*row) for row in random.Random(f"gsm8k/{split}/{seed}").sample(self._rows[split], n)]

    def example(self, problem: Problem, rng: random.Random) -> Example:
        """Each gold step copied, and one wrong version of it where it has an equation (or is the "#### N").

        The wrong version is, in equal chance among those that can be made: a slip, a wrong operand (a number of the
        problem, or the wrong result that an earlier mistake would have left), a wrong operation.
        """
        lines, steps, prefix = _lines(problem), list[Step](), ""
        pool = numbers_in(problem.question)
        for i, line in enumerate(lines):
            makers = (slip(line, rng), operand(line, rng, pool), _carried(line, lines[:i], rng), operation(line, rng))
            wrong = [c for c in makers if c is not None]
            branches = [_pair(problem, prefix, line.text, line.text)]
            if wrong:
                kind = rng.choice(sorted({c.kind for c in wrong}))
                pick = rng.choice([c for c in wrong if c.kind == kind])
                branches.append(_pair(problem, prefix, pick.text, line.text, kind))
            separator = "\n" if i else ""
            steps.append(Step(prefix, tuple(branches), separator + line.text))
            prefix += separator + line.text
            pool += _results(line)
        return Example(problem, tuple(steps))

    def corrupted_answer(self, problem: Problem, rng: random.Random, rate: float) -> list[str]:
        """The steps of an upstream that errs with probability `rate` at each equation and calculates on from there.

        A wrong result replaces gold's in every later step, whose equations are recomputed, down to the "#### N".
        """
        if not 0 <= rate <= 1:
            raise UserError(f"rate={rate} is no probability; give one in 0..1")
        wrong, pool, out = dict[Fraction, Fraction](), numbers_in(problem.question), list[str]()
        for line in _lines(problem):
            text, results = carry(line, wrong)
            if text == line.text and line.equations and rng.random() < rate:
                made = [c for c in (slip(line, rng), operand(line, rng, pool), operation(line, rng)) if c is not None]
                if made:
                    pick = rng.choice(made)
                    text, results = pick.text, {_results(line)[-1]: pick.result}
            for gold in _results(line):
                wrong.pop(gold, None)
            wrong.update({gold: own for gold, own in results.items() if gold != own})
            pool += _results(line)
            out.append(text)
        return out

    def draft(self, example: Example, rng: random.Random) -> str:
        """An answer of the upstream that `recorded` replays, drawn with rng."""
        return "\n".join(self.corrupted_answer(example.problem, rng, REPLAY_RATE))

    def recorded(self, problem: Problem, seed: int) -> list[str]:
        """The answer of an upstream that errs at REPLAY_RATE of the equations and calculates on from there."""
        lines = self.corrupted_answer(problem, random.Random(f"recorded/{seed}/{problem.id}"), REPLAY_RATE)
        return [line if i == 0 else f"\n{line}" for i, line in enumerate(lines)]

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """`correct` 1 or 0; `unparsed` 1 where the answer holds no number, which counts as wrong."""
        found = final_number(answer)
        return {"correct": float(same_number(found, problem.gold)), "unparsed": float(found is None)}

    def annotate(self, problem: Problem, prefix: str, last: str, rng: random.Random) -> Annotation | None:
        """Keep a right version of the gold line that stands here, and put it in place of a wrong one.

        Wrong is: a false equation, another final number, or the gold line with other numbers or signs. None for all
        else, since another way to the answer need not be wrong, and behind the "#### N".
        """
        lines, place = _lines(problem), len(prefix.split("\n")) if prefix else 0
        if place >= len(lines):
            return None
        gold, final = lines[place].text, place + 1 == len(lines)
        same = _shape(last) == _shape(gold)
        if self.is_right(_pair(problem, prefix, last, gold), last) and not (
            same and numbers_in(last) != numbers_in(gold)
        ):
            return Annotation(last, False, "gsm8k/good", final)
        wrong = same or any(not true for _, true in statements(last))
        wrong = wrong or (FINAL in last and not same_number(final_number(last), problem.gold))
        return Annotation(gold, True, "gsm8k/wrong", final) if wrong else None

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        """Same result as the gold step, and no false equation in figures; None where the gold step has no number."""
        sentence = sentence.strip()
        if sentence == pair.correction.strip():
            return True
        if pair.correction.startswith(FINAL):
            return sentence.startswith(FINAL) and same_number(final_number(sentence), final_number(pair.correction))
        gold = result_of(pair.correction)
        if gold is None:
            return None
        return result_of(sentence) == gold and all(true for _, true in statements(sentence))

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        """One line, not empty, at most four times gold's length, of the corpus' characters, without a loop."""
        sentence = sentence.strip()
        return (
            0 < len(sentence) <= 4 * len(pair.correction)
            and "\n" not in sentence
            and self._characters.issuperset(sentence)
            and not repeats(sentence)
        )

    def minimal_pairs(self, split: Split, n: int, seed: int = 0) -> list[MinimalPair]:
        """A gold step against the same step with one digit of its result changed, one pair a problem."""
        rng = random.Random(f"minimal/gsm8k/{split}/{seed}")
        out: list[MinimalPair] = []
        for problem in self.problems(split, self.size(split), seed):
            steps = [(s, line) for s, line in _prefixed(_lines(problem)) if line.equations and slip(line, rng)]
            if steps and len(out) < n:
                prefix, line = rng.choice(steps)
                bad = slip(line, rng)
                assert bad is not None
                good = _pair(problem, prefix, line.text, line.text)
                out.append(MinimalPair(good, _pair(problem, prefix, bad.text, line.text, bad.kind)))
        if len(out) < n:
            raise UserError(f"{n} minimal pairs asked of gsm8k's {split} split, which gives {len(out)}; ask for fewer")
        return out

    def sentences(self, answer: str) -> list[str]:
        return split_lines(answer)


def _problem(name: str, question: str, answer: str) -> Problem:
    lines = [parse_line(raw) for raw in answer.split("\n") if raw.strip()]
    meta = {
        "annotated": answer,
        "solution": "\n".join(line.text for line in lines),
        "equations": tuple(f"{e.expression}={e.result}" for line in lines for e in line.equations),
    }
    return Problem(name, question, final_number(lines[-1].text) or "", meta)


def _lines(problem: Problem) -> list[Line]:
    return [parse_line(raw) for raw in str(problem.meta["annotated"]).split("\n") if raw.strip()]


def _prefixed(lines: Sequence[Line]) -> list[tuple[str, Line]]:
    return [("\n".join(line.text for line in lines[:i]), line) for i, line in enumerate(lines)]


def _shape(text: str) -> str:
    """A line without its signs and spaces, and with 0 for each number."""
    text = re.sub(r"(?<=\s)[xX](?=\s)", "", NUMBER.sub("0", text))
    return "".join(c for c in text if c in "xX" or not (c in SIGNS or c.isspace()))


def _results(line: Line) -> list[Fraction]:
    return [value for e in line.equations if (value := number(e.result)) is not None]


def _carried(line: Line, before: Sequence[Line], rng: random.Random) -> Corruption | None:
    """The step after an earlier result went wrong by a digit: sound in itself, with a wrong operand here."""
    earlier = [e.result for b in before for e in b.equations if number(e.result) is not None]
    rng.shuffle(earlier)
    for written in earlier:
        gold, own = number(written), number(change_digit(written, rng))
        if gold is None or own is None or own <= 0:
            continue
        text, results = carry(line, {gold: own})
        if text != line.text and (FINAL in line.text or (results and all(g != r > 0 for g, r in results.items()))):
            return Corruption("operand", text, list(results.values())[-1] if results else own)
    return None


def _pair(problem: Problem, prefix: str, last: str, correction: str, kind: str = "good") -> Pair:
    return Pair(problem.id, problem.question, prefix, last, correction, kind != "good", kind, source="gsm8k")
