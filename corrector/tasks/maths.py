"""Sets of competition mathematics: MATH, PRM800K and ProcessBench."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from corrector.sentences import split_lines
from corrector.tasks.base import Problem
from corrector.tasks.dataset import DataSet
from corrector.tasks.facts import Facts, Place, Said, Solution, copied
from corrector.tasks.fields import Fields
from corrector.tasks.grading import grade, last_boxed

ANSWER = re.compile(r"#\s*Answer\s+(.+?)\s*\Z", re.S)
"""How the answers of PRM800K end."""
WRONG = "wrong"


class _Graded(DataSet):
    """A set whose answers are graded by their last box (math-verify, with a timeout)."""

    outcomes: ClassVar[tuple[str, ...]] = ("correct",)

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """`correct` 1 or 0; `unparsed` 1 where no answer was found, which counts as wrong."""
        found = grade(problem.gold, answer)
        return {"correct": float(found is True), "unparsed": float(found is None)}


class Math(_Graded):
    """MATH (2103.03874): problems with whole solutions, which teach to copy only. Upstreams are yours to give."""

    name: ClassVar[str] = "math"
    fields: ClassVar[tuple[str, ...]] = ("problem", "solution")
    hub: ClassVar[str] = "EleutherAI/hendrycks_math:algebra"

    def facts(self, row: Fields) -> Facts | str:
        solution = row.text("solution").strip()
        gold = row.text("answer").strip() if row.has("answer") else last_boxed(solution)
        if not gold:
            return "rows whose solution has no box"
        return Facts(row.text("problem").strip(), gold, (copied(self.sentences(solution)),))


class Prm800k(_Graded):
    r"""PRM800K (2305.20050): steps of solutions, each with candidates rated -1, 0 or 1 by people.

    The prefix is the chosen steps, a line each. A candidate of -1 is corrected to the chosen step, where that is rated
    1 or written by the labeller, else to the first candidate of 1; candidates of 1 are copied. A path ends with the
    step whose choice is wrong or missing. Recorded is the solution that was rated, mistakes and all.
    """

    name: ClassVar[str] = "prm800k"
    fields: ClassVar[tuple[str, ...]] = ("question", "label")
    hub: ClassVar[str] = "tasksource/PRM800K"

    def sentences(self, answer: str) -> list[str]:
        return split_lines(answer)

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """By what stands behind `# Answer`, where the answer ends in it, else by the last box."""
        marked = ANSWER.search(answer)
        return super().grade(problem, rf"\boxed{{{marked[1]}}}" if marked else answer)

    def facts(self, row: Fields) -> Facts | str:
        question, label = row.inner("question", ("problem", "ground_truth_answer")), row.inner("label", ("steps",))
        if label.has("finish_reason") and label.text("finish_reason") == "bad_problem":
            return "problems reported as broken"
        places: list[Place] = []
        shown: list[str] = []
        for step in label.each("steps", ("completions", "chosen_completion")):
            candidates, chosen = _candidates(step)
            shown += [c.text for c in candidates[:1]]
            if place := _place(candidates, chosen, "\n" if places else ""):
                places.append(place)
            if chosen is None or chosen.rating not in (0, 1):
                break
        written = question.texts("pre_generated_steps") if question.has("pre_generated_steps") else shown
        spans = tuple(text.strip() if i == 0 else f"\n{text.strip()}" for i, text in enumerate(written))
        solution = Solution(tuple(places), spans)
        gold = question.text("ground_truth_answer").strip()
        return Facts(question.text("problem").strip(), gold, (solution,))


@dataclass(frozen=True)
class _Candidate:
    text: str
    rating: int | None
    """-1 wrong, 0 neutral, 1 right; None: not rated."""


def _candidates(step: Fields) -> tuple[list[_Candidate], _Candidate | None]:
    """The candidates of a step, the labeller's own one last, and the one that the path goes on with."""
    given = step.each("completions", ("text", "rating")) if step.has("completions") else []
    out = [_Candidate(c.text("text").strip(), c.number("rating", -1, 1) if c.has("rating") else None) for c in given]
    own = None
    if step.has("human_completion"):
        plain = isinstance(step.row["human_completion"], str)
        text = step.text("human_completion") if plain else step.inner("human_completion", ("text",)).text("text")
        out.append(own := _Candidate(text.strip(), 1))
    return out, out[step.number("chosen_completion", 0, len(given) - 1)] if step.has("chosen_completion") else own


def _place(candidates: Sequence[_Candidate], chosen: _Candidate | None, lead: str) -> Place | None:
    """A step of PRM800K; None where nothing can stand there."""
    right = [c.text for c in candidates if c.rating == 1]
    better = chosen.text if chosen and chosen.rating == 1 else next(iter(right), "")
    wrong = [c.text for c in candidates if c.rating == -1] if better else []
    said = [Said(text, text, False) for text in dict.fromkeys(right)]
    said += [Said(text, better, True, WRONG) for text in dict.fromkeys(wrong)]
    stands = chosen.text if chosen and chosen.rating == 0 else better
    return Place(lead + stands, tuple(said)) if stands else None


class ProcessBench(_Graded):
    """ProcessBench (2412.06559): solutions with the index of their first wrong step, -1 where there is none.

    The steps before it are copied. The set has no corrections, so the wrong step is recorded, for annotators and
    correctors to meet, but in no pair. It has no gold answers; the rows say whether the final one is right.
    """

    name: ClassVar[str] = "processbench"
    outcomes: ClassVar[tuple[str, ...]] = ()
    fields: ClassVar[tuple[str, ...]] = ("problem", "steps", "label")
    hub: ClassVar[str] = "Qwen/ProcessBench"

    def sentences(self, answer: str) -> list[str]:
        return split_lines(answer)

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """Nothing: the set has no gold answers."""
        return {}

    def facts(self, row: Fields) -> Facts | str:
        steps = [step.strip() for step in row.texts("steps")]
        label = row.number("label", -1, len(steps) - 1)
        spans = [step if i == 0 else f"\n{step}" for i, step in enumerate(steps)]
        return Facts(row.text("problem").strip(), "", (copied(spans, None if label < 0 else label),))
