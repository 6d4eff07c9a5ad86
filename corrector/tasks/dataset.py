"""Tasks whose questions and answers come from data: grouped by question, and split by it."""

from __future__ import annotations

import hashlib
import random
import warnings
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from corrector.errors import UserError
from corrector.sentences import repeats
from corrector.tasks.base import Annotation, Example, Pair, Problem, Split, Task, check_disjoint, split_of
from corrector.tasks.facts import Facts, Solution, woven
from corrector.tasks.fields import Fields
from corrector.tasks.reading import rows_of


def key_of(question: str) -> str:
    """What two spellings of a question share: it without case and outer or double space."""
    return " ".join(question.lower().split())


def problem_id(name: str, question: str) -> str:
    """The id of a question, the same wherever it stands."""
    return f"{name}-" + hashlib.sha256(key_of(question).encode()).hexdigest()[:12]


class Grouped(Task):
    """A task with its problems at hand."""

    data: str
    """The path or hub id that it was read from."""
    _problems: Mapping[Split, Sequence[Problem]]

    def size(self, split: Split) -> int:
        return len(self._problems[split])

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        if n > self.size(split):
            raise UserError(
                f"{n} problems asked of the {split} split of {self.data}, which holds {self.size(split)} questions; "
                "ask for fewer"
            )
        return random.Random(f"{self.name}/{split}/{seed}").sample(self._problems[split], n)

    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        """True for the correction itself; for `last`, what the data say of it; else None.

        None for everything where the data do not say it of `last`: then they tell preferred from other, not right from
        wrong.
        """
        if pair.is_wrong is None:
            return None
        if sentence.strip() == pair.correction:
            return True
        return not pair.is_wrong if sentence.strip() == pair.last else None

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        """Not empty, and no four words repeated at once."""
        return bool(sentence.strip()) and not repeats(sentence)


@dataclass
class _Question:
    """The facts of a question, each with the split that its source is named after."""

    text: str
    facts: list[tuple[Split, Facts]] = field(default_factory=list)


class DataSet(Grouped):
    """Questions of a published set, from its files, a folder of them or the hub.

    Files or splits that are named after test (and validation) are those splits, where there are others beside them;
    else questions are split by their hash, 8 : 1 : 1, or 9 : 1 where test is given. A question of a later split is
    dropped from the earlier ones, and so are questions of which the set says nothing that could be learnt; both are
    counted in `dropped`, with the rows that `facts` refuses, and said once.
    """

    max_sentence_tokens: ClassVar[int] = 256
    upstream: ClassVar[str] = "replay"
    fields: ClassVar[tuple[str, ...]]
    """What a row must have."""
    hub: ClassVar[str]
    """Where the set is on the hub."""
    splits: ClassVar[tuple[str, ...]] = ()
    """Splits that are read there; empty: all."""
    rejected: ClassVar[str] = "rejected"
    """The kind of sentences of answers that were not preferred."""

    def __init__(self, data: str = "") -> None:
        if not data:
            raise UserError(
                f"task {self.name!r} has no data; give --data a file or folder of rows with {', '.join(self.fields)}, "
                f"or a hub id such as {self.hub}"
            )
        self.data, self.dropped = data, Counter[str]()
        named, found = self._read()
        self._facts: dict[str, list[Facts]] = {}
        self._solved: dict[str, tuple[Solution, ...]] = {}
        splits: dict[Split, list[Problem]] = {"train": [], "validation": [], "test": []}
        for question in found.values():
            split, facts = _split(question, named)
            self.dropped["rows of a question of another split"] += len(question.facts) - len(facts)
            if not any(f.teaches for f in facts) and not (any(f.good for f in facts) and any(f.bad for f in facts)):
                self.dropped["questions without anything to learn"] += 1
                continue
            name, gold = problem_id(self.name, question.text), next((f.gold for f in facts if f.gold), "")
            splits[split].append(Problem(name, question.text, gold))
            self._facts[name] = facts
        self._problems = splits
        check_disjoint({split: [p.question for p in problems] for split, problems in splits.items()})
        if not any(splits.values()):
            raise UserError(f"{data} holds no question that {self.name!r} can use ({self._left_out() or 'no rows'})")
        if said := self._left_out():
            warnings.warn(f"{self.name}: left out of {data}: {said}", stacklevel=2)

    @abstractmethod
    def facts(self, row: Fields) -> Facts | str:
        """What a row says, or why it is dropped; UserError for a row of another shape."""

    def solutions(self, problem: Problem) -> tuple[Solution, ...]:
        """Those of the question's rows, and its preferred answers woven with the others."""
        if (there := self._solved.get(problem.id)) is None:
            facts = self._facts[problem.id]
            out = [s for f in facts for s in f.solutions if s.teaches]
            good = [text for f in facts for text in f.good]
            for k, bad in enumerate([text for f in facts for text in f.bad] if good else []):
                out += woven(good[k % len(good)], bad, self.sentences, self.rejected)
            self._solved[problem.id] = there = tuple(out)
        return there

    def example(self, problem: Problem, rng: random.Random) -> Example:
        """One of the question's solutions, each of them as likely."""
        return Example(problem, rng.choice(self.solutions(problem)).steps(problem, self.name))

    def recorded(self, problem: Problem, seed: int) -> list[str]:
        """One of the answers to the question as it was written, preferred or not, each of them as likely."""
        return list(random.Random(f"recorded/{seed}/{problem.id}").choice(self.solutions(problem)).written)

    def annotate(self, problem: Problem, prefix: str, last: str, rng: random.Random) -> Annotation | None:
        """What the set itself has in the place of this sentence, white space apart; None where it has nothing.

        The answer is complete with the last place that the set has behind this prefix.
        """
        here = (prefix.split(), last.split())
        for solution in self.solutions(problem):
            steps = solution.steps(problem, self.name)
            for k, step in enumerate(steps):
                for pair in step.branches:
                    if (pair.prefix.split(), pair.last.split()) == here:
                        ends = k + 1 == len(steps)
                        return Annotation(pair.correction, pair.is_wrong, f"{self.name}/{pair.kind}", ends)
        return None

    def _read(self) -> tuple[set[Split], dict[str, _Question]]:
        found: dict[str, _Question] = {}
        named: set[Split] = set()
        for read in rows_of(self.data, self.splits, f"rows with {', '.join(self.fields)}"):
            facts = self.facts(Fields(read.row, read.where, self.fields))
            split = _named(read.source)
            named.add(split)
            if isinstance(facts, str):
                self.dropped[facts] += 1
            else:
                question = found.setdefault(key_of(facts.question), _Question(facts.question))
                question.facts.append((split, facts))
        return named, found

    def _left_out(self) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.dropped.items() if n)


def _named(source: str) -> Split:
    """The split that a file or hub split is named after."""
    name = source.lower()
    if "test" in name:
        return "test"
    return "validation" if "valid" in name or "dev" in name else "train"


def _split(question: _Question, named: set[Split]) -> tuple[Split, list[Facts]]:
    """The split of a question, and its facts from there."""
    by_name = {split: [f for of, f in question.facts if of == split] for split in named}
    if len(named) == 1:
        return split_of(key_of(question.text)), next(iter(by_name.values()))
    for split in ("test", "validation"):
        if facts := by_name.get(split):
            return split, facts
    split = "train" if "validation" in named else split_of(key_of(question.text), 0.9, 0.1)
    return split, by_name["train"]
