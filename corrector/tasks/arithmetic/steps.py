"""Answer sentences: written from a calculation in a style, read back, and placed behind a prefix."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from corrector.tasks.arithmetic.stories import Calculation, Story
from corrector.tasks.arithmetic.words import ACTS, ANSWER, DOS, NEUTRALS, OFF_TOPIC, STYLES, THINGS

_EQUATION = re.compile(r"(\d{1,3})([-+*])(\d{1,3})=(\d{1,3})")
_NUMBER = re.compile(r"\d{1,3}")
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Sentence:
    """A sentence understood. `calculation` is set for steps, `result` for steps, neutral sentences and answers."""

    kind: Literal["step", "neutral", "answer", "off_topic"]
    style: int
    calculation: Calculation | None = None
    result: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a prefix stands: steps done, the running total it states, and whether the answer was given."""

    done: int
    total: int
    answered: bool


def write_step(style: int, step: Calculation, pronoun: str, things: str) -> str:
    """The step sentence in a style; acts and operands in its words agree with its equation."""
    act, do = ACTS[step.op].format(n=step.right), DOS[step.op].format(n=step.right)
    fields = {"S": pronoun, "s": pronoun.lower(), "act": act, "do": do}
    return STYLES[style].format(equation=step.equation, things=things, **fields)


def write_neutral(style: int, result: int, pronoun: str, things: str) -> str:
    """The result without its equation."""
    return NEUTRALS[style].format(n=result, s=pronoun.lower(), things=things)


@lru_cache(maxsize=65536)
def read_sentence(text: str) -> Sentence | None:
    """What a sentence says, or None where it is not of the grammar.

    Reading is writing inverted: the numbers, pronoun and things found in the text are written out in every style, and
    a style fits only if it gives the text back to the letter.
    """
    if text in OFF_TOPIC:
        return Sentence("off_topic", OFF_TOPIC.index(text))
    words = set(_WORD.findall(text))
    pronoun = "She" if words & {"She", "she"} else "He"
    things = next((t for t in THINGS if t in words), THINGS[0])
    if found := _EQUATION.search(text):
        left, op, right, result = found.groups()
        step = Calculation(int(left), op, int(right), int(result))
        for style in range(len(STYLES)):
            if write_step(style, step, pronoun, things) == text:
                return Sentence("step", style, step, step.result)
        return None
    if found := _NUMBER.search(text):
        result = int(found[0])
        if ANSWER.format(n=result) == text:
            return Sentence("answer", 0, result=result)
        for style in range(len(NEUTRALS)):
            if write_neutral(style, result, pronoun, things) == text:
                return Sentence("neutral", style, result=result)
    return None


def without_opener(text: str, openers: Sequence[str]) -> str:
    """The sentence stripped, less one opener."""
    text = text.strip()
    return next((text[len(o) :].lstrip() for o in openers if o and text.startswith(o + " ")), text)


def spans(text: str) -> list[str]:
    """Lossless sentence spans with leading whitespace: every stop before whitespace ends one.

    The task's language has no stop inside a sentence, while a general splitter takes "pens." for an abbreviation.
    """
    return re.split(r"(?<=[.?!])(?=\s+\S)", text) if text else []


def place_of(story: Story, prefix: str, openers: Sequence[str]) -> Place:
    """Steps are counted by the sentences that state a result; the running total is the last one stated."""
    done, total, answered = 0, story.start, False
    for text in spans(prefix):
        sentence = read_sentence(without_opener(text, openers))
        if sentence is None or sentence.result is None:
            continue
        if sentence.kind == "answer":
            answered = True
        else:
            done, total = done + 1, sentence.result
    return Place(done, total, answered)


def is_right(story: Story, place: Place, text: str) -> bool:
    """Whether a sentence (opener taken off) states the right operation, operands and result for its place.

    Past the last step the right sentence is the answer, equal to the running total; after the answer nothing is right.
    The pronoun and the things must be the question's. The result without its equation is right as well.
    """
    if place.answered:
        return False
    if place.done >= len(story.operations):
        return text == ANSWER.format(n=place.total)
    step, voice = story.calculation(place.done, place.total), (story.pronoun, story.things)
    return any(text == write_step(i, step, *voice) for i in range(len(STYLES))) or any(
        text == write_neutral(i, step.result, *voice) for i in range(len(NEUTRALS))
    )
