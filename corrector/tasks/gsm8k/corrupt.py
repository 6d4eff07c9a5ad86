"""Wrong versions of an annotated step, with the arithmetic that follows from the mistake recomputed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from corrector.tasks.grading import number
from corrector.tasks.gsm8k.equations import NUMBER, SIGNS, Equation, Line, evaluate, statements, write_number

KINDS = ("slip", "operand", "operation")
FINAL = "####"


@dataclass(frozen=True)
class Corruption:
    """A wrong step: `slip` (sound operation, wrong result), `operand` (a wrong number, its own result right) or
    `operation` (a wrong sign, its own result right). `result` is what the step now arrives at.
    """

    kind: str
    text: str
    result: Fraction


def slip(line: Line, rng: random.Random) -> Corruption | None:
    """The last equation's result with one digit changed, the number of digits kept; on "#### N" its number."""
    if line.text.startswith(FINAL):
        match = re.search(r"[0-9][0-9,.]*", line.text)
        at = match.span() if match else None
    else:
        at = next((e.at for e in reversed(line.equations) if e.at), None)
    if at is None:
        return None
    written = line.text[slice(*at)]
    wrong = change_digit(written, rng)
    result = number(wrong)
    assert result is not None
    return Corruption("slip", rewrite(line.text, {at: wrong}), result)


def change_digit(written: str, rng: random.Random) -> str:
    """Another number of as many digits, differing in one digit; no zero is put in front."""
    places = [i for i, c in enumerate(written) if c.isdigit()]
    i = rng.choice(places)
    leading = i == places[0] and len(places) > 1 and written[i] != "0"
    digits = [d for d in "0123456789" if d != written[i] and not (leading and d == "0")]
    return written[:i] + rng.choice(digits) + written[i + 1 :]


def operand(line: Line, rng: random.Random, pool: Iterable[Fraction]) -> Corruption | None:
    """One operand replaced by a number of the pool (the question's numbers and earlier results), result recomputed.

    Of the replacements only those with a usable result count: positive, other than gold, and whole where gold is.
    """
    choices = [(e, i, value) for e in _last(line) for i in range(len(e.operands)) for value in sorted(set(pool))]
    rng.shuffle(choices)
    for equation, i, value in choices:
        out = substitute(line, equation, {i: value}) if value > 0 else None
        if out and _usable(out[1], equation) and _as_sound(out[0], line):
            return Corruption("operand", *out)
    return None


def operation(line: Line, rng: random.Random) -> Corruption | None:
    """One sign that stands alone between two written operands replaced by another, result recomputed."""
    choices = [(e, i, sign) for e in _last(line) for i in range(len(e.operands) - 1) for sign in "+-*/"]
    rng.shuffle(choices)
    for equation, i, sign in choices:
        gap = (equation.operands[i][1], equation.operands[i + 1][0])
        written = line.text[slice(*gap)]
        marks = written.replace("$", "").strip()
        numbers = list(NUMBER.finditer(equation.expression))
        between = (numbers[i].end(), numbers[i + 1].start())
        if marks not in SIGNS or equation.expression[slice(*between)] != SIGNS[marks] or SIGNS[marks] == sign:
            continue
        expression = rewrite(equation.expression, {between: sign})
        value = evaluate(expression)
        if value is not None and equation.at and _usable(value, equation):
            result = write_number(value, line.text[slice(*equation.at)])
            text = rewrite(line.text, {gap: written.replace(marks, sign), equation.at: result})
            if _as_sound(text, line):
                return Corruption("operation", text, _exact(result))
    return None


def carry(line: Line, wrong: Mapping[Fraction, Fraction]) -> tuple[str, dict[Fraction, Fraction]]:
    """The line as one writes it who holds the `wrong` values for gold's, and {gold result: own result} where changed.

    Every number of the line that has a gold value in `wrong` is replaced, and the equations are recomputed.
    """
    results: dict[Fraction, Fraction] = {}
    edits: dict[tuple[int, int], str] = {}
    for match in NUMBER.finditer(line.text):
        value = number(match[0])
        if value is not None and value in wrong and not re.match(r"[A-WYZa-wyz]", line.text[match.end() :]):
            edits[match.span()] = write_number(wrong[value], match[0])
    for equation in line.equations:
        if equation.at is None:
            continue
        edits = {at: new for at, new in edits.items() if not (equation.at[0] <= at[0] < equation.at[1])}
        values = [number(m[0]) for m in NUMBER.finditer(equation.expression)]
        new = {i: wrong[v] for i, v in enumerate(values) if v is not None and v in wrong}
        value = _recompute(equation.expression, new) if new else None
        gold = number(equation.result)
        if value is not None and gold is not None:
            edits[equation.at] = write_number(value, line.text[slice(*equation.at)])
            results[gold] = _exact(edits[equation.at])
    return rewrite(line.text, edits), results


def substitute(line: Line, equation: Equation, new: Mapping[int, Fraction]) -> tuple[str, Fraction] | None:
    """The line with operands (by index) replaced where it writes them, and its new result; None if not possible."""
    value = _recompute(equation.expression, new)
    if value is None or equation.at is None or not equation.operands:
        return None
    result = write_number(value, line.text[slice(*equation.at)])
    edits = {equation.operands[i]: write_number(v, line.text[slice(*equation.operands[i])]) for i, v in new.items()}
    return rewrite(line.text, {**edits, equation.at: result}), _exact(result)


def rewrite(text: str, edits: Mapping[tuple[int, int], str]) -> str:
    """`text` with disjoint character ranges replaced."""
    for (start, end), new in sorted(edits.items(), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def numbers_in(text: str) -> list[Fraction]:
    """The values of all numbers that a text writes in figures."""
    return [value for m in NUMBER.finditer(text) if (value := number(m[0])) is not None]


def _recompute(expression: str, new: Mapping[int, Fraction]) -> Fraction | None:
    spans = [m.span() for m in NUMBER.finditer(expression)]
    return evaluate(rewrite(expression, {spans[i]: _exactly(v) for i, v in new.items()}))


def _exactly(value: Fraction) -> str:
    return str(value) if value >= 0 and value.denominator == 1 else f"({value.numerator}/{value.denominator})"


def _exact(written: str) -> Fraction:
    value = number(written)
    assert value is not None, written
    return value


def _last(line: Line) -> list[Equation]:
    return [e for e in line.equations if e.at][-1:]


def _as_sound(text: str, line: Line) -> bool:
    """Chained sides ("(30 - 12)/2 = 18/2 = 9") would contradict a change to one of them."""
    return all(ok for _, ok in statements(text)) or not all(ok for _, ok in statements(line.text))


def _usable(value: Fraction, equation: Equation) -> bool:
    gold = number(equation.result)
    whole = gold is not None and gold.denominator == 1
    return value > 0 and value != gold and (value if whole else value * 100).denominator == 1
