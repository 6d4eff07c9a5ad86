"""Contrasts: what is read against what. Positives are rewritten, negatives are copied."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace

from corrector.decoding import decode
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import MinimalPair, Pair, Problem, Split, Task, check_disjoint
from probes.spans import Sequence, sequence

DRAWS = 8
"""Examples drawn of a problem before it is passed over."""

INSTRUCTIONS = ("Rewrite the whole sentence in new words.", "Copy the whole sentence word for word.")
"""To rewrite and to copy, alike in length, so that length is not what the contrast reads."""


@dataclass(frozen=True)
class Stimulus:
    """One side of a contrast: a pair, and what is teacher-forced behind its prompt (`rival`: see `sequence`)."""

    pair: Pair
    target: str | None = None
    rival: str | None = None

    def sequence(self, lm: LanguageModel) -> Sequence:
        """The stimulus as tokens of a model."""
        return sequence(lm, self.pair, self.target, self.rival)


@dataclass(frozen=True)
class Contrast:
    """Matched stimuli: `positives[i]` is rewritten where `negatives[i]` is copied; `dropped` pairs had no match."""

    kind: str
    positives: tuple[Stimulus, ...]
    negatives: tuple[Stimulus, ...]
    dropped: int = 0

    def __post_init__(self) -> None:
        if not self.positives:
            raise UserError(
                f"contrast {self.kind!r} has no matched pair ({self.dropped} dropped); "
                "give pairs with both a copied and a rewritten suffix"
            )
        if self.problems != tuple(s.pair.problem for s in self.negatives):
            raise ValueError("positives and negatives are not matched problem by problem")

    def __len__(self) -> int:
        return len(self.positives)

    @property
    def problems(self) -> tuple[str, ...]:
        """Problem id of every match, the unit of splits and bootstraps."""
        return tuple(s.pair.problem for s in self.positives)

    @property
    def pairs(self) -> list[Pair]:
        """All pairs, positives first: what a data hash is taken over."""
        return [s.pair for s in (*self.positives, *self.negatives)]

    def sequences(self, lm: LanguageModel) -> tuple[list[Sequence], list[Sequence]]:
        """Positives and negatives as tokens of a model."""
        return [s.sequence(lm) for s in self.positives], [s.sequence(lm) for s in self.negatives]


def copy_rewrite(pairs: Iterable[Pair]) -> Contrast:
    """Same question and prefix, one suffix that is rewritten against one that is copied, nearest in length.

    Each suffix is used once; what finds no match is counted in `dropped`. Copied or rewritten is what the pairs say:
    give them `as_corrected` to contrast what a corrector does. The correction is teacher-forced, so that
    output spans can be read as well; prompt spans cannot see it.
    """
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.question, pair.prefix), []).append(pair)
    positives: list[Stimulus] = []
    negatives: list[Stimulus] = []
    n = 0
    for group in groups.values():
        n += len(group)
        copied = [p for p in group if is_copy(p)]
        for rewritten in (p for p in group if not is_copy(p)):
            if not copied:
                break
            match = nearest(rewritten, copied)
            copied.remove(match)
            positives.append(Stimulus(rewritten, rewritten.correction))
            negatives.append(Stimulus(match, match.correction))
    return Contrast("copy_rewrite", tuple(positives), tuple(negatives), n - 2 * len(positives))


def as_corrected(lm: LanguageModel, task: Task, pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs with the corrector's own greedy correction in place of the annotator's.

    What is contrasted is then what this corrector copies and rewrites. Annotators' labels are noisy where they draw
    by chance, and no direction could separate them better than that noise lets it.
    """
    every = list(pairs)
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in every]
    outputs = decode(lm, prompts, max_new_tokens=task.max_sentence_tokens, progress=f"{task.name}: label pairs")
    texts = [lm.decode(list(output.ids)) for output in outputs]
    return [replace(pair, correction=text) for pair, text in zip(every, texts, strict=True)]


def teacher_forced(pairs: Iterable[Pair]) -> Contrast:
    """Same prompt, with the correction teacher-forced against a copy of the suffix; copied pairs are dropped.

    The prompts are the same tokens, so only output spans can differ.
    """
    every = list(pairs)
    kept = [p for p in every if not is_copy(p)]
    return Contrast(
        "teacher_forced",
        tuple(Stimulus(p, p.correction) for p in kept),
        tuple(Stimulus(p, p.last) for p in kept),
        len(every) - len(kept),
    )


def instruction(pairs: Iterable[Pair]) -> Contrast:
    """The same pair under the instruction to rewrite against the instruction to copy, put behind its question.

    For chat correctors, which follow instructions; both suffixes and all else are the same, so nothing but the
    instruction can differ. A pair's own correction plays no part, and nothing is teacher-forced.
    """
    every = list(pairs)
    positives, negatives = (
        tuple(Stimulus(replace(p, question=f"{p.question} {text}")) for p in every) for text in INSTRUCTIONS
    )
    return Contrast("instruction", positives, negatives)


def minimal(lm: LanguageModel, minimal_pairs: Iterable[MinimalPair]) -> Contrast:
    """A wrong suffix against its right twin, both teacher-forced with the same output tokens up to the divergence.

    Output: the tokens that a copy of the good and a copy of the bad suffix share, so what is read at the span
    `first_divergence` (the position where the differing token is about to be written) differs through the prompt
    alone. Minimal pairs whose suffixes are the same tokens are dropped; UserError where a good suffix is not a copy.
    """
    positives: list[Stimulus] = []
    negatives: list[Stimulus] = []
    every = list(minimal_pairs)
    for pair in every:
        good, bad = pair.good, pair.bad
        if not is_copy(good) or is_copy(bad) or (good.question, good.prefix) != (bad.question, bad.prefix):
            raise UserError(
                f"minimal pair of problem {good.problem!r} is none: good must be copied, bad rewritten, "
                "question and prefix the same; mend the task's minimal_pairs"
            )
        if lm.encode_target(good.last) != lm.encode_target(bad.last):
            positives.append(Stimulus(bad, good.last, bad.last))
            negatives.append(Stimulus(good, good.last, bad.last))
    return Contrast("minimal", tuple(positives), tuple(negatives), len(every) - len(positives))


def contrast_pairs(task: Task, split: Split, n: int, seed: int = 0) -> list[Pair]:
    """2n pairs: of each of n problems a copied and a rewritten suffix behind one prefix, nearest in length.

    Problems where no prefix has both are passed over and more are drawn; UserError where the split runs out.
    """
    out: list[Pair] = []
    seen = set[str]()
    for asked in (n, 2 * n, 4 * n, 8 * n, 16 * n):
        try:
            problems = task.problems(split, asked, seed)
        except UserError as error:
            if not seen:
                raise
            raise UserError(_shortage(split, len(out) // 2, len(seen), n)) from error
        for problem in problems:
            if problem.id in seen:
                continue
            seen.add(problem.id)
            out += _match(task, problem, random.Random(f"contrast/{task.name}/{split}/{seed}/{problem.id}"))
            if len(out) == 2 * n:
                return out
    raise UserError(_shortage(split, len(out) // 2, len(seen), n))


def _match(task: Task, problem: Problem, rng: random.Random) -> list[Pair]:
    """A copied and a rewritten suffix behind one prefix of a problem, or nothing.

    Where an example's steps have one branch only, further examples of the problem meet it at the empty prefix.
    """
    groups: dict[str, list[Pair]] = {}
    for _ in range(DRAWS):
        for step in task.example(problem, rng).steps:
            groups.setdefault(step.prefix, []).extend(step.branches)
        mixed = [g for g in groups.values() if len({is_copy(p) for p in g}) == 2]
        if mixed:
            group = rng.choice(mixed)
            rewritten = rng.choice([p for p in group if not is_copy(p)])
            return [nearest(rewritten, [p for p in group if is_copy(p)]), rewritten]
    return []


def _shortage(split: Split, found: int, seen: int, n: int) -> str:
    return (
        f"only {found} of {seen} problems of split={split!r} have a copied and a rewritten suffix behind one prefix, "
        f"{n} wanted; ask for fewer pairs"
    )


def check_leak(train: Contrast, test: Contrast) -> None:
    """Raise UserError naming a question that both contrasts hold."""
    check_disjoint({"train": [p.question for p in train.pairs], "test": [p.question for p in test.pairs]})


def is_copy(pair: Pair) -> bool:
    """Whether the correction equals the suffix, outer space aside."""
    return pair.last.strip() == pair.correction.strip()


def nearest(pair: Pair, among: list[Pair]) -> Pair:
    """The first pair whose suffix is nearest in length (characters)."""
    return min(among, key=lambda p: abs(len(p.last) - len(pair.last)))
