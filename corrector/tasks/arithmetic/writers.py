"""Answers as an upstream writes them: whole, in mixed styles, and with a habit of forgetting the carry."""

from __future__ import annotations

import random
from collections.abc import Sequence

from corrector.tasks.arithmetic.steps import write_neutral, write_step
from corrector.tasks.arithmetic.stories import TOTALS, Calculation, Story, forget_carry, needs_carry
from corrector.tasks.arithmetic.words import ANSWER, NEUTRALS, STYLES

NEUTRAL_SHARE = 0.1


def write_answer(story: Story, rng: random.Random, forget: float) -> str:
    """An answer whose writer forgets each carry with probability `forget` and goes on from the wrong total.

    It does not forget where some total would leave 1..99 afterwards, so every corpus line stays in the vocabulary
    of two-digit numbers. One sentence in ten states its result only.
    """
    return " ".join(sentence for sentence, _ in write_sentences(story, rng, forget, corrected=0.0))


def write_sentences(
    story: Story, rng: random.Random, forget: float, corrected: float, styles: Sequence[int] = ()
) -> list[tuple[str, bool]]:
    """(sentence, own) of such an answer; with probability `corrected` a step stands as a corrector leaves it.

    Corrected steps are right and not the writer's own: context from which an upstream learns to go on. `styles`, one
    a step, are drawn where none are given.
    """
    total, sentences = story.start, list[tuple[str, bool]]()
    for i in range(len(story.operations)):
        step, own = story.calculation(i, total), rng.random() >= corrected
        if own and needs_carry(step) and rng.random() < forget:
            step = _forgetting(story, i, step)
        total = step.result
        voice = (story.pronoun, story.things)
        if own and rng.random() < NEUTRAL_SHARE:
            sentences.append((write_neutral(rng.randrange(len(NEUTRALS)), total, *voice), True))
        else:
            style = styles[i] if styles else rng.randrange(len(STYLES))
            sentences.append((write_step(style, step, *voice), own))
    return [*sentences, (ANSWER.format(n=total), True)]


def _forgetting(story: Story, index: int, step: Calculation) -> Calculation:
    wrong = forget_carry(step)
    later = [s.result for s in story.continuation(index + 1, wrong)]
    if all(total in TOTALS for total in [wrong, *later]):
        return Calculation(step.left, step.op, step.right, wrong)
    return step
