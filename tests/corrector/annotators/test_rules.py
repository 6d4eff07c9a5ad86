"""The tasks' own annotators, against the pairs that the tasks make themselves."""

import random

import pytest

from corrector import tasks
from corrector.annotators import Dropped, RuleAnnotator, Sentence
from corrector.errors import UserError
from corrector.tasks.arithmetic import Arithmetic
from corrector.tasks.base import Problem


def pairs_with_problems(task, n=150):
    for problem in task.problems("train", n):
        for step in task.example(problem, random.Random(problem.id)).steps:
            for pair in step.branches:
                yield problem, pair


@pytest.mark.parametrize("opener", ["", "Redo:"])
def test_arithmetic_sentences_are_corrected_as_training_pairs_are(opener):
    task = Arithmetic(opener)
    n = 0
    for problem, pair in pairs_with_problems(task):
        got = task.annotate(problem, pair.prefix, pair.last, random.Random(0))
        assert got is not None
        assert (got.is_wrong, task.is_right(pair, got.correction)) == (pair.is_wrong, True)
        assert got.eos == ("The answer is" in pair.correction)
        # "bad/operand" may be off in the sign as well, or a step skipped be off in one place only: then styles differ
        if pair.source not in ("bad/operand", "bad/skipped", "bad/operation"):
            assert got.correction == pair.correction, pair
        n += 1
    assert n > 500


def test_arithmetic_rewrites_broken_text_and_stops_behind_the_answer():
    task = Arithmetic()
    (problem,) = task.problems("train", 1)
    steps = task.example(problem, random.Random(0)).steps
    got = task.annotate(problem, "", "xyz zyx", random.Random(0))
    assert got is not None and got.is_wrong and got.correction != "xyz zyx"
    whole = "".join(s.chosen for s in steps)
    assert task.annotate(problem, whole, "The answer is 1.", random.Random(0)) is None


def test_dialogue_follows_its_law_and_leaves_out_what_it_cannot_read():
    task = tasks.get("dialogue")
    n = {True: 0, False: 0}
    for problem, pair in pairs_with_problems(task, 60):
        got = task.annotate(problem, pair.prefix, pair.last, random.Random(0))
        assert got is not None and got.is_wrong == pair.is_wrong and got.eos is None
        assert got == task.annotate(problem, pair.prefix, pair.last, random.Random(0))
        n[got.correction != pair.last] += 1
    assert min(n.values()) > 20
    rule = RuleAnnotator(task)
    assert rule.annotate([Sentence(problem, "", "Not of the grammar.", 0)]) == [Dropped("undecided")]


def test_gsm8k_rules_give_back_gold(shared_data):
    task = tasks.get("gsm8k", str(shared_data / "gsm8k"))
    n = {True: 0, False: 0}
    for problem in task.problems("test", 300):
        lines = str(problem.meta["solution"]).split("\n")
        for k, span in enumerate(task.recorded(problem, 0)):
            last, prefix = span.strip(), "\n".join(lines[:k])
            got = task.annotate(problem, prefix, last, random.Random(0))
            assert got is not None and got.correction.strip() == lines[k].strip()
            assert got.is_wrong == (last != lines[k].strip()) and got.eos == (k + 1 == len(lines))
            n[got.is_wrong] += 1
        assert task.annotate(problem, "\n".join(lines), "One more.", random.Random(0)) is None
    assert min(n.values()) > 300


def test_gsm8k_does_not_call_another_way_wrong(shared_data):
    task = tasks.get("gsm8k", str(shared_data / "gsm8k"))
    (problem,) = task.problems("test", 1)
    assert task.annotate(problem, "", "Let us look at what is asked first.", random.Random(0)) is None
    assert task.annotate(problem, "", f"#### {problem.gold}", random.Random(0)) is None
    false = task.annotate(problem, "", "First of all 2 + 2 = 5.", random.Random(0))
    assert false is not None and false.is_wrong


def test_tasks_without_rules_say_so(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "q", "prefix": "", "last": "a", "correction": "b"}\n')
    with pytest.raises(UserError, match="annotator of its own"):
        tasks.get("jsonl", str(file)).annotate(Problem("p", "q"), "", "a", random.Random(0))
