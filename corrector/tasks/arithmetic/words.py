"""The closed vocabulary of the arithmetic task: names, objects, and every sentence template."""

from __future__ import annotations

import re
from collections.abc import Mapping

PRONOUNS: Mapping[str, str] = {
    "Anna": "She",
    "Ben": "He",
    "Clara": "She",
    "David": "He",
    "Emma": "She",
    "Felix": "He",
    "Grace": "She",
    "Henry": "He",
    "Iris": "She",
    "Jack": "He",
    "Lily": "She",
    "Max": "He",
}
OBJECT_FORM: Mapping[str, str] = {"She": "her", "He": "him"}
NAMES = tuple(PRONOUNS)
THINGS = ("apples", "balls", "books", "cards", "coins", "cups", "eggs", "pears", "pens", "shells", "stamps", "stones")

OPENINGS = ("{name} has {n} {things}.", "{name} starts with {n} {things}.", "{name} owns {n} {things}.")
CLAUSES: Mapping[str, tuple[str, ...]] = {
    "+": (
        "{S} buys {n} more.",
        "{S} finds {n} {things}.",
        "Then {s} wins {n} {things}.",
        "{friend} gives {o} {n} more.",
        "{S} picks {n} more.",
    ),
    "-": (
        "{S} sells {n} of them.",
        "{S} drops {n} {things}.",
        "Then {s} gives {n} to {friend}.",
        "{friend} takes {n} of them.",
        "{S} breaks {n} {things}.",
    ),
    "*": (
        "Then {s} makes it {n} times as many.",
        "Now the number of {things} is {n} times as large.",
    ),
}
CLOSINGS = (
    "How many {things} does {name} have now?",
    "How many {things} are there in the end?",
    "What is the number of {things} now?",
)

STYLES = (
    "Now {equation} {things}.",
    "{S} {act}, so {equation}.",
    "We {do}: {equation}.",
    "Then {s} has {equation} {things}.",
    "That makes {equation} {things} in all.",
    "The next step is {equation}.",
)
"""Step sentences; style 0 is the canonical one. Every style states the equation."""
ACTS: Mapping[str, str] = {"+": "gets {n} more", "-": "loses {n}", "*": "multiplies it by {n}"}
DOS: Mapping[str, str] = {"+": "add {n}", "-": "take away {n}", "*": "multiply by {n}"}
NEUTRALS = ("Now there are {n} {things}.", "So {s} has {n} {things}.", "This makes {n} {things}.")
"""A step's result without its equation."""
ANSWER = "The answer is {n}."
OFF_TOPIC = (
    "The sky is blue today.",
    "We like music a lot.",
    "It is a warm day.",
    "Dogs are good friends.",
    "The train is late again.",
    "Green tea is good.",
)
OPENER = "Redo:"
"""The opener that the graders know beside the task's own."""


def vocabulary() -> list[str]:
    """Every word that a question or a sentence of the task can hold, sorted."""
    clauses = [c for group in CLAUSES.values() for c in group]
    texts = [*OPENINGS, *clauses, *CLOSINGS, *STYLES, *ACTS.values(), *DOS.values(), *NEUTRALS, *OFF_TOPIC]
    bare = [re.sub(r"\{\w+\}", " ", text) for text in [*texts, ANSWER, OPENER]]
    pronouns = [form for p, o in OBJECT_FORM.items() for form in (p, p.lower(), o)]
    return sorted(set(re.findall(r"[A-Za-z]+", " ".join([*bare, *NAMES, *THINGS, *pronouns]))))
