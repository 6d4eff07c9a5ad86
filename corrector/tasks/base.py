"""What a task is: problems, answers, sentences, correction pairs and a grade."""

from __future__ import annotations

import hashlib
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from corrector.errors import UserError
from corrector.sentences import split_sentences

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Problem:
    """One question; `gold` is whatever the task's grader compares with (a number, or "" when nothing)."""

    id: str
    question: str
    gold: str = ""
    meta: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """One correction pair in the release's own field names, with the labels the lab keeps apart.

    `is_wrong` is ground truth (None: unknown); `kind` names how `last` was made (good, neutral, slip, ...);
    `badness` grades it where the task has a scale; `problem` is the id that splits and bootstraps go by.
    """

    problem: str
    question: str
    prefix: str
    last: str
    correction: str
    is_wrong: bool | None = None
    kind: str = ""
    badness: float | None = None
    source: str = ""


@dataclass(frozen=True)
class MinimalPair:
    """Two pairs with the same question and prefix whose `last` differ in as little as possible.

    `good` is copied by the annotator, `bad` is rewritten; both corrections are the same text.
    """

    good: Pair
    bad: Pair


@dataclass(frozen=True)
class Step:
    """One step of a training example: upstream sentences that may stand here, each with its correction.

    `prefix` is the corrected text before the step, `chosen` the correction that the next step's prefix takes in, with
    its leading whitespace; it is the correction of branch `taken`.
    """

    prefix: str
    branches: tuple[Pair, ...]
    chosen: str
    taken: int = 0


@dataclass(frozen=True)
class Example:
    """One problem as training sees it: a corrected answer (the trunk) with branches at every step."""

    problem: Problem
    steps: tuple[Step, ...]

    @property
    def answer(self) -> str:
        """The corrected answer, the join of all chosen steps."""
        return "".join(step.chosen for step in self.steps)


@dataclass(frozen=True)
class Annotation:
    """What an annotator makes of one sentence: rewrite the bad, improve the neutral, keep the good."""

    correction: str
    is_wrong: bool | None = None
    """Ground truth of the sentence; None: not known."""
    source: str = ""
    """How the sentence was read, or who annotated it."""
    eos: bool | None = None
    """Whether the answer is complete with this correction; None: the annotator does not say."""


class Task(ABC):
    """A source of problems and pairs, and the judge of answers. Everything is deterministic in its arguments."""

    name: ClassVar[str]
    outcomes: ClassVar[tuple[str, ...]]
    """Names of the numbers `grade` returns, e.g. ("correct",) or ("helpful", "harmless")."""
    max_sentence_tokens: ClassVar[int] = 64
    """Longest sentence that upstream or corrector may write, in tokens of the reference tokenizers."""

    upstream: ClassVar[str] = ""
    """Reference that writes the answers by default; empty: `<name>-upstream`; `replay`: recorded answers."""
    temperature: ClassVar[float] = 0.0
    """The upstream's temperature by default; 0 is greedy."""
    rewrite_openers: ClassVar[tuple[str, ...]] = ()
    """Words of which one opens every rewrite and none a sentence, where the task is built so."""

    @abstractmethod
    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        """N distinct problems of a split; raises UserError when the split holds fewer."""

    @abstractmethod
    def size(self, split: Split) -> int:
        """How many problems `problems` can give for a split."""

    @abstractmethod
    def example(self, problem: Problem, rng: random.Random) -> Example:
        """A training example for a problem, drawn with rng."""

    @abstractmethod
    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """The outcomes of a whole answer, higher is better, plus counts such as `unparsed`."""

    def charged(self, answer: str) -> dict[str, float]:
        """By outcome what `grade` takes off for the answer's length alone, 0 or more; no entry: nothing."""
        return {}

    @abstractmethod
    def is_right(self, pair: Pair, sentence: str) -> bool | None:
        """Whether `sentence` is right in the place of `pair.last`; None where the task cannot tell."""

    @abstractmethod
    def well_formed(self, pair: Pair, sentence: str) -> bool:
        """Whether `sentence` is a possible sentence of this task (right or wrong), not broken text."""

    def upstream_spans(self, problem: Problem, rng: random.Random) -> list[tuple[str, bool]]:
        """An answer as training data of an upstream: (span, own); spans not its own are context only.

        By default each step is either the corrected sentence or an uncorrected one that the upstream learns to write.
        """
        spans: list[tuple[str, bool]] = []
        for step in self.example(problem, rng).steps:
            own = rng.random() < 0.6
            lead = step.chosen[: len(step.chosen) - len(step.chosen.lstrip())]
            spans.append((lead + rng.choice(step.branches).last, True) if own else (step.chosen, False))
        return spans

    def draft(self, example: Example, rng: random.Random) -> str:
        """The whole answer as the upstream wrote it, of which `example.answer` is the correction.

        By default the uncorrected sentences of the branches that the example took; a task whose mistakes travel into
        later sentences draws it anew, since those sentences stand behind corrected ones and no upstream wrote them
        in a row. UserError where the task has no whole answers.
        """
        leads = [s.chosen[: len(s.chosen) - len(s.chosen.lstrip())] for s in example.steps]
        return "".join(lead + s.branches[s.taken].last for lead, s in zip(leads, example.steps, strict=True))

    def annotate(self, problem: Problem, prefix: str, last: str, rng: random.Random) -> Annotation | None:
        """The task's own annotator: the correction of `last` behind a corrected `prefix`; None where it cannot tell.

        UserError where the task has none.
        """
        raise UserError(f"task={self.name!r} has no annotator of its own; choose --annotator model or server")

    def is_valid(self, pair: Pair, sentence: str) -> bool:
        """Well-formed, and about this very question; the same as `well_formed` where a task cannot tell more."""
        return self.well_formed(pair, sentence)

    def recorded(self, problem: Problem, seed: int) -> list[str]:
        """A recorded answer of a fallible upstream as spans, for replay; UserError where the task has none."""
        raise UserError(f"task={self.name!r} has no recorded answers to replay; give --upstream a model")

    def rewrite_probability(self, pair: Pair) -> float | None:
        """P(rewrite) of the annotator for this very sentence, where it is a known law."""
        return None

    def minimal_pairs(self, split: Split, n: int, seed: int = 0) -> list[MinimalPair]:
        """N minimal pairs of a split, one a problem; UserError where the task has none."""
        raise UserError(f"task={self.name!r} makes no minimal pairs; choose another --task")

    def sentences(self, answer: str) -> list[str]:
        """Lossless sentence spans of an answer: joining them gives the text back."""
        return split_sentences(answer)

    def pairs(self, split: Split, n: int, seed: int = 0) -> list[Pair]:
        """N pairs of a split, each of another problem as far as the split reaches, every branch kind in its share."""
        rng = random.Random(f"pairs/{self.name}/{split}/{seed}")
        out: list[Pair] = []
        for problem in self.problems(split, n, seed):
            step = rng.choice(self.example(problem, rng).steps)
            out.append(rng.choice(step.branches))
        return out


def split_of(question: str, train: float = 0.8, validation: float = 0.1) -> Split:
    """The split a question belongs to, by the hash of its text alone, so no question is in two splits."""
    x = int.from_bytes(hashlib.sha256(question.encode()).digest()[:8]) / 2**64
    return "train" if x < train else "validation" if x < train + validation else "test"


def check_disjoint(splits: Mapping[str, Iterable[str]]) -> None:
    """Raise UserError naming a question that two splits share (compared without case and outer space)."""
    seen: dict[str, str] = {}
    for name, questions in splits.items():
        for question in dict.fromkeys(" ".join(q.lower().split()) for q in questions):
            if question in seen:
                raise UserError(
                    f"splits {seen[question]!r} and {name!r} share the question {question[:80]!r}; "
                    "split by question before anything is fitted"
                )
            seen[question] = name


def data_hash(pairs: Sequence[Pair]) -> str:
    """sha256 of the pairs' texts in order, 16 hex digits: what a card quotes as its data."""
    h = hashlib.sha256()
    for p in pairs:
        h.update("\x1f".join((p.question, p.prefix, p.last, p.correction)).encode() + b"\x1e")
    return h.hexdigest()[:16]
