"""The arithmetic task against its own oracle: questions read back, sentences judged, branches balanced."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from corrector.errors import UserError
from corrector.tasks.arithmetic import Arithmetic, Calculation, forget_carry, needs_carry, steps_of, vocabulary
from corrector.tasks.arithmetic.steps import read_sentence, write_step
from corrector.tasks.arithmetic.stories import draw_story, read_question, write_question
from corrector.tasks.arithmetic.words import CLAUSES, CLOSINGS, NAMES, OPENINGS, STYLES, THINGS
from corrector.tasks.base import Pair, check_disjoint, split_of

TASK = Arithmetic()
REDO = Arithmetic(opener="Redo:")


@pytest.fixture(scope="module")
def problems():
    return TASK.problems("train", 600, seed=3)


@pytest.fixture(scope="module")
def branches(problems):
    rng = random.Random(0)
    return [b for p in problems for s in TASK.example(p, rng).steps for b in s.branches]


def step_under(pair: Pair) -> Calculation | None:
    """The right calculation in a pair's place, counted by hand: one step per sentence of a right prefix."""
    done, steps = pair.prefix.count("."), steps_of(pair.question)
    return steps[done] if done < len(steps) else None


@pytest.mark.parametrize(
    ("left", "op", "right", "carries", "forgotten"),
    [
        (27, "+", 15, True, 32),
        (42, "-", 15, True, 33),
        (27, "*", 2, True, 44),
        (7, "+", 5, True, 2),
        (12, "-", 9, True, 17),
        (14, "+", 23, False, 37),
        (45, "-", 15, False, 30),
        (33, "*", 3, False, 99),
    ],
)
def test_carry_by_hand(left, op, right, carries, forgotten):
    step = Calculation(left, op, right, 0)
    assert needs_carry(step) is carries
    assert forget_carry(step) == forgotten


def test_forgetting_changes_exactly_the_steps_that_carry():
    for left in range(1, 100):
        for op, right in [(op, n) for op in "+-*" for n in range(2, 46)]:
            step = Calculation(left, op, right, 0)
            if step.value in range(1, 100) and (op != "*" or right < 4):
                assert (forget_carry(step) != step.value) is needs_carry(step), step


def test_questions_read_back_as_the_story_they_tell():
    rng = random.Random(5)
    for _ in range(500):
        story = draw_story(rng)
        assert read_question(write_question(story, rng)) == story


def test_steps_are_read_from_a_question_by_hand():
    question = (
        "Anna has 14 apples. She buys 23 more. Then she gives 9 to Ben. "
        "Then she makes it 3 times as many. How many apples does Anna have now?"
    )
    assert [s.equation for s in steps_of(question)] == ["14+23=37", "37-9=28", "28*3=84"]


@pytest.mark.parametrize(
    "question", ["", "Anna has 14 apples.", "Anna has 14 apples. She frobs 3. How many apples are there in the end?"]
)
def test_a_foreign_question_is_a_users_mistake(question):
    with pytest.raises(UserError, match="is not a sentence that arithmetic questions have"):
        steps_of(question)


def test_problems(problems):
    assert len({p.question for p in problems}) == len({p.id for p in problems}) == 600
    for p in problems:
        steps = steps_of(p.question)
        assert 2 <= len(steps) <= 5
        assert all(0 < s.result < 100 for s in steps)
        assert p.gold == str(steps[-1].result)
        assert p.meta["carry"] == any(needs_carry(s) for s in steps)
    assert {len(steps_of(p.question)) for p in problems} == {2, 3, 4, 5}
    assert 0.4 < sum(bool(p.meta["carry"]) for p in problems) / 600 < 0.65


def test_carrying_is_not_told_by_the_number_of_steps(problems):
    for n in (2, 3, 4, 5):
        of_length = [bool(p.meta["carry"]) for p in problems if p.meta["n_steps"] == n]
        assert 0.45 < sum(of_length) / len(of_length) < 0.75


def test_splits_are_disjoint_and_by_question_alone():
    splits = {s: [p.question for p in TASK.problems(s, 60, seed=9)] for s in ("train", "validation", "test")}
    check_disjoint(splits)
    assert all(split_of(q) == s for s, qs in splits.items() for q in qs)


def test_everything_follows_from_its_seed(problems):
    assert TASK.problems("train", 50, seed=3) == problems[:50]
    assert TASK.problems("train", 50, seed=4) != problems[:50]
    assert TASK.pairs("test", 20, seed=1) == TASK.pairs("test", 20, seed=1)
    assert TASK.minimal_pairs("test", 9, seed=1) == TASK.minimal_pairs("test", 20, seed=1)[:9]
    p = problems[0]
    assert TASK.example(p, random.Random(7)) == TASK.example(p, random.Random(7))
    assert TASK.faulty_answer(p, random.Random(7)) == TASK.faulty_answer(p, random.Random(7))


def test_size_is_a_floor():
    def following(total: int) -> list[int]:
        sums, differences = range(total + 2, min(99, total + 45) + 1), range(max(1, total - 45), total - 1)
        return [*sums, *differences, *(total * f for f in (2, 3) if total * f < 100)]

    chains = sum(len(following(middle)) for start in range(4, 61) for middle in following(start) if 4 <= middle < 97)
    wordings = len(OPENINGS) * min(map(len, CLAUSES.values())) ** 2 * len(CLOSINGS)
    assert sum(map(TASK.size, ("train", "validation", "test"))) <= chains * wordings * len(NAMES) * len(THINGS)
    assert TASK.size("train") == 8 * TASK.size("test")


@pytest.mark.parametrize("n", [0, -1])
def test_no_problems_is_a_users_mistake(n):
    with pytest.raises(UserError, match=f"n={n}"):
        TASK.problems("train", n)


def test_a_trunk_is_a_right_answer(problems):
    for task in (TASK, REDO):
        for p in problems[:100]:
            example = task.example(p, random.Random(1))
            assert task.grade(p, example.answer) == {"correct": 1.0, "no_answer": 0.0}
            assert task.sentences(example.answer) == [s.chosen for s in example.steps]
            for i, step in enumerate(example.steps):
                assert step.prefix == "".join(s.chosen for s in example.steps[:i])
                assert step.chosen.strip() in {b.correction for b in step.branches}
                assert step.prefix == step.prefix.strip()


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", []),
        (" ", [" "]),
        ("Now 67+11=78 pens. That makes 78", ["Now 67+11=78 pens.", " That makes 78"]),
        ("We add 2: 1+2=3.\n The answer is 3. ", ["We add 2: 1+2=3.", "\n The answer is 3. "]),
    ],
)
def test_sentences_are_lossless(text, spans):
    assert TASK.sentences(text) == spans
    assert "".join(spans) == text


@pytest.mark.parametrize("task", [TASK, REDO])
def test_corrections_are_right_and_wrong_sentences_are_wrong(task, problems):
    rng = random.Random(2)
    for pair in (b for p in problems[:200] for s in task.example(p, rng).steps for b in s.branches):
        assert task.is_right(pair, pair.correction), pair
        assert task.is_right(pair, pair.last) is not pair.is_wrong, pair
        assert task.well_formed(pair, pair.last)
        assert task.well_formed(pair, pair.correction)
        assert pair.is_wrong is (pair.kind in ("slip", "bad"))
        assert (pair.correction == pair.last) is (pair.kind == "good")
        assert pair.correction.startswith("Redo: ") is (task is REDO and bool(pair.is_wrong))


def test_repairs_keep_the_style_and_other_corrections_are_canonical(branches):
    for b in branches:
        last, correction = read_sentence(b.last), read_sentence(b.correction)
        assert last and correction
        if b.kind == "slip" or b.source in ("bad/operation", "bad/operand"):
            assert (last.kind, last.style) == (correction.kind, correction.style)
        elif b.kind != "good":
            assert (correction.kind, correction.style) == ("step", 0)


def test_shares_of_kinds(branches):
    others = [b for b in branches if step_under(b) and b.kind != "good"]
    share = {kind: n / len(others) for kind, n in Counter(b.kind for b in others).items()}
    assert share == pytest.approx({"slip": 0.55, "neutral": 0.15, "bad": 0.3}, abs=0.05)
    assert Counter(b.kind for b in branches)["good"] == len(branches) / 2
    subtypes = Counter(b.source for b in others if b.kind == "bad")
    assert set(subtypes) == {f"bad/{s}" for s in ("operation", "operand", "skipped", "off_topic", "premature")}
    assert min(subtypes.values()) > 0.08 * subtypes.total()


def test_wrongness_is_balanced_over_carrying(branches):
    on_steps = [(needs_carry(s), b) for b in branches if (s := step_under(b))]
    for kinds in (("slip",), ("bad",), ("slip", "bad")):
        rate = {c: [b.kind in kinds for carry, b in on_steps if carry is c] for c in (True, False)}
        carry, plain = (sum(r) / len(r) for r in (rate[True], rate[False]))
        assert abs(carry - plain) < 0.04, kinds


def test_half_the_slips_on_carrying_steps_forget_the_carry(branches):
    slips = [b for b in branches if b.kind == "slip" and (s := step_under(b)) and needs_carry(s)]
    assert 0.4 < sum(b.source == "slip/carry" for b in slips) / len(slips) < 0.65
    plain = [b for b in branches if (s := step_under(b)) and not needs_carry(s)]
    assert not any(b.source == "slip/carry" for b in plain)


def test_half_the_slips_share_the_good_branchs_style(problems):
    rng = random.Random(4)
    same = []
    for step in (s for p in problems for s in TASK.example(p, rng).steps[:-1]):
        good, other = step.branches
        if other.kind == "slip":
            same.append(re.sub(r"=\d+", "=", good.last) == re.sub(r"=\d+", "=", other.last))
    assert 0.43 < sum(same) / len(same) < 0.57


def test_minimal_pairs_differ_in_the_digits_of_the_result_only():
    for m in TASK.minimal_pairs("validation", 40, seed=2):
        assert (m.good.question, m.good.prefix) == (m.bad.question, m.bad.prefix)
        assert m.good.correction == m.bad.correction == m.good.last != m.bad.last
        assert re.sub(r"=\d+", "=", m.good.last) == re.sub(r"=\d+", "=", m.bad.last)
        assert len(m.good.last) == len(m.bad.last)
        assert TASK.is_right(m.good, m.good.last)
        assert not TASK.is_right(m.bad, m.bad.last)


def test_a_writer_that_never_carries_is_right_half_the_time(problems):
    rng = random.Random(6)
    rate = {
        f: sum(TASK.grade(p, TASK.faulty_answer(p, rng, f))["correct"] for p in problems) / 600 for f in (0.0, 0.8, 1.0)
    }
    assert rate[0.0] == 1.0
    assert 0.35 < rate[1.0] < rate[0.8] < 0.65


def test_a_faulty_writer_errs_only_where_a_step_carries(problems):
    rng = random.Random(8)
    forgotten = 0
    for p in problems:
        answer = TASK.faulty_answer(p, rng, 1.0)
        assert TASK.grade(p, answer)["correct"] or p.meta["carry"]
        for left, op, right, result in re.findall(r"(\d+)([-+*])(\d+)=(\d+)", answer):
            step = Calculation(int(left), op, int(right), int(result))
            assert 0 < step.result < 100
            if step.result != step.value:
                assert needs_carry(step)
                assert step.result == forget_carry(step)
                forgotten += 1
    assert forgotten > 200


@pytest.mark.parametrize(
    ("answer", "correct", "no_answer"),
    [
        ("Now 14+23=37 apples. The answer is 37.", 1, 0),
        ("The answer is 12. Redo: The answer is 37.", 1, 0),
        ("The answer is 37. The answer is 36.", 0, 0),
        ("Now 14+23=37 apples.", 0, 1),
        ("The answer is 37", 0, 1),
        ("", 0, 1),
    ],
)
def test_grade(answer, correct, no_answer, problems):
    problem = type(problems[0])("x", "", "37")
    assert TASK.grade(problem, answer) == {"correct": correct, "no_answer": no_answer}


QUESTION = (
    "Anna has 14 apples. She buys 23 more. She sells 9 of them. She drops 2 apples. "
    "How many apples are there in the end?"
)


@pytest.mark.parametrize(
    ("prefix", "sentence", "right"),
    [
        ("", "Now 14+23=37 apples.", True),
        ("", " We add 23: 14+23=37.", True),
        ("", "Redo: We add 23: 14+23=37.", True),
        ("", "Now there are 37 apples.", True),
        ("", "Now there are 36 apples.", False),
        ("", "Now 14+23=37 pears.", False),
        ("", "He gets 23 more, so 14+23=37.", False),
        ("", "She gets 24 more, so 14+23=37.", False),
        ("", "The answer is 14.", False),
        ("Now 14+23=38 apples.", "Now 38-9=29 apples.", True),
        ("Now 14+23=38 apples.", "Now 37-9=28 apples.", False),
        ("Now there are 38 apples.", "Now 38-9=29 apples.", True),
        ("The sky is blue today. Redo: Now 14+23=37 apples.", "Now 37-9=28 apples.", True),
        ("Now 14+23=37 apples. Now 37-9=28 apples. This makes 26 apples.", "The answer is 26.", True),
        ("Now 14+23=37 apples. Now 37-9=28 apples. This makes 25 apples.", "The answer is 26.", False),
        (
            "Now 14+23=37 apples. Now 37-9=28 apples. This makes 26 apples. The answer is 26.",
            "The answer is 26.",
            False,
        ),
    ],
)
def test_is_right_follows_the_prefix(prefix, sentence, right):
    pair = Pair("x", QUESTION, prefix, "", "")
    assert TASK.is_right(pair, sentence) is right


@pytest.mark.parametrize(
    ("sentence", "formed"),
    [
        ("Now 14+23=99 pears.", True),
        ("The sky is blue today.", True),
        ("Redo: The answer is 5.", True),
        ("Redo:", False),
        ("", False),
        ("Now 14+23=37 37 apples.", False),
        ("Now 14+23=37 apples. Now 37-9=28 apples.", False),
        ("Now 14+23= apples.", False),
        ("Now 14+23=037 apples.", False),
        ("The answer is is 5.", False),
        ("She loses 23, so 14+23=37.", False),
    ],
)
def test_well_formed(sentence, formed):
    assert TASK.well_formed(Pair("x", QUESTION, "", "", ""), sentence) is formed


def test_every_style_is_read_back():
    for style in range(len(STYLES)):
        for op in "+-*":
            step = Calculation(12, op, 3, 50)
            sentence = read_sentence(write_step(style, step, "She", "eggs"))
            assert sentence and (sentence.style, sentence.calculation) == (style, step)


def test_the_vocabulary_is_closed_and_holds_every_word(problems, branches):
    rng = random.Random(1)
    texts = [p.question for p in problems] + [TASK.faulty_answer(p, rng) for p in problems]
    texts += [t for b in branches for t in (b.last, b.correction)] + ["Redo:"]
    words = set(re.findall("[A-Za-z]+", " ".join(texts)))
    assert words == set(vocabulary())
    assert len(words) <= 150
    assert set(re.sub(r"[A-Za-z0-9 ]", "", "".join(texts))) <= set(".,?:+-*=")
