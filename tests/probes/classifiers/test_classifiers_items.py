import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from corrector import tasks
from corrector.errors import UserError
from corrector.tasks.base import Pair
from probes.classifiers.items import Items, draw
from probes.classifiers.labels import LABELS, Labelled, absence, cross_table, looks_wrong, target, word_counts
from probes.contrasts import is_copy


def pair(question, last, wrong=None, prefix=""):
    return Pair(f"id-{question}", question, prefix, last, last, wrong)


@pytest.mark.parametrize("name", ["dialogue", "arithmetic"])
def test_items_are_two_a_problem_one_of_each_kind_and_seen_ones_are_new(name):
    items = draw(tasks.get(name), 20, 5, 5)
    assert [len(items.parts[p]) for p in ("train", "validation", "test")] == [40, 10, 10]
    assert items == draw(tasks.get(name), 20, 5, 5)
    for part in ("train", "validation", "test"):
        assert set(Counter(p.problem for p in items.parts[part]).values()) == {2}
        copies = Counter(p.problem for p in items.parts[part] if is_copy(p))
        assert sum(n == 1 for n in copies.values()) >= 0.8 * len(items.parts[part]) / 2
    firsts = [is_copy(p) for p in items.train[::2]]
    assert 3 < sum(firsts) < 17  # the order within a problem does not tell the class
    known = {(p.problem, p.prefix, p.last) for p in items.train}
    assert len(items.seen) == 20 and not known & {(p.problem, p.prefix, p.last) for p in items.seen}


def test_a_problem_of_one_row_gives_one_item_and_no_seen_one(tmp_path):
    rows = [{"question": f"q {i}", "prefix": "", "last": "so", "correction": "so"} for i in range(200)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    items = draw(tasks.get("jsonl", str(tmp_path / "pairs.jsonl")), 20, 5, 5)
    assert len(items.train) == 20 and items.seen == ()


def test_leaks_and_empty_splits_are_refused():
    a, b, c = (pair(f"question {i}", "so") for i in range(3))
    with pytest.raises(UserError, match="'train' and 'test' share the question"):
        Items((a,), (b,), (dataclasses.replace(a, question=" Question  0", problem="other"),))
    with pytest.raises(UserError, match="'validation' of the items is empty"):
        Items((a,), (), (c,))
    with pytest.raises(UserError, match="which train does not"):
        Items((a,), (b,), (c,), (c,))


def worded(n=60, seed=0):
    """Items whose words tell right from wrong four times in five."""
    rng = np.random.default_rng(seed)
    parts = {}
    for part, count in (("train", n), ("validation", 20), ("test", 20)):
        pairs = []
        for i in range(count):
            for wrong in (True, False):
                word = "bad" if wrong == (rng.random() < 0.8) else "good"
                pairs.append(pair(f"{part} {i}", f"a {word} thing {rng.integers(9)}", wrong))
        parts[part] = tuple(pairs)
    return Items(parts["train"], parts["validation"], parts["test"])


def test_looks_wrong_is_what_the_words_say():
    items = worded()
    looks = looks_wrong(items)
    for part in ("train", "validation", "test"):
        says = [("bad" in p.last) for p in items.parts[part]]
        assert np.mean([a == b for a, b in zip(says, looks[part], strict=True)]) > 0.9


def test_a_train_item_looks_as_a_fit_without_its_problem_says():
    items = worded(30)
    before = looks_wrong(items)["train"]
    for i in (0, 31):
        problem = items.train[i].problem
        flipped = tuple(
            dataclasses.replace(p, is_wrong=not p.is_wrong) if p.problem == problem else p for p in items.train
        )
        after = looks_wrong(dataclasses.replace(items, train=flipped))["train"]
        assert [v for p, v in zip(items.train, before, strict=True) if p.problem == problem] == [
            v for p, v in zip(items.train, after, strict=True) if p.problem == problem
        ]


def test_a_word_of_one_problem_alone_does_not_betray_its_label():
    """In-sample every item would look as it is labelled, since each holds a word of its own."""
    train = tuple(pair(f"q{i}", f"w{chr(97 + i // 26)}{chr(97 + i % 26)}", i % 2 == 0) for i in range(80))
    items = Items(train, (pair("v", "x", True),), (pair("t", "y", False),))
    looks = looks_wrong(items)["train"]
    right = np.mean([bool(v) == p.is_wrong for v, p in zip(looks, train, strict=True)])
    assert right < 0.65


def test_looks_wrong_is_unknown_without_both_classes():
    for wrong in (None, True):
        items = Items(
            tuple(pair(f"q{i}", "so", wrong) for i in range(20)), (pair("v", "so"),), (pair("t", "so"), pair("u", "so"))
        )
        assert looks_wrong(items) == {"train": (None,) * 20, "validation": (None,), "test": (None, None)}


def test_word_counts_know_the_words_they_were_fitted_on():
    pairs = [pair("a", "Red red, 12 pens."), pair("b", "blue")]
    counts = word_counts(pairs[:1], {"train": pairs, "none": []})
    assert counts["train"].tolist()[1] == [0] * 5 and sorted(counts["train"][0]) == [1, 1, 1, 1, 2]
    assert counts["none"].shape == (0, 5)


def labelled(wrong, edited, looks):
    n = len(wrong)
    parts = {
        part: tuple(pair(f"{part}{i // 2}", f"s{i}") for i in range(n)) for part in ("train", "validation", "test")
    }
    items = Items(**parts, seen=parts["train"][:2])
    values = dict(zip(LABELS, ({part: tuple(v) for part in parts} for v in (wrong, edited, looks)), strict=True))
    return Labelled(items, {part: ("",) * n for part in parts}, values)


def test_the_cross_table_counts_combinations_and_both_errors():
    made = labelled([True, True, False, False, None], [True, False, True, False, True], [True] * 5)
    table = cross_table(made, "test")
    assert sum(c["n"] for c in table["cells"]) == 5 and len(table["cells"]) == 5
    assert {"is_wrong": None, "was_edited": True, "looks_wrong": True, "n": 1} in table["cells"]
    assert (table["false_rewrite"]["n"], table["false_rewrite"]["of"]) == (1, 2)
    assert (table["missed_rewrite"]["n"], table["missed_rewrite"]["rate"]) == (1, 0.5)
    nothing = cross_table(labelled([None] * 4, [True] * 4, [None] * 4), "test")
    assert nothing["false_rewrite"] is None and nothing["missed_rewrite"] is None


def test_a_target_leaves_unknown_items_out_and_absence_names_the_split():
    values = [True, None, False, True, False, True, False, True, False, True, False, None]
    made = labelled(values, [True] * 12, [True] * 4 + [False] * 8)
    got = target(made, "is_wrong")
    assert got.kept["test"].tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9, 10] and absence(got) == ""
    assert got.y["train"].tolist() == [v for v in values if v is not None] and len(got.control) == 10
    assert len({(p, c) for p, c in zip(got.problems["train"], got.control, strict=True)}) == len(
        set(got.problems["train"])
    )
    assert absence(target(made, "was_edited")) == "12 of 12 train items are positive; 5 of each class are needed"
    assert "4 of 12 train items" in absence(target(made, "looks_wrong"))
