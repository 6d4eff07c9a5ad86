import random
from collections import Counter
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.tasks import NAMES, get
from corrector.tasks.base import (
    SPLITS,
    Example,
    Pair,
    Problem,
    Split,
    Step,
    check_disjoint,
    data_hash,
    split_of,
)
from tests.toy_task import ToyTask


class Counting(ToyTask):
    """Two steps a problem with two branches each: as much as the base class needs."""

    name: ClassVar[str] = "counting"
    outcomes: ClassVar[tuple[str, ...]] = ("correct",)

    def problems(self, split: Split, n: int, seed: int = 0) -> list[Problem]:
        return [Problem(f"{split}-{i}", f"Count to {i}.", str(i)) for i in random.Random(seed).sample(range(50), n)]

    def size(self, split: Split) -> int:
        return 50

    def example(self, problem: Problem, rng: random.Random) -> Example:
        steps, prefix = [], ""
        for i in range(2):
            pairs = tuple(
                Pair(problem.id, problem.question, prefix, f"Say {word} {i}.", f"Say one {i}.", word == "two", word)
                for word in ("one", "two")
            )
            chosen = " " * bool(prefix) + f"Say one {i}."
            steps.append(Step(prefix, pairs, chosen))
            prefix += chosen
        return Example(problem, tuple(steps))

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        return {"correct": float(answer == problem.gold)}

    def well_formed(self, pair: Pair, sentence: str) -> bool:
        return sentence.startswith("Say")


TASK = Counting()
PAIR = Pair("p", "q?", "a b", "c", "d")


def test_the_answer_is_the_join_of_the_chosen_steps():
    example = TASK.example(Problem("1", "Count."), random.Random(0))
    assert example.answer == "Say one 0. Say one 1."
    assert [example.answer[: len(step.prefix)] for step in example.steps] == [step.prefix for step in example.steps]


def test_pairs_are_of_distinct_problems_and_hold_every_kind():
    pairs = TASK.pairs("train", 40, seed=1)
    assert len({p.problem for p in pairs}) == 40
    kinds = Counter(p.kind for p in pairs)
    assert min(kinds["one"], kinds["two"]) >= 10 and {p.prefix for p in pairs} == {"", "Say one 0."}
    assert pairs == TASK.pairs("train", 40, seed=1) != TASK.pairs("train", 40, seed=2)
    assert {p.problem for p in TASK.pairs("test", 5)} == {p.id for p in TASK.problems("test", 5)}


def test_upstream_spans_mix_own_sentences_with_corrected_context():
    problem, lasts, owned = Problem("1", "Count."), Counter(), Counter()
    for seed in range(300):
        spans = TASK.upstream_spans(problem, random.Random(seed))
        assert [text.startswith(" ") for text, _ in spans] == [False, True]
        for i, (text, own) in enumerate(spans):
            owned[own] += 1
            lasts[own, text.strip()] += 1
            assert own or text.strip() == f"Say one {i}."
    assert 0.5 < owned[True] / 600 < 0.7
    assert min(lasts[True, "Say two 0."], lasts[True, "Say one 0."]) > 50


def test_defaults_say_what_a_task_cannot_do():
    with pytest.raises(UserError, match="counting"):
        TASK.minimal_pairs("test", 1)
    with pytest.raises(UserError, match="counting"):
        TASK.recorded(Problem("1", "Count."), 0)
    assert TASK.rewrite_probability(PAIR) is None
    assert TASK.is_valid(PAIR, "Say so.") and not TASK.is_valid(PAIR, "No.")
    assert "".join(TASK.sentences("It is 3.5 now. Go on. ")) == "It is 3.5 now. Go on. "


@given(st.text())
def test_a_question_has_one_split(question: str):
    assert split_of(question) == split_of(question) in SPLITS


def test_splits_have_their_shares():
    counts = Counter(split_of(f"question {i}") for i in range(4000))
    for split, share in zip(SPLITS, (0.8, 0.1, 0.1), strict=True):
        assert counts[split] / 4000 == pytest.approx(share, abs=0.02)
    halves = Counter(split_of(f"question {i}", 0.5, 0.5) for i in range(4000))
    assert halves["test"] == 0 and halves["train"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_a_shared_question_is_named():
    check_disjoint({"train": ["a?", "b?", "a?"], "test": ["c?"]})
    with pytest.raises(UserError, match=r"'train' and 'test' share the question 'who is it\?'"):
        check_disjoint({"train": ["Who is  it?"], "test": ["c?", " who is it? "]})
    many = [f"{i}?" for i in range(50)]
    with pytest.raises(UserError, match=r"the question '7\?'"):
        check_disjoint({"train": many, "test": many[7:]})


def test_the_data_hash_follows_every_text_and_their_order():
    other = replace(PAIR, question="r?")
    hashes = [data_hash([replace(PAIR, **{f: "new"})]) for f in ("question", "prefix", "last", "correction")]
    hashes += [data_hash(x) for x in ([], [PAIR], [PAIR, PAIR], [PAIR, other], [other, PAIR])]
    hashes += [data_hash([replace(PAIR, prefix="a", last="b c")])]
    assert len(set(hashes)) == len(hashes) and all(len(h) == 16 for h in hashes)
    assert data_hash([PAIR]) == data_hash([replace(PAIR, kind="x", is_wrong=True, problem="z")])


def test_tasks_by_name():
    assert [get(name).name for name in ("dialogue", "arithmetic")] == ["dialogue", "arithmetic"]
    with pytest.raises(UserError, match=r"task='chess' is not one of " + ", ".join(NAMES)):
        get("chess")
    with pytest.raises(UserError, match="generates its data"):
        get("dialogue", "some.jsonl")
