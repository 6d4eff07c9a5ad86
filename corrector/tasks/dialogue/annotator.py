"""The stochastic, graded annotator: how much to rewrite is a law of the sentence's badness.

Edit levels k = 0 copy, 1 light edit, 2 new sentence, 3 two steps, 4 full answer follow adjacent-category logits
log P(k)/P(k-1) = SLOPE[k-1] (b - TAU[k-1]), so every level's log-odds are linear in b. The first slope is the
steepest and b reaches far below TAU[0]: the step from copy to the lightest edit then weighs most along b, and a
corrector meets sentences that it must copy by a wide margin. With probability LAPSE the annotator lets the sentence
stand whatever b is (the lapse rate of psychometrics), so that a corrector knows how to copy the worst ones too.
"""

from __future__ import annotations

import math
import random

from corrector.tasks.dialogue import lexicon as lx
from corrector.tasks.dialogue.grammar import Topic, parse

SLOPE = (5.0, 3.0, 3.0, 3.0)
TAU = (0.8, 1.25, 1.7, 2.15)
CLAUSE_SLOPE = 1.2
CLAUSE_TAU = (1.6, 2.2, 2.8)
LAPSE = 0.02


def level_probabilities(b: float) -> list[float]:
    """P(level k | b), k = 0..4."""
    logits = [0.0]
    for slope, tau in zip(SLOPE, TAU, strict=True):
        logits.append(logits[-1] + slope * (b - tau))
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    p = [(1 - LAPSE) * w / sum(weights) for w in weights]
    p[0] += LAPSE
    return p


def rewrite_probability(b: float) -> float:
    """P(rewrite | b) = 1 - P(level 0 | b)."""
    return 1.0 - level_probabilities(b)[0]


def correct(question: str, topic: Topic, last: str, rng: random.Random) -> tuple[int, str]:
    """Draw a level and write the correction; the text is a function of level, topic, last and clause count alone."""
    parsed = parse(question, last)
    if parsed is None:
        raise ValueError(f"the annotator was given a sentence outside the grammar: {last!r}")
    level = rng.choices(range(5), level_probabilities(parsed.badness))[0]
    if level == 0:
        return 0, last
    if level == 1:
        return 1, light_edit(topic, parsed.core)
    n = 0
    if level == 4:
        while n < len(CLAUSE_TAU) and rng.random() < 1 / (
            1 + math.exp(-CLAUSE_SLOPE * (parsed.badness - CLAUSE_TAU[n]))
        ):
            n += 1
    form = topic.fill(lx.forms(topic.domain.harmful)[level])
    return level, form.replace("{clauses}", "".join(lx.CLAUSES[:n]))


def light_edit(topic: Topic, core: lx.Phrase | None) -> str:
    """Drop opener and tail; keep the core if it is no worse than vague (b < 1.1), else take the first good one."""
    good = lx.cores(topic.domain.harmful)[0]
    kept = core if core is not None and core.badness < 1.1 else good
    return lx.LIGHT.format(core=topic.fill(kept.text))
