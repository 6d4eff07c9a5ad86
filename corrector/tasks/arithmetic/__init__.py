"""Multi-step word problems on small numbers: generated, parsed back, and graded exactly."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import ClassVar

from corrector.errors import UserError
from corrector.tasks.arithmetic.branches import Branch, annotated, answer_branches, slipped, step_branches
from corrector.tasks.arithmetic.steps import is_right, place_of, read_sentence, spans, without_opener, write_step
from corrector.tasks.arithmetic.stories import (
    N_QUESTIONS,
    Calculation,
    draw_story,
    forget_carry,
    needs_carry,
    read_question,
    steps_of,
    write_question,
)
from corrector.tasks.arithmetic.words import OPENER, STYLES, vocabulary
from corrector.tasks.arithmetic.writers import write_answer, write_sentences
from corrector.tasks.base import Annotation, Example, MinimalPair, Pair, Problem, Split, Step, Task, split_of

__all__ = ["Arithmetic", "Calculation", "forget_carry", "needs_carry", "steps_of", "vocabulary"]

UPSTREAM_FORGETS = 0.8
"""How often the reference upstream's corpus forgets a carry: more often than not, so that greedy decoding does."""


@dataclass(frozen=True)
class Arithmetic(Task):
    """Word problems of 2 to 5 steps of + - *2 *3 with running totals in 1..99."""

    opener: str = ""
    """Word that corrections of slips and bad sentences begin with ("Redo:"); empty: repaired in place."""

    name: ClassVar[str] = "arithmetic"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)
    max_sentence_tokens: ClassVar[int] = 40

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        """The first n distinct problems of a split's seeded stream; UserError for n < 1 or a spent split."""
        if n < 1:
            raise UserError(f"n={n} problems asked for; give at least 1")
        rng = random.Random(f"problems/{self.name}/{split}/{seed}")
        found: dict[str, Problem] = {}
        for _ in range(1000 + 100 * n):
            story = draw_story(rng)
            question = write_question(story, rng)
            if split_of(question) != split or question in found:
                continue
            steps = story.continuation(0, story.start)
            meta = {"n_steps": len(steps), "carry": any(map(needs_carry, steps))}
            digest = hashlib.sha256(question.encode()).hexdigest()[:12]
            found[question] = Problem(f"{self.name}/{digest}", question, str(steps[-1].result), meta)
            if len(found) == n:
                return list(found.values())
        raise UserError(f"split={split!r} gave {len(found)} of n={n} problems; ask for fewer, in train|validation|test")

    def size(self, split: Split) -> int:
        """A floor: the share of a split in N_QUESTIONS, since the questions are too many to be listed."""
        return N_QUESTIONS * (8 if split == "train" else 1) // 10

    def example(self, problem: Problem, rng: random.Random) -> Example:
        """Two branches a place, one good; the trunk takes the correction of either, as the align loop would."""
        story = read_question(problem.question)
        steps: list[Step] = []
        prefix, total = "", story.start
        for i in range(len(story.operations) + 1):
            if i < len(story.operations):
                step = story.calculation(i, total)
                total = step.result
                branches = step_branches(story, i, step, rng)
            else:
                branches = answer_branches(total, rng)
            pairs = tuple(self._pair(problem, prefix, branch) for branch in branches)
            taken = rng.randrange(len(pairs))
            chosen = " " * bool(prefix) + pairs[taken].correction
            steps.append(Step(prefix, pairs, chosen, taken))
            prefix += chosen
        return Example(problem, tuple(steps))

    def faulty_answer(self, problem: Problem, rng: random.Random, forget: float = 0.8) -> str:
        """An answer by a writer that forgets a carry with probability `forget`: the upstream's training text."""
        return write_answer(read_question(problem.question), rng, forget)

    def draft(self, example: Example, rng: random.Random) -> str:
        """The corrected answer as the faulty upstream writes it: same styles, carries forgotten, wrong totals kept on.

        One sentence in ten states its result only.
        """
        read = [read_sentence(without_opener(s.chosen, self._openers)) for s in example.steps]
        styles = [s.style for s in read if s and s.kind == "step"]
        story = read_question(example.problem.question)
        return " ".join(s for s, _ in write_sentences(story, rng, UPSTREAM_FORGETS, 0.0, styles))

    def upstream_spans(self, problem: Problem, rng: random.Random) -> list[tuple[str, bool]]:
        """The faulty writer's answer, a step in three as a corrector leaves it (context, not the writer's own)."""
        written = write_sentences(read_question(problem.question), rng, UPSTREAM_FORGETS, corrected=1 / 3)
        return [(f" {s}" if i else s, own) for i, (s, own) in enumerate(written)]

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """`correct`: the number of the last "The answer is N." equals gold; `no_answer`: there is no such sentence."""
        read = [read_sentence(without_opener(s, self._openers)) for s in spans(answer)]
        given = [s.result for s in read if s and s.kind == "answer"]
        return {"correct": float(bool(given) and str(given[-1]) == problem.gold), "no_answer": float(not given)}

    def is_right(self, pair: Pair, sentence: str) -> bool:
        """Right operation, operands and result for the place, which question and prefix tell (steps.is_right)."""
        story = read_question(pair.question)
        place = place_of(story, pair.prefix, self._openers)
        return is_right(story, place, without_opener(sentence, self._openers))

    def annotate(self, problem: Problem, prefix: str, last: str, rng: random.Random) -> Annotation | None:
        """Correct any text for its place as training pairs are corrected; None behind the answer."""
        story = read_question(problem.question)
        place = place_of(story, prefix, self._openers)
        branch = annotated(story, place, without_opener(last, self._openers))
        if branch is None:
            return None
        pair = self._pair(problem, prefix, branch)
        last_place = place.done >= len(story.operations)
        return Annotation(pair.correction, pair.is_wrong, pair.source, eos=last_place)

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        """Tell whether it is a sentence of the grammar, of whatever kind and truth, with or without opener."""
        return read_sentence(without_opener(sentence, self._openers)) is not None

    def minimal_pairs(self, split: Split, n: int, seed: int = 0) -> list[MinimalPair]:
        """Per problem one place and style, good against slip: they differ in the result's digits, not their number."""
        out: list[MinimalPair] = []
        for problem in self.problems(split, n, seed):
            rng = random.Random(f"minimal/{seed}/{problem.id}")
            steps, places = steps_of(problem.question), self.example(problem, rng).steps
            i = rng.randrange(len(steps))
            story, style = read_question(problem.question), rng.randrange(len(STYLES))
            good = write_step(style, steps[i], story.pronoun, story.things)
            slip = write_step(style, slipped(steps[i], rng, same_length=True), story.pronoun, story.things)
            branches = Branch(good, good, "good", "good"), Branch(slip, good, "slip", "slip/minimal")
            out.append(MinimalPair(*(self._pair(problem, places[i].prefix, b) for b in branches)))
        return out

    def sentences(self, answer: str) -> list[str]:
        """Lossless sentence spans of an answer (steps.spans)."""
        return spans(answer)

    @property
    def _openers(self) -> tuple[str, ...]:
        return (self.opener, OPENER)

    def _pair(self, problem: Problem, prefix: str, branch: Branch) -> Pair:
        wrong = branch.kind in ("slip", "bad")
        correction = f"{self.opener} {branch.correction}" if wrong and self.opener else branch.correction
        texts = (problem.id, problem.question, prefix, branch.last, correction)
        return Pair(*texts, is_wrong=wrong, kind=branch.kind, source=branch.source)
