"""Calculator annotations `<<48/2=24>>`: found, removed from the text, tied to what the text writes, recomputed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from corrector.tasks.grading import DIGITS, number

ANNOTATION = re.compile(r"<<([^<>]*)>>")
NUMBER = re.compile(rf"(?<![\w.])(?:{DIGITS})(?!\w)|(?<=[xX\u00d7$])(?:{DIGITS})|(?:{DIGITS})")
SIGNS = {
    "+": "+",
    "-": "-",
    "\u2013": "-",
    "\u2212": "-",
    "*": "*",
    "x": "*",
    "X": "*",
    "\u00d7": "*",
    "/": "/",
    "\u00f7": "/",
}
_OPERATIONS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
# Spaces belong to one bracket or sign only: were they shared, a long sum could be cut in exponentially many ways.
_TERM = rf"(?:\(\s*)*\$?(?:{DIGITS})%?(?:\s*\))*"
_SIGN = "".join(re.escape(c) for c in SIGNS)
_SIDE = rf"-?{_TERM}(?:\s*[{_SIGN}]\s*{_TERM})*"
STATED = re.compile(rf"{_SIDE}(?:\s*=\s*{_SIDE})+")
PARTIAL = re.compile(r"(?:(?<![A-Za-z])[xX]|(?<=[0-9])[A-Za-z]|\\bof)$")
RESULT = re.compile(rf"=\s*(?P<sign>-?)\s?\$?(?P<digits>-?(?:{DIGITS}))")


@dataclass(frozen=True)
class Equation:
    """One annotation. Character ranges point into the clean line; `operands` is empty where the text before the
    annotation does not write the expression's numbers in order.
    """

    expression: str
    result: str
    at: tuple[int, int] | None
    """Range of the result as the text writes it, or None where it does not follow the annotation."""
    operands: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Line:
    """One solution step without its annotations."""

    text: str
    equations: tuple[Equation, ...]


def parse_line(raw: str) -> Line:
    """The clean line and its equations, in order."""
    text, equations, at = "", [], 0
    for match in ANNOTATION.finditer(raw):
        text += raw[at : match.start()]
        at = match.end()
        expression, _, result = match[1].replace(" ", "").rpartition("=")
        written = re.compile(rf"-?(?:{DIGITS})").match(raw, at)
        same = written is not None and number(written[0]) == number(result) is not None
        where = (len(text), len(text) + len(written[0])) if written is not None and same else None
        equations.append(Equation(expression, result, where, _written_operands(text, expression)))
    return Line(text + raw[at:], tuple(equations))


def _written_operands(text: str, expression: str) -> tuple[tuple[int, int], ...]:
    """Where `text` writes the expression's numbers, matched backwards from its end; () when one is missing."""
    found: list[tuple[int, int]] = []
    numbers = list(NUMBER.finditer(text))
    for wanted in reversed(NUMBER.findall(expression)):
        while numbers and number(numbers[-1][0]) != number(wanted):
            numbers.pop()
        if not numbers:
            return ()
        found.append(numbers.pop().span())
    return tuple(reversed(found))


def evaluate(expression: str) -> Fraction | None:
    """Exact value of an expression of + - * / and brackets; None when it is none or divides by zero."""
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            return Fraction(str(node.value))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            return _value(node.operand) * (-1 if isinstance(node.op, ast.USub) else 1)
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
        case _:
            raise ValueError(f"{ast.dump(node)} is no arithmetic")


def recomputes(value: Fraction, written: str) -> bool:
    """Whether `written` is the value, exactly or rounded correctly to the one or more decimals it has."""
    result = number(written)
    if result is None:
        return False
    decimals = len(written.partition(".")[2])
    return result == value or (decimals > 0 and abs(result - value) * 2 * 10**decimals <= 1)


def write_number(value: Fraction, like: str) -> str:
    """The value in the manner of `like`: its thousands commas and, where they suffice, its decimals; else two."""
    decimals = len(like.partition(".")[2])
    if value.denominator == 1 and not decimals:
        digits = str(abs(value.numerator))
    else:
        places = max(decimals, 0 if value.denominator == 1 else 2)
        digits = f"{float(abs(value)):.{places}f}"
        if not decimals:
            digits = digits.rstrip("0").rstrip(".")
    whole, dot, rest = digits.partition(".")
    return ("-" if value < 0 else "") + (f"{int(whole):,}" if "," in like else whole) + dot + rest


def statements(text: str) -> list[tuple[str, bool]]:
    """Every equation the text states in figures alone ("$3 x 4 = $12"), with whether it is true.

    What stands in words or in part ("60 students x 2/3 = 40", "4(40) = 160") is no such statement and left out.
    A percentage may be read either way: "100% + 50% = 150%" and "20% * 50 = 10" are both true.
    """
    out: list[tuple[str, bool]] = []
    for match in STATED.finditer(text):
        before, after = text[: match.start()].rstrip(), text[match.end() :]
        if before[-1:].isdigit() or before[-1:] in {*SIGNS, "(", ")", ":"} - {"x", "X"} or PARTIAL.search(before):
            continue
        if before and match[0].startswith("-"):
            continue
        if re.match(rf"\s*(?:\(|[0-9]|[{_SIGN}]\s*[\w$(])", after):
            continue
        sides = [re.sub(r"[$,\s]", "", side) for side in match[0].split("=")]
        sides = ["".join(SIGNS.get(c, c) for c in side) for side in sides]
        for left, right in pairwise(sides):
            if any(c in left[1:] for c in "+-*/"):
                out.append((f"{left}={right}", any(_equal(left, right, hundredth) for hundredth in (True, False))))
    return out


def _equal(left: str, right: str, hundredth: bool) -> bool:
    value, written = (evaluate(re.sub(rf"({DIGITS})%", r"(\1/100)" if hundredth else r"\1", s)) for s in (left, right))
    if value is None or written is None:
        return False
    return value == written or recomputes(value, right)


def result_of(text: str) -> Fraction | None:
    """The step's result: the number after its last "=", else its last number, else None."""
    after = [m["sign"] + m["digits"] for m in RESULT.finditer(text)]
    numbers = after or [m[0] for m in NUMBER.finditer(text)]
    return number(numbers[-1]) if numbers else None
