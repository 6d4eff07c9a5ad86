"""Three labels that are not the same: the sentence is wrong, the corrector edited it, it looks wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GroupKFold

from corrector.models import LanguageModel
from corrector.statistics import wilson
from corrector.tasks.base import Pair, Task
from probes.classifiers.items import SPLIT_PARTS, Items
from probes.classifiers.models import BAG_GRID, logistic
from probes.classifiers.selectivity import control_labels
from probes.contrasts import as_corrected, is_copy

Label = Literal["is_wrong", "was_edited", "looks_wrong"]
LABELS: tuple[Label, ...] = get_args(Label)
MIN_CLASS = 5
"""Items of each class that every split must hold for a label to be probed at all."""
FOLDS = 5
WORDS = r"[A-Za-z]+|\d+|[^\sA-Za-z\d]"
"""A word of the bag of words: letters, a whole number, or a mark."""
MAX_WORDS = 5000
Values = tuple[bool | None, ...]


@dataclass(frozen=True)
class Labelled:
    """Items with the corrector's own greedy corrections and their labels, `values[label][part][item]` (None: unknown).

    The part `seen` has no labels: it is only for the control task.
    """

    items: Items
    corrections: Mapping[str, tuple[str, ...]]
    values: Mapping[str, Mapping[str, Values]]


@dataclass(frozen=True, eq=False)
class Target:
    """One label as a classifier needs it: the items that have it, their classes and problems, part by part.

    The classes of `seen` and `control` are those of the control task (`selectivity.control_labels`).
    """

    label: str
    kept: Mapping[str, Int[np.ndarray, " _"]]
    y: Mapping[str, Bool[np.ndarray, " _"]]
    problems: Mapping[str, tuple[str, ...]]
    control: Bool[np.ndarray, " n_train"]


def label_items(lm: LanguageModel, task: Task, items: Items) -> Labelled:
    """Correct every item greedily and label it.

    `is_wrong`: the task's ground truth. `was_edited`: the correction differs from `last`. `looks_wrong`: see there.
    """
    corrected = as_corrected(lm, task, items.split_pairs)
    by_part: dict[str, list[Pair]] = {}
    for part in SPLIT_PARTS:
        n = len(items.parts[part])
        by_part[part], corrected = corrected[:n], corrected[n:]
    wrong: dict[str, Values] = {part: tuple(p.is_wrong for p in items.parts[part]) for part in SPLIT_PARTS}
    values: dict[str, dict[str, Values]] = {
        "is_wrong": wrong,
        "was_edited": {part: tuple(not is_copy(p) for p in pairs) for part, pairs in by_part.items()},
        "looks_wrong": looks_wrong(items),
    }
    return Labelled(items, {part: tuple(p.correction for p in pairs) for part, pairs in by_part.items()}, values)


def looks_wrong(items: Items) -> dict[str, Values]:
    """Whether the words of `last` alone say that it is wrong: a bag-of-words prediction of is_wrong, p > 0.5.

    Cross-fitted: a train item's prediction comes from a fit without its problem, those of validation and test from a
    fit on train. None for every item where is_wrong is unknown or has one class in train.
    """
    nothing: dict[str, Values] = {part: (None,) * len(items.parts[part]) for part in SPLIT_PARTS}
    train, problems = items.train, [p.problem for p in items.train]
    known = np.array([p.is_wrong is not None for p in train])
    y = np.array([bool(p.is_wrong) for p in train])
    folds = [np.ones(len(train), dtype=bool)]  # the last fit is on all of train
    if len(set(problems)) >= FOLDS:
        folds = [
            ~np.isin(np.arange(len(train)), held) for _, held in GroupKFold(FOLDS).split(y, groups=problems)
        ] + folds
    if len(folds) == 1 or any(len(set(y[known & fitted].tolist())) < 2 for fitted in folds):
        return nothing
    x = word_counts(train, {part: items.parts[part] for part in SPLIT_PARTS})
    out: dict[str, Values] = {}
    held_out = np.zeros(len(train), dtype=bool)
    for fitted in folds:
        on = known & fitted
        words = logistic(x["train"][on], y[on], [problems[i] for i in np.flatnonzero(on)], BAG_GRID, standardise=False)
        held_out[~fitted] = words.scores(x["train"][~fitted]) > 0
        out = {part: tuple((words.scores(x[part]) > 0).tolist()) for part in ("validation", "test")}
    return {"train": tuple(held_out.tolist()), **out}


def word_counts(fit_on: Sequence[Pair], parts: Mapping[str, Sequence[Pair]]) -> dict[str, Float[np.ndarray, "_ words"]]:
    """Counts of the words of `last`, lower case; the words are those of `fit_on`, the commonest 5000 of them."""
    vectorizer = CountVectorizer(token_pattern=WORDS, max_features=MAX_WORDS)
    vectorizer.fit([p.last for p in fit_on])

    def counts(pairs: Sequence[Pair]) -> np.ndarray:
        if not pairs:
            return np.zeros((0, len(vectorizer.vocabulary_)))
        return np.asarray(vectorizer.transform([p.last for p in pairs]).toarray(), dtype=float)

    return {part: counts(pairs) for part, pairs in parts.items()}


def target(labelled: Labelled, label: str, seed: int = 0) -> Target:
    """One label of the items, those where it is unknown left out, with its control task at the same share."""
    kept: dict[str, np.ndarray] = {}
    y: dict[str, np.ndarray] = {}
    problems: dict[str, tuple[str, ...]] = {}
    for part in SPLIT_PARTS:
        values, pairs = labelled.values[label][part], labelled.items.parts[part]
        kept[part] = np.array([i for i, v in enumerate(values) if v is not None], dtype=int)
        y[part] = np.array([v for v in values if v is not None], dtype=bool)
        problems[part] = tuple(pairs[i].problem for i in kept[part])
    share = float(y["train"].mean()) if len(y["train"]) else 0.5
    control = control_labels((p.problem for p in labelled.items.train), share, seed)
    seen = tuple(p.problem for p in labelled.items.seen)
    kept["seen"], problems["seen"] = np.arange(len(seen)), seen
    y["seen"] = np.array([control[p] for p in seen], dtype=bool)
    return Target(label, kept, y, problems, np.array([control[p] for p in problems["train"]], dtype=bool))


def absence(target: Target) -> str:
    """Why a label cannot be probed; empty where it can: `MIN_CLASS` items of each class in each split."""
    for part in SPLIT_PARTS:
        y = target.y[part]
        if min(n_true := int(y.sum()), len(y) - n_true) < MIN_CLASS:
            return f"{n_true} of {len(y)} {part} items are positive; {MIN_CLASS} of each class are needed"
    return ""


def cross_table(labelled: Labelled, part: str) -> dict[str, Any]:
    """How often each combination of the three labels occurs, and the corrector's two errors with Wilson intervals.

    False rewrite: edited though right, of the right ones; missed rewrite: copied though wrong, of the wrong ones; each
    None where there is no such item, or is_wrong is unknown.
    """
    columns = [labelled.values[label][part] for label in LABELS]
    counts = Counter(zip(*columns, strict=True))
    cells = [dict(zip((*LABELS, "n"), (*key, n), strict=True)) for key, n in sorted(counts.items(), key=repr)]
    pairs = list(zip(columns[0], columns[1], strict=True))
    return {
        "cells": cells,
        "false_rewrite": _rate([bool(edited) for wrong, edited in pairs if wrong is False]),
        "missed_rewrite": _rate([not edited for wrong, edited in pairs if wrong is True]),
    }


def _rate(hits: Sequence[bool]) -> dict[str, Any] | None:
    if not hits:
        return None
    interval = wilson(sum(hits), len(hits))
    return {"n": sum(hits), "of": len(hits), "rate": interval.mean, "low": interval.low, "high": interval.high}
