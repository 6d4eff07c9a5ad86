"""Training branches: at one place a good sentence and another one, each with the annotator's correction.

Wrong sentences are drawn without a look at carrying, so a step that carries is no likelier to be wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from corrector.tasks.arithmetic.steps import Place, is_right, read_sentence, write_neutral, write_step
from corrector.tasks.arithmetic.stories import TOTALS, Calculation, Story, apply, forget_carry, needs_carry
from corrector.tasks.arithmetic.words import ANSWER, NEUTRALS, OFF_TOPIC, STYLES

KINDS = {"slip": 0.55, "neutral": 0.15, "bad": 0.3}
"""What the branch beside the good one is, with its probability."""
SAME_STYLE = 0.5
"""How often the wrong branch has the good one's style, so that digits alone tell them apart."""


@dataclass(frozen=True)
class Branch:
    """An upstream sentence, the annotator's correction without opener, and how it was made."""

    last: str
    correction: str
    kind: str
    source: str


def wrong_number(right: int, rng: random.Random, same_length: bool = False) -> int:
    """A number in 1..99 other than `right`: off by one, by ten, or in one digit."""
    near = [right - 1, right + 1, right - 10, right + 10]
    place = rng.choice([1, 10] if right >= 10 else [1])
    digit = right // place % 10
    near += [right + place * (rng.choice([d for d in range(10) if d != digit]) - digit) for _ in range(2)]
    while True:
        wrong = rng.choice(near)
        if wrong in TOTALS and wrong != right and not (same_length and len(str(wrong)) != len(str(right))):
            return wrong


def slipped(step: Calculation, rng: random.Random, same_length: bool = False) -> Calculation:
    """The step with a wrong result; half the slips on a step that carries forget the carry."""
    wrong = forget_carry(step)
    fits = wrong in TOTALS and not (same_length and len(str(wrong)) != len(str(step.value)))
    if not (needs_carry(step) and fits and rng.random() < 0.5):
        wrong = wrong_number(step.value, rng, same_length)
    return Calculation(step.left, step.op, step.right, wrong)


def answer_branches(total: int, rng: random.Random) -> tuple[Branch, Branch]:
    """The last place: the right answer, and one with a wrong number."""
    good = ANSWER.format(n=total)
    slip = ANSWER.format(n=wrong_number(total, rng))
    return Branch(good, good, "good", "good/answer"), Branch(slip, good, "slip", "slip/answer")


def step_branches(story: Story, index: int, step: Calculation, rng: random.Random) -> tuple[Branch, Branch]:
    """A step's place: a good sentence in a random style, and one drawn from KINDS."""
    voice = (story.pronoun, story.things)
    style = rng.randrange(len(STYLES))
    good = write_step(style, step, *voice)
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    if rng.random() >= SAME_STYLE:
        style = rng.choice([i for i in range(len(STYLES)) if i != style])
    if kind == "slip":
        other = slipped(step, rng)
        forgot = needs_carry(step) and other.result == forget_carry(step)
        source = "slip/carry" if forgot else "slip/number"
        branch = Branch(write_step(style, other, *voice), write_step(style, step, *voice), kind, source)
    elif kind == "neutral":
        last = write_neutral(rng.randrange(len(NEUTRALS)), step.result, *voice)
        branch = Branch(last, write_step(0, step, *voice), kind, "neutral")
    else:
        branch = _bad(story, index, step, style, rng)
    return Branch(good, good, "good", "good"), branch


def annotated(story: Story, place: Place, text: str) -> Branch | None:
    """Any text (opener taken off) at its place, corrected as the branches are; None behind the answer.

    A step wrong in its result (a slip), its operation or one operand is repaired in its own style.
    """
    if place.answered:
        return None
    if place.done >= len(story.operations):
        answer = ANSWER.format(n=place.total)
        return Branch(text, answer, *(("good", "good/answer") if text == answer else ("bad", "bad/answer")))
    step, voice = story.calculation(place.done, place.total), (story.pronoun, story.things)
    read = read_sentence(text)
    if is_right(story, place, text):
        neutral = read is not None and read.kind == "neutral"
        return Branch(text, write_step(0, step, *voice), "neutral", "neutral") if neutral else _good(text)
    done = read.calculation if read else None
    if read is None or done is None:
        return Branch(text, write_step(0, step, *voice), "bad", "bad/other")
    off = sum((done.left != step.left, done.op != step.op, done.right != step.right))
    fixed = write_step(read.style if off < 2 else 0, step, *voice)
    return Branch(text, fixed, *(("bad", "bad/step") if off else ("slip", "slip/number")))


def _good(text: str) -> Branch:
    return Branch(text, text, "good", "good")


def _bad(story: Story, index: int, step: Calculation, style: int, rng: random.Random) -> Branch:
    voice = (story.pronoun, story.things)
    for name in rng.sample(list(_BAD_STEPS), len(_BAD_STEPS)):
        if name == "off_topic":
            last = rng.choice(OFF_TOPIC)
        elif name == "premature":
            last = ANSWER.format(n=step.left)
        else:
            other = _BAD_STEPS[name](story, index, step, rng)
            if other is None or other == step or other.result not in TOTALS:
                continue
            last = write_step(style, other, *voice)
        in_place = name in ("operation", "operand")
        return Branch(last, write_step(style if in_place else 0, step, *voice), "bad", f"bad/{name}")
    raise AssertionError("off-topic sentences always fit")


def _other_operation(story: Story, index: int, step: Calculation, rng: random.Random) -> Calculation | None:
    op = {"+": "-", "-": "+", "*": rng.choice("+-")}[step.op]
    return Calculation(step.left, op, step.right, apply(step.left, op, step.right))


def _other_operand(story: Story, index: int, step: Calculation, rng: random.Random) -> Calculation | None:
    left, right = step.left, step.right
    if rng.random() < 0.3:
        left = wrong_number(left, rng)
    else:
        right = 5 - right if step.op == "*" else wrong_number(right, rng)
    return Calculation(left, step.op, right, apply(left, step.op, right))


def _next_step(story: Story, index: int, step: Calculation, rng: random.Random) -> Calculation | None:
    return story.calculation(index + 1, step.left) if index + 1 < len(story.operations) else None


def _none(story: Story, index: int, step: Calculation, rng: random.Random) -> Calculation | None:
    return None


_BAD_STEPS: dict[str, Callable[[Story, int, Calculation, random.Random], Calculation | None]] = {
    "operation": _other_operation,
    "operand": _other_operand,
    "skipped": _next_step,
    "off_topic": _none,
    "premature": _none,
}
