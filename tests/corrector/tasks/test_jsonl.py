import json
import random
from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.tasks import get
from corrector.tasks.base import SPLITS
from corrector.tasks.jsonl import Jsonl, load_pairs

ROW = {"question": "How many?", "prefix": "Two. ", "last": " It is 5.", "correction": "It is 4."}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def rows(n: int) -> list[dict[str, object]]:
    return [{**ROW, "question": f"Question {i // 2}?", "last": f"It is {i}.", "solution": 4} for i in range(n)]


def test_both_released_schemas_load(tmp_path: Path):
    stream = {**ROW, "solution": "#### 4", "is_wrong": True, "source": "human", "flag": 1}
    aligner = {"question": "Why?", "answer": "No idea. Sorry.", "correction": "Because."}
    first, second = load_pairs(write(tmp_path / "a.jsonl", stream, "", aligner))
    assert (first.prefix, first.last, first.correction) == ("Two.", "It is 5.", "It is 4.")
    assert (first.is_wrong, first.source) == (True, "human")
    assert (second.prefix, second.last, second.correction, second.is_wrong) == ("", "No idea. Sorry.", "Because.", None)
    (tmp_path / "list.json").write_text(json.dumps([stream, aligner], indent=1))
    assert load_pairs(tmp_path / "list.json") == [first, second]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", r"a.jsonl:2: no JSON"),
        ([1], r"a.jsonl:2: list is no row"),
        ({k: v for k, v in ROW.items() if k != "last"}, r"a.jsonl:2: field 'last' is missing"),
        ({k: v for k, v in ROW.items() if k != "correction"}, r"a.jsonl:2: field 'correction' is missing"),
        ({"question": "q", "answer": "a"}, r"a.jsonl:2: field 'correction' is missing"),
        ({**ROW, "prefix": None}, r"a.jsonl:2: field 'prefix' is None"),
        ({**ROW, "last": "  "}, r"a.jsonl:2: field 'last' is empty"),
        ({**ROW, "is_wrong": "yes"}, r"a.jsonl:2: field 'is_wrong' is 'yes'"),
        ({**ROW, "solution": [4]}, r"a.jsonl:2: field 'solution' is \[4\]"),
        ({**ROW, "source": 3}, r"a.jsonl:2: field 'source' is 3"),
    ],
)
def test_a_bad_line_names_file_line_and_field(tmp_path: Path, row: object, message: str):
    with pytest.raises(UserError, match=message):
        load_pairs(write(tmp_path / "a.jsonl", ROW, row))


def test_a_bad_file_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"none.jsonl is no file"):
        load_pairs(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"empty.jsonl holds no rows"):
        load_pairs(write(tmp_path / "empty.jsonl", ""))
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe{")
    with pytest.raises(UserError, match=r"bytes.jsonl is no UTF-8 text"):
        load_pairs(tmp_path / "bytes.jsonl")
    (tmp_path / "list.json").write_text("[\n{},\n")
    with pytest.raises(UserError, match=r"list.json:3: no JSON"):
        load_pairs(tmp_path / "list.json")
    with pytest.raises(UserError, match="--data"):
        get("jsonl")


def test_rows_of_a_question_stay_together(tmp_path: Path):
    other = {**ROW, "question": " question  7? ", "last": "Spelt otherwise.", "solution": 4}
    task = Jsonl(str(write(tmp_path / "a.jsonl", *rows(200), other)))
    problems = {s: task.problems(s, task.size(s)) for s in SPLITS}
    assert sum(map(len, problems.values())) == 100 and len(problems["train"]) > 60 and all(problems.values())
    sizes = [len(task.example(p, random.Random(0)).steps) for s in SPLITS for p in problems[s]]
    assert sorted(sizes) == [2] * 99 + [3]
    assert task.problems("train", 9, 1) == task.problems("train", 9, 1) != task.problems("train", 9, 2)
    step = task.example(problems["test"][0], random.Random(0)).steps[0]
    assert (step.prefix, step.chosen, len(step.branches)) == ("Two.", "It is 4.", 1)
    with pytest.raises(UserError, match="which holds"):
        task.problems("test", 101)


def test_judgements(tmp_path: Path):
    task = Jsonl(str(write(tmp_path / "a.jsonl", *rows(60))))
    problem = task.problems("train", 1)[0]
    assert task.grade(problem, "It is 4.") == {"correct": 1.0, "unparsed": 0.0}
    assert task.grade(problem, "It is 5.") == {"correct": 0.0, "unparsed": 0.0}
    assert task.grade(problem, "Who knows") == {"correct": 0.0, "unparsed": 1.0}
    known, unknown = load_pairs(write(tmp_path / "b.jsonl", {**ROW, "is_wrong": True}, ROW))
    assert (task.is_right(known, "It is 4."), task.is_right(known, "It is 5.")) == (True, False)
    assert (task.is_right(unknown, "It is 5."), task.is_right(known, "Else")) == (None, None)
    assert task.is_right(unknown, "It is 4.") is None  # which would else be right whatever happens
    assert task.well_formed(known, "Fine.") and not task.well_formed(known, " ")
    assert not task.well_formed(known, "so it is a so it is a")


def test_solutions_are_needed_to_grade_and_must_agree(tmp_path: Path):
    task = Jsonl(str(write(tmp_path / "a.jsonl", ROW)))
    split = next(s for s in SPLITS if task.size(s))
    with pytest.raises(UserError, match="no field 'solution'"):
        task.grade(task.problems(split, 1)[0], "4")
    with pytest.raises(UserError, match=r"b.jsonl:2: field 'solution' is '5'"):
        Jsonl(str(write(tmp_path / "b.jsonl", {**ROW, "solution": 4}, {**ROW, "solution": 5})))
