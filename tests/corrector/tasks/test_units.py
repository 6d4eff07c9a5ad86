"""A task in units of several sentences: the same text, cut larger."""

import random
from dataclasses import replace

import pytest

from corrector.errors import UserError
from corrector.heldout import variant
from corrector.tasks import get
from corrector.tasks.base import Pair, Step
from corrector.tasks.units import LONGEST, in_units, joined

CASES = [(name, n) for name in ("dialogue", "arithmetic") for n in (2, 3, 99)]


@pytest.mark.parametrize(("name", "n"), CASES)
def test_an_example_in_units_is_the_same_answer_in_fewer_steps(name, n):
    task, units = get(name), in_units(get(name), n)
    for problem in task.problems("train", 10):
        whole, cut = (t.example(problem, random.Random(problem.id)) for t in (task, units))
        assert cut.answer == whole.answer and len(cut.steps) == -(-len(whole.steps) // n)
        for k, step in enumerate(cut.steps):
            inner = whole.steps[k * n : (k + 1) * n]
            assert step.prefix == inner[0].prefix and step.taken == 0
            assert step.branches[0].correction == step.chosen.lstrip(), "the first branch is what the answer took"
            for branch in step.branches:
                assert branch.prefix == step.prefix
                assert len(task.sentences(branch.last)) == len(inner)


@pytest.mark.parametrize(("name", "n"), CASES)
def test_sentences_are_lossless_units(name, n):
    task, units = get(name), in_units(get(name), n)
    problem = task.problems("test", 1)[0]
    answer = task.example(problem, random.Random(0)).answer
    spans = units.sentences(answer)
    assert "".join(spans) == answer
    assert [len(task.sentences(s)) for s in spans[:-1]] == [n] * (len(spans) - 1)
    assert 1 <= len(task.sentences(spans[-1])) <= n
    assert units.grade(problem, answer) == task.grade(problem, answer)
    assert units.max_sentence_tokens == min(n * task.max_sentence_tokens, LONGEST)
    assert (units.name, units.outcomes, units.temperature) == (f"{name}@{n}", task.outcomes, task.temperature)


def test_a_unit_is_right_and_well_formed_where_all_of_its_sentences_are():
    task = in_units(get("arithmetic"), 2)
    pairs = [p for p in task.pairs("test", 80, 1) if len(get("arithmetic").sentences(p.correction)) == 2]
    assert pairs and all(task.is_right(p, p.correction) and task.well_formed(p, p.correction) for p in pairs)
    assert all(task.is_right(p, p.last) is not True for p in pairs if p.is_wrong)
    broken = [p.correction + " so so so" for p in pairs]
    assert not any(task.well_formed(p, text) or task.is_valid(p, text) for p, text in zip(pairs, broken, strict=True))
    assert not task.well_formed(pairs[0], "") and task.is_right(pairs[0], "") is False


def test_labels_of_joined_sentences():
    pair = Pair("1", "q", "", "a.", "A.", True, "bad", 2.0)
    other = replace(pair, prefix="A.", last="b.", correction="b.", is_wrong=False, kind="good", badness=0.1)
    unknown = replace(other, is_wrong=None, badness=None)
    step, last = Step("", (pair,), "A."), Step("A.", (other, unknown), " b.")
    first, second = joined([step, last]).branches
    assert (first.last, first.correction, first.prefix) == ("a. b.", "A. b.", "")
    assert (first.is_wrong, first.badness, first.kind) == (True, 2.0, "bad+good")
    assert (second.is_wrong, second.badness) == (True, None)
    assert joined([last]).branches[1].is_wrong is None
    assert joined([step, last]).chosen == "A. b."


def test_one_sentence_is_the_task_itself_and_none_is_refused():
    task = get("dialogue")
    assert in_units(task, 1) is task and in_units(task, 2) is not task
    with pytest.raises(UserError, match="unit=0 sentences; choose --unit 1 or more"):
        in_units(task, 0)
    assert variant("arithmetic", opener="Redo:", unit=2).max_sentence_tokens == 80


def test_a_task_is_got_in_units_by_name_and_keeps_its_upstream():
    answers = get("dialogue@answer")
    problem = answers.problems("test", 1)[0]
    assert (answers.name, answers.upstream) == ("dialogue@answer", "dialogue-upstream")
    assert len(answers.example(problem, random.Random(0)).steps) == 1
    assert get("arithmetic@2").name == "arithmetic@2" and get("dialogue@1").name == "dialogue"
    for wrong, words in (("dialogue@two", "is no unit"), ("poetry@2", "is not one of"), ("dialogue@0", "unit=0")):
        with pytest.raises(UserError, match=words):
            get(wrong)
    with pytest.raises(UserError, match="makes no minimal pairs"):
        answers.minimal_pairs("test", 1)
