"""Conditions keep the pairs they name, and refuse tasks that have no such thing."""

import pytest

from corrector import tasks
from corrector.errors import UserError
from corrector.tasks.arithmetic import steps_of
from steering.maps import conditions
from steering.maps.conditions import contrast_under, pairs_under


@pytest.mark.parametrize(
    ("task", "name", "holds"),
    [
        ("arithmetic", "short", lambda p: len(steps_of(p.question)) <= 3),
        ("arithmetic", "long", lambda p: len(steps_of(p.question)) >= 4),
        ("dialogue", "first", lambda p: p.prefix == ""),
        ("dialogue", "later", lambda p: p.prefix != ""),
    ],
)
def test_pairs_meet_the_condition(task, name, holds):
    pairs = pairs_under(tasks.get(task), "test", 6, 0, name)
    assert len(pairs) == 6 and all(map(holds, pairs))
    assert pairs == pairs_under(tasks.get(task), "test", 6, 0, name)


def test_harm_parts_the_questions_and_any_keeps_all():
    task = tasks.get("dialogue")
    bad, good = ({p.question for p in pairs_under(task, "test", 20, 0, name)} for name in ("harmful", "harmless"))
    harmful = {p.question for p in task.problems("test", task.size("test")) if p.meta["harmful"]}
    assert bad <= harmful and not good & harmful
    assert pairs_under(task, "test", 9, 3, "any") == task.pairs("test", 9, 3)


def test_both_sides_of_a_contrast_meet_it(monkeypatch, dialogue_lm):
    monkeypatch.setattr(conditions, "as_corrected", lambda lm, task, pairs: list(pairs))
    made = contrast_under(dialogue_lm, tasks.get("dialogue"), "train", 6, 0, "later")
    assert len(made) == 6 and all(p.prefix for p in made.pairs)


def test_unknown_names_foreign_tasks_and_too_few_pairs_are_refused(monkeypatch):
    monkeypatch.setattr(conditions, "DRAWS", (1,))
    with pytest.raises(UserError, match="not in any, first"):
        pairs_under(tasks.get("dialogue"), "test", 2, 0, "odd")
    with pytest.raises(UserError, match="of task 'arithmetic', not 'dialogue'"):
        pairs_under(tasks.get("dialogue"), "test", 2, 0, "long")
    with pytest.raises(UserError, match="pairs of test are 'first'"):
        pairs_under(tasks.get("dialogue"), "test", 30, 0, "first")
