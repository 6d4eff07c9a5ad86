import json
import os
import random
import sys
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest

from corrector.errors import UserError
from corrector.tasks import get
from corrector.tasks.base import SPLITS, Pair, split_of
from corrector.tasks.gsm8k import Gsm8k
from corrector.tasks.gsm8k.corrupt import carry, operand, operation, slip
from corrector.tasks.gsm8k.equations import evaluate, parse_line, recomputes, result_of, statements, write_number

NAMES = "Ann Bob Cem Dia Eve Fin Gus Hal Ida Jon Kim Lea".split()


def row(name: str, n: int) -> dict[str, str]:
    return {
        "question": f"{name} has {n} bags of 7 pens, buys 12 at $1.50. So how much is spent, how many pens are there?",
        "answer": f"{name} has {n} * 7 = <<{n}*7={n * 7}>>{n * 7} pens in bags.\n"
        f"With 12 more, that is {n * 7} + 12 = <<{n * 7}+12={n * 7 + 12}>>{n * 7 + 12} pens.\n"
        "The new ones cost 12 x $1.50 = $<<12*1.5=18>>18.\n"
        "Now we know all.\n"
        f"Twice the pens is 2 * {n * 7 + 12} = <<2*{n * 7 + 12}={2 * (n * 7 + 12):,}>>{2 * (n * 7 + 12):,}.\n"
        f"#### {2 * (n * 7 + 12):,}",
    }


TRAIN = [row(name, n) for n in range(11, 16) for name in NAMES]
TEST = [row(name, 100) for name in NAMES]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in (("train", TRAIN), ("test", TEST)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


@pytest.fixture
def task(folder: Path) -> Gsm8k:
    return Gsm8k(str(folder))


def test_splits(task: Gsm8k):
    assert [task.size(s) for s in SPLITS][2] == len(TEST) and task.size("train") + task.size("validation") == len(TRAIN)
    for split in SPLITS:
        found = task.problems(split, task.size(split), seed=3)
        assert len({p.id for p in found}) == task.size(split)
        assert split == "test" or {split_of(p.question, 0.9, 0.1) for p in found} == {split}
    assert task.problems("train", 5, 1) == task.problems("train", 5, 1) != task.problems("train", 5, 2)
    with pytest.raises(UserError, match="13 problems asked of gsm8k's test split, which holds 12"):
        task.problems("test", 13)


def test_a_test_question_is_dropped_from_train(folder: Path):
    doubled = {**TEST[0], "question": TEST[0]["question"].upper()}
    with (folder / "train.jsonl").open("a") as f:
        f.write(json.dumps(doubled) + "\n")
    task = Gsm8k(str(folder))
    assert task.dropped == 1
    assert task.size("train") + task.size("validation") == len(TRAIN)


def test_annotations_leave_the_text_and_stay_in_meta(task: Gsm8k):
    (problem,) = (p for p in task.problems("test", 12) if p.question.startswith("Ann"))
    assert problem.gold == "1424"
    assert problem.meta["equations"] == ("100*7=700", "700+12=712", "12*1.5=18", "2*712=1,424")
    assert str(problem.meta["solution"]).startswith(
        "Ann has 100 * 7 = 700 pens in bags.\nWith 12 more, that is 700 + 12 = 712"
    )
    assert task.grade(problem, str(problem.meta["solution"])) == {"correct": 1.0, "unparsed": 0.0}
    assert task.grade(problem, "#### 1,423") == {"correct": 0.0, "unparsed": 0.0}
    assert task.grade(problem, "who knows") == {"correct": 0.0, "unparsed": 1.0}


def test_example_is_the_gold_answer_with_one_right_and_one_wrong_branch(task: Gsm8k):
    kinds: Counter[str] = Counter()
    for seed, problem in enumerate(task.problems("train", 40)):
        example = task.example(problem, random.Random(seed))
        assert example == task.example(problem, random.Random(seed))
        assert example.answer == problem.meta["solution"]
        assert [span for span in task.sentences(example.answer)] == [step.chosen for step in example.steps]
        prefix = ""
        for step in example.steps:
            assert step.prefix == prefix
            prefix += step.chosen
            good, *bad = step.branches
            assert (good.last, good.is_wrong, task.is_right(good, good.last)) == (good.correction, False, True)
            assert len(bad) == (0 if "know all" in step.chosen else 1)
            for pair in bad:
                kinds[pair.kind] += 1
                assert pair.is_wrong is True and pair.last != pair.correction == good.correction
                assert task.is_right(pair, pair.last) is False
                false = [s for s, true in statements(pair.last) if not true]
                assert bool(false) == (pair.kind == "slip" and not pair.last.startswith("####"))
            assert all(task.well_formed(pair, pair.last) for pair in step.branches)
    assert set(kinds) == {"slip", "operand", "operation"} and min(kinds.values()) > 20


def test_a_wrong_answer_is_calculated_on_to_its_end(task: Gsm8k):
    (problem,) = (p for p in task.problems("test", 12) if p.question.startswith("Ann"))
    gold = str(problem.meta["solution"]).split("\n")
    assert task.corrupted_answer(problem, random.Random(0), 0.0) == gold
    firsts: set[str] = set()
    for seed in range(40):
        answer = task.corrupted_answer(problem, random.Random(seed), 1.0)
        assert len(answer) == len(gold) and task.grade(problem, "\n".join(answer))["correct"] == 0
        bags, pens, twice = result_of(answer[0]), result_of(answer[1]), result_of(answer[4])
        assert bags is not None and pens is not None and bags != 700
        assert answer[1] == f"With 12 more, that is {bags} + 12 = {bags + 12} pens." and twice == 2 * pens
        assert answer[5] == f"#### {int(2 * pens):,}"
        firsts.add(answer[0])
    assert len(firsts) > 10


def test_corruptions_of_one_line():
    line = parse_line("So $1,200 / 4 = $<<1200/4=300>>300 each")
    assert line.text == "So $1,200 / 4 = $300 each"
    rng = random.Random(0)
    for _ in range(20):
        wrong = slip(line, rng)
        assert wrong is not None and len(wrong.text) == len(line.text)
        assert sum(a != b for a, b in zip(wrong.text, line.text, strict=True)) == 1 and wrong.result >= 100
        other = operation(line, rng)
        assert other is not None and other.text in {
            f"So $1,200 {s} 4 = ${r} each" for s, r in zip("+-*", (1204, 1196, 4800), strict=True)
        }
    wrong = operand(line, rng, [Fraction(5), Fraction(7), Fraction(1200)])
    assert wrong is not None and wrong.text in ("So $1,200 / 5 = $240 each", "So $1,200 / 1200 = $1 each")
    assert operand(line, rng, [Fraction(7)]) is None
    assert carry(line, {Fraction(1200): Fraction(1000)}) == (
        "So $1,000 / 4 = $250 each",
        {Fraction(300): Fraction(250)},
    )
    assert carry(line, {Fraction(4): Fraction(0)})[1] == {}


def test_numbers_and_statements():
    assert evaluate("2*(3+.5)-1/4") == Fraction(27, 4)
    assert [evaluate(bad) for bad in ("1/0", "2**9", "a+1", "", "560//10")] == [None] * 5
    assert (
        recomputes(Fraction(1, 3), "0.33")
        and not recomputes(Fraction(1, 3), "0.34")
        and not recomputes(Fraction(7, 2), "3")
    )
    assert [
        write_number(Fraction(n), like)
        for n, like in ((1234, "1,000"), (1234, "1000"), ("9/2", "3"), ("1/3", "3"), (-4, "2.00"))
    ] == ["1,234", "1234", "4.5", "0.33", "-4.00"]
    assert [
        t for _, t in statements("$3 x 4 = $12, then 12 - 5 = 8; 20% * 50 = 10; 100% + 50% = 150%; 18/2 = 9 = 3*3")
    ] == [True, False, True, True, True]
    assert statements("there are 60 students x 2/3 = 40, 4(40) = 160 and at 6:00+48=6:48") == []


def test_is_right_and_well_formed(task: Gsm8k):
    pair = Pair("p", "q", "", "x", "So 6 * 7 = 42 pens.")
    assert task.is_right(pair, "He gets 7 * 6 = 42 of them.") is True
    assert task.is_right(pair, "So 6 * 7 = 43 pens.") is False
    assert task.is_right(pair, "So 6 * 8 = 42 pens.") is False
    assert task.is_right(Pair("p", "q", "", "x", "So we know."), "Thus we know.") is None
    final = Pair("p", "q", "", "#### 5", "#### 42")
    assert task.is_right(final, "#### 42.0") is True and task.is_right(final, "#### 5") is False
    assert task.is_right(final, "42") is False
    assert task.well_formed(pair, "So 6 * 7 = 41 pens.")
    for broken in ("", " ", "So 6\n* 7 = 42", "So \u2603", "a" * 77, "a b c d a b c d"):
        assert not task.well_formed(pair, broken)


def test_minimal_pairs_differ_in_digits_only(task: Gsm8k):
    pairs = task.minimal_pairs("train", 20, seed=1)
    assert len({p.good.problem for p in pairs}) == 20
    for p in pairs:
        assert (p.good.question, p.good.prefix, p.good.correction) == (p.bad.question, p.bad.prefix, p.bad.correction)
        differ = [(a, b) for a, b in zip(p.good.last, p.bad.last, strict=True) if a != b]
        assert len(differ) == 1 and differ[0][0].isdigit() and differ[0][1].isdigit()
    with pytest.raises(UserError, match="13 minimal pairs asked of gsm8k's test split, which gives 12"):
        task.minimal_pairs("test", 13)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"train.jsonl:2: no JSON"),
        ('{"question": "q"}', r"train.jsonl:2: field 'answer' is missing"),
        ('{"question": 3, "answer": "#### 3"}', r"train.jsonl:2: field 'question' is 3"),
        ('{"question": "q", "answer": "three"}', r"train.jsonl:2: field 'answer' does not end in a line '#### N'"),
        ("[]", r"train.jsonl:2: list is no row"),
    ],
)
def test_bad_rows_are_named(folder: Path, line: str, message: str):
    (folder / "train.jsonl").write_text(json.dumps(TRAIN[0]) + "\n" + line + "\n")
    with pytest.raises(UserError, match=message):
        Gsm8k(str(folder))


def test_absent_data_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setenv("CORRECTOR_LAB_DATA", str(folder.parent))
    with pytest.raises(UserError, match="is no folder"):
        Gsm8k()
    folder.rename(folder.parent / "gsm8k")
    assert get("gsm8k").size("test") == 12
    (folder.parent / "gsm8k" / "test.jsonl").unlink()
    with pytest.raises(UserError, match=r"test.jsonl is missing"):
        Gsm8k()
    monkeypatch.delenv("CORRECTOR_LAB_DATA")
    with pytest.raises(UserError, match="set CORRECTOR_LAB_DATA"):
        Gsm8k()


def test_a_hub_id_is_read_through_datasets(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []

    def load_dataset(path: str, name: str, **_: object) -> dict[str, list[dict[str, str]]]:
        asked.append((path, name))
        if path == "no/body":
            raise ConnectionError
        return {"train": TRAIN, "test": TEST} if path == "openai/gsm8k" else {"train": TRAIN}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert Gsm8k("openai/gsm8k").size("test") == 12 and asked == [("openai/gsm8k", "main")]
    with pytest.raises(UserError, match="has no split test"):
        Gsm8k("other/set")
    with pytest.raises(UserError, match=r"no data set to be had \(ConnectionError\)"):
        Gsm8k("no/body")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        Gsm8k("openai/gsm8k")


@pytest.mark.shared_data
def test_the_real_set():
    root = os.environ.get("CORRECTOR_LAB_DATA", "")
    if not (Path(root) / "gsm8k" / "train.jsonl").is_file():
        pytest.skip("CORRECTOR_LAB_DATA names no folder with gsm8k/train.jsonl")
    task = Gsm8k()
    assert (task.dropped, task.size("train"), task.size("validation"), task.size("test")) == (0, 6709, 764, 1319)
    n: Counter[str] = Counter()
    for split in SPLITS[1:]:
        for problem in task.problems(split, task.size(split)):
            for raw in str(problem.meta["annotated"]).split("\n")[:-1]:
                line = parse_line(raw)
                n["steps"] += 1 if raw.strip() else 0
                n["with equations"] += bool(line.equations)
                for e in line.equations:
                    value = evaluate(e.expression)
                    n["unreadable"] += value is None
                    n["false"] += value is not None and not recomputes(value, e.result)
                    n["operands not written"] += not e.operands
    assert n == {"steps": 7609, "with equations": 6776, "unreadable": 0, "false": 0, "operands not written": 192}


def test_a_long_sum_is_read_at_once():
    terms = " + ".join(f"{i} * $100" for i in range(1, 16))
    began = time.process_time()
    assert statements(f"Jack has {terms} bills, or $200 + $50 = ...") == []
    assert statements(f"Jack has {terms} = 12000") == [(f"{terms}=12000".replace(" ", "").replace("$", ""), True)]
    # Spaces that brackets and signs may both take made this take hours.
    assert time.process_time() - began < 2
