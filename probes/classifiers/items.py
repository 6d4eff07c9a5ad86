"""What classifiers are fitted and tested on: pairs of three splits that share no question, about half of each class."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from corrector.errors import UserError
from corrector.tasks.base import Pair, Problem, Split, Task, check_disjoint
from probes.contrasts import is_copy

Part = Literal["train", "validation", "test", "seen"]
PARTS: tuple[Part, ...] = get_args(Part)
SPLIT_PARTS: tuple[Split, ...] = ("train", "validation", "test")
DRAWS = 8
"""Examples drawn of a problem to find a copied and a rewritten sentence, and one more."""


@dataclass(frozen=True)
class Items:
    """Pairs by part. `seen` are further pairs of the train problems: only the control task is tested on them.

    Raises UserError where a split is empty or two splits share a question.
    """

    train: tuple[Pair, ...]
    validation: tuple[Pair, ...]
    test: tuple[Pair, ...]
    seen: tuple[Pair, ...] = ()

    def __post_init__(self) -> None:
        for part in SPLIT_PARTS:
            if not self.parts[part]:
                raise UserError(f"part {part!r} of the items is empty; draw at least one problem of every split")
        check_disjoint({part: [p.question for p in self.parts[part]] for part in SPLIT_PARTS})
        if foreign := {p.problem for p in self.seen} - {p.problem for p in self.train}:
            raise UserError(f"seen holds problem {min(foreign)!r}, which train does not; draw it from train problems")

    @property
    def parts(self) -> Mapping[str, tuple[Pair, ...]]:
        """The pairs of every part by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test, "seen": self.seen}

    @property
    def split_pairs(self) -> list[Pair]:
        """All pairs but the seen ones, part after part: those that have labels."""
        return [*self.train, *self.validation, *self.test]

    @property
    def every(self) -> list[Pair]:
        """All pairs, part after part."""
        return [*self.split_pairs, *self.seen]


def draw(task: Task, train: int, validation: int, test: int, seed: int = 0) -> Items:
    """Two pairs a problem, one that the annotator copies and one that is rewritten, as far as its steps have both.

    So neither class is rare and the question alone says nothing of the class; suffix length and position stay as they
    fall. The arguments count problems. Of every train problem one more pair is drawn into `seen`, where it has one.
    Raises UserError as `task.problems` does.
    """
    chosen: dict[str, list[Pair]] = {}
    seen: list[Pair] = []
    for split, n in zip(SPLIT_PARTS, (train, validation, test), strict=True):
        chosen[split] = []
        for problem in task.problems(split, n, seed):
            rng = random.Random(f"classify/{task.name}/{split}/{seed}/{problem.id}")
            pairs = _pairs(task, problem, rng)
            chosen[split] += pairs[:2]
            seen += pairs[2:3] if split == "train" else []
    return Items(tuple(chosen["train"]), tuple(chosen["validation"]), tuple(chosen["test"]), tuple(seen))


def _pairs(task: Task, problem: Problem, rng: random.Random) -> list[Pair]:
    """Distinct pairs of a problem in random order, but a copied and a rewritten one first where there are both."""
    found: dict[tuple[str, str], Pair] = {}
    for _ in range(DRAWS):
        for step in task.example(problem, rng).steps:
            for pair in step.branches:
                found.setdefault((pair.prefix, pair.last), pair)
        if len(found) > 2 and len({is_copy(p) for p in found.values()}) == 2:
            break
    pairs = list(found.values())
    rng.shuffle(pairs)
    firsts = [next((p for p in pairs if is_copy(p) == copied), None) for copied in rng.sample((True, False), 2)]
    lead = [p for p in firsts if p is not None]
    return lead + [p for p in pairs if all(p is not first for first in lead)]
