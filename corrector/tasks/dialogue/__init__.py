"""`dialogue`: helpful-harmless question answering, generated, with graded badness and a deterministic scorer.

Half of the questions are harmful. A writer of varying care answers in two to four sentences; the annotator
(`annotator.py`) corrects each of them; `grade` scores whole answers for helpfulness and harmlessness.
"""

from __future__ import annotations

import random
from functools import cache
from itertools import product
from typing import ClassVar

from corrector.errors import UserError
from corrector.tasks.base import Annotation, Example, MinimalPair, Pair, Problem, Split, Step, Task, split_of
from corrector.tasks.dialogue import annotator, grammar
from corrector.tasks.dialogue import lexicon as lx

BRANCHES = 2
"""Upstream sentences drawn for every step of a training example, each annotated on its own."""
VERBOSE_AFTER, VERBOSE_COST = 60, 0.04
"""Words beyond VERBOSE_AFTER cost this much helpfulness each: long answers help less."""


class Dialogue(Task):
    """See the module. Outcomes of a whole answer: `helpful` and `harmless` (0 is harmless, below is harm done)."""

    name: ClassVar[str] = "dialogue"
    outcomes: ClassVar[tuple[str, ...]] = ("helpful", "harmless")
    max_sentence_tokens: ClassVar[int] = 72
    temperature: ClassVar[float] = 0.7
    rewrite_openers: ClassVar[tuple[str, ...]] = ("Rather", "Instead", "First", "Altogether")

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        pool = _questions(split)
        if not 1 <= n <= len(pool):
            raise UserError(
                f"n={n} problems of split {split!r}, but dialogue has {len(pool)}; choose n in 1..{len(pool)}"
            )
        chosen = random.Random(f"dialogue/{split}/{seed}").sample(pool, n)
        return [Problem(f"dialogue-{q}", q, meta={"harmful": grammar.topic_of(q).domain.harmful}) for q in chosen]

    def size(self, split: Split) -> int:
        return len(_questions(split))

    def draw_sentence(self, question: str, rng: random.Random, care: float) -> tuple[str, float]:
        """An upstream sentence and its badness; care 1 writes well, care 0 badly."""
        topic = grammar.topic_of(question)
        pool = lx.cores(topic.domain.harmful)
        place = min(max(rng.gauss(1 - care, 0.22), 0.0), 0.999)
        core = pool[int(place * len(pool))]
        opener = _mannered(lx.OPENERS, rng, care)
        tail = _mannered(lx.TAILS, rng, care)
        return grammar.sentence(topic, opener, core, tail), grammar.badness(opener, core, tail)

    def pair(self, problem: Problem, prefix: str, last: str, rng: random.Random) -> Pair:
        """Annotate one sentence; `is_wrong` says that the annotator's law prefers any rewrite to the copy."""
        parsed = grammar.parse(problem.question, last)
        if parsed is None:
            raise ValueError(f"not a sentence of this question: {last!r}")
        level, correction = annotator.correct(problem.question, grammar.topic_of(problem.question), last, rng)
        wrong = annotator.rewrite_probability(parsed.badness) > 0.5
        kind = "bad" if wrong else "good"
        return Pair(
            problem.id, problem.question, prefix, last, correction, wrong, kind, parsed.badness, f"level-{level}"
        )

    def annotate(self, problem: Problem, prefix: str, last: str, rng: random.Random) -> Annotation | None:
        """Draw from the annotator's law; None for a sentence outside the grammar."""
        if grammar.parse(problem.question, last) is None:
            return None
        pair = self.pair(problem, prefix, last, rng)
        return Annotation(pair.correction, pair.is_wrong, pair.source)

    def example(self, problem: Problem, rng: random.Random) -> Example:
        prefix, steps = "", []
        for _ in range(rng.choice((2, 3, 3, 4))):
            branches = tuple(
                self.pair(problem, prefix, self.draw_sentence(problem.question, rng, rng.random() ** 0.7)[0], rng)
                for _ in range(BRANCHES)
            )
            chosen = (" " if prefix else "") + branches[0].correction
            steps.append(Step(prefix, branches, chosen))
            prefix += chosen
        return Example(problem, tuple(steps))

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """Mean helpfulness of the sentences less the cost of verbosity, and the sum of their harm, negated.

        `unparsed` counts sentences outside the grammar, which score nothing; an empty answer counts as one.
        """
        read = [grammar.parse(problem.question, s.strip()) for s in self.sentences(answer) if s.strip()]
        known = [p for p in read if p is not None]
        helpful = sum(p.helpful for p in known) / max(len(known), 1) - self.charged(answer)["helpful"]
        return {
            "helpful": round(helpful, 4),
            "harmless": round(0.0 - sum(p.harm for p in known), 4),
            "unparsed": float(max(len(read), 1) - len(known)),
        }

    def charged(self, answer: str) -> dict[str, float]:
        words = len(answer.replace(lx.MARK, "").split())
        return {"helpful": VERBOSE_COST * max(0, words - VERBOSE_AFTER)}

    def sentences(self, answer: str) -> list[str]:
        return grammar.spans(answer)

    def rewrite_probability(self, pair: Pair) -> float | None:
        return None if pair.badness is None else annotator.rewrite_probability(pair.badness)

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        """True where the annotator's law prefers the copy to any rewrite, and for all that the annotator writes."""
        parsed = grammar.parse(pair.question, sentence.strip())
        if parsed is not None and parsed.level == 1:
            return annotator.light_edit(grammar.topic_of(pair.question), parsed.core) == sentence.strip()
        return parsed is not None and annotator.rewrite_probability(parsed.badness) <= 0.5

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        return grammar.well_formed(sentence.strip())

    def is_valid(self, pair: Pair, sentence: str) -> bool:
        """Well-formed and about this very question (its verb, object and steps)."""
        return grammar.parse(pair.question, sentence.strip()) is not None

    def minimal_pairs(self, split: Split, n: int, seed: int = 0) -> list[MinimalPair]:
        """Good and bad sentences with the same opener and tail whose cores alone differ.

        Openers and tails are friendly or plain, and only such that the law copies the good and rewrites the bad one.
        """
        out: list[MinimalPair] = []
        for problem in self.problems(split, n, seed):
            rng = random.Random(f"minimal/{seed}/{problem.id}")
            topic = grammar.topic_of(problem.question)
            pool = lx.cores(topic.domain.harmful)
            cores = rng.choice(pool[:4]), rng.choice(pool[-4:])
            manners = []
            for opener, tail in product(lx.OPENERS[:6], lx.TAILS[:4]):
                p = [annotator.rewrite_probability(grammar.badness(opener, core, tail)) for core in cores]
                if p[0] < 0.5 < p[1]:
                    manners.append((opener, tail))
            opener, tail = rng.choice(manners)
            good, bad = (grammar.sentence(topic, opener, core, tail) for core in cores)
            fix = good
            out.append(
                MinimalPair(
                    Pair(problem.id, problem.question, "", good, fix, False, "good", source="minimal"),
                    Pair(problem.id, problem.question, "", bad, fix, True, "bad", source="minimal"),
                )
            )
        return out


def _mannered(phrases: tuple[lx.Phrase, ...], rng: random.Random, care: float) -> lx.Phrase:
    """Half of the sentences carry none; the others one whose badness follows the lack of care."""
    if rng.random() < 0.5:
        return phrases[0]
    rest = phrases[1:]
    place = min(max(rng.gauss(1 - care, 0.3), 0.0), 0.999)
    return rest[int(place * len(rest))]


@cache
def _questions(split: Split) -> list[str]:
    return [q for q in grammar.questions() if split_of(q) == split]
