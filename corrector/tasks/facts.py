"""What the rows of a data set say of a question: answers place by place, and sentences with their corrections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest

from corrector.tasks.base import Pair, Problem, Step

GOOD = "good"


@dataclass(frozen=True)
class Said:
    """A sentence that may stand at a place, and its correction; `is_wrong` None: the data do not tell."""

    last: str
    correction: str
    is_wrong: bool | None
    kind: str = GOOD


@dataclass(frozen=True)
class Place:
    """What stands here in the corrected answer, with its leading white space, and what may have stood in its place."""

    chosen: str
    said: tuple[Said, ...]


@dataclass(frozen=True)
class Solution:
    """An answer to a question; `written` are its spans as somebody wrote them, mistakes and all."""

    places: tuple[Place, ...]
    written: tuple[str, ...]

    @property
    def teaches(self) -> bool:
        """Whether any of its sentences is judged."""
        return any(place.said for place in self.places)

    def steps(self, problem: Problem, source: str) -> tuple[Step, ...]:
        """The places as steps of training; what was not judged stands in the prefix only."""
        out: list[Step] = []
        before, unjudged = "", ""
        for place in self.places:
            if not place.said:
                unjudged += place.chosen
                continue
            prefix, chosen = before + unjudged, unjudged + place.chosen
            branches = tuple(
                Pair(problem.id, problem.question, prefix, s.last, s.correction, s.is_wrong, s.kind, source=source)
                for s in place.said
            )
            own = [k for k, s in enumerate(place.said) if s.correction == place.chosen.strip()]
            taken = next((k for k in own if place.said[k].kind != GOOD), own[0] if own else 0)
            out.append(Step(prefix, branches, chosen, taken))
            before, unjudged = prefix + place.chosen, ""
        return tuple(out)


@dataclass(frozen=True)
class Facts:
    """What one row says: a question, and whole solutions or answers that were preferred (`good`) and not (`bad`)."""

    question: str
    gold: str = ""
    solutions: tuple[Solution, ...] = ()
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()

    @property
    def teaches(self) -> bool:
        """Whether a solution of it does."""
        return any(solution.teaches for solution in self.solutions)


def woven(good: str, bad: str, sentences: Callable[[str], list[str]], kind: str) -> tuple[Solution, Solution]:
    """Two answers to a question: (the good one as written, the bad one as written), with the same places.

    At each place of the good answer its own sentence is copied, and the bad answer's sentence at that place becomes it.
    What the bad answer says beyond the good one's end has no correction.
    """
    right, wrong = sentences(good.strip()), sentences(bad.strip())
    places: list[Place] = []
    for chosen, other in zip_longest(right, wrong[: len(right)], fillvalue=""):
        own, last = chosen.strip(), other.strip()
        rewritten = (Said(last, own, None, kind),) if last and last != own else ()
        places.append(Place(chosen, (Said(own, own, None), *rewritten)))
    return Solution(tuple(places), tuple(right)), Solution(tuple(places), tuple(wrong))


def copied(spans: list[str], n: int | None = None, is_wrong: bool | None = False) -> Solution:
    """An answer whose first n spans (None: all) are right as they stand; of the others the data have no correction."""
    places = [Place(span, (Said(span.strip(), span.strip(), is_wrong),)) for span in spans[:n]]
    return Solution(tuple(places), tuple(spans))
