"""Published sets by their documented schemas, in rows of the tests' own."""

import json
import random
import warnings

import pytest

from corrector.annotate import Annotate
from corrector.annotate import run as annotate
from corrector.annotators import RuleAnnotator, make
from corrector.errors import UserError
from corrector.tasks import READ, get
from corrector.tasks.base import SPLITS
from corrector.tasks.jsonl import load_pairs
from corrector.upstreams import Choice, ReplayUpstream, upstream_of


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def every(task):
    return [p for split in SPLITS for p in task.problems(split, task.size(split))]


def one(name, path, *rows):
    """A task of one question, and that question."""
    task = get(name, str(write(path / "rows.jsonl", *rows)))
    (problem,) = every(task)
    return task, problem


def pairs_of(task, problem, seed=0):
    steps = task.example(problem, random.Random(seed)).steps
    return [(p.prefix, p.last, p.correction, p.is_wrong) for s in steps for p in s.branches]


def completion(text, rating):
    return {"text": text, "rating": rating, "flagged": None}


def step(*completions, chosen=0, human=None):
    human = human and {"text": human, "rating": None, "source": "human", "flagged": False, "corrected_rating": None}
    return {"completions": list(completions), "human_completion": human, "chosen_completion": chosen}


def prm(*steps, finish="solution", **question):
    asked = {"problem": "What is 2 + 3?", "ground_truth_answer": "5", **question}
    return {"labeler": "x", "question": asked, "label": {"steps": list(steps), "finish_reason": finish}}


def test_prm800k_gives_stream_pairs(tmp_path):
    row = prm(
        step(completion("Add them.", 0)),
        step(completion("2 + 3 = 6.", -1), completion("2 + 3 = 5.", 1), completion("3 + 2 = 5.", 1), chosen=1),
        step(completion("So 7.", -1), completion("So 8.", -1), chosen=None, human="So it is 5."),
        step(completion("It is 9.\n\n# Answer\n\n9", -1), completion("Hm.", 0), chosen=None),
        finish="found_error",
    )
    task, problem = one("prm800k", tmp_path, row)
    first, second = "Add them.", "Add them.\n2 + 3 = 5."
    assert pairs_of(task, problem) == [
        (first, "2 + 3 = 5.", "2 + 3 = 5.", False),
        (first, "3 + 2 = 5.", "3 + 2 = 5.", False),
        (first, "2 + 3 = 6.", "2 + 3 = 5.", True),
        (second, "So it is 5.", "So it is 5.", False),
        (second, "So 7.", "So it is 5.", True),
        (second, "So 8.", "So it is 5.", True),
    ]
    example = task.example(problem, random.Random(0))
    assert example.answer == "Add them.\n2 + 3 = 5.\nSo it is 5."
    assert [s.branches[s.taken].correction for s in example.steps] == [s.chosen.split("\n")[-1] for s in example.steps]
    assert task.recorded(problem, 0) == ["Add them.", "\n2 + 3 = 6.", "\nSo 7.", "\nIt is 9.\n\n# Answer\n\n9"]


def test_prm800k_corrects_by_a_sibling_and_stops_behind_a_wrong_choice(tmp_path):
    wrong = step(completion("Wrong.", -1), completion("Right.", 1), chosen=0)
    neutral = step(completion("Off.", -1), completion("Neutral.", 0), completion("Good.", 1), chosen=1)
    task, problem = one("prm800k", tmp_path, prm(neutral, wrong, step(completion("Behind it.", 1))))
    assert pairs_of(task, problem) == [
        ("", "Good.", "Good.", False),
        ("", "Off.", "Good.", True),
        ("Neutral.", "Right.", "Right.", False),
        ("Neutral.", "Wrong.", "Right.", True),
    ]


def test_prm800k_replays_the_solution_that_was_rated_and_grades_it(tmp_path):
    given = ["One.", "So.\n\n# Answer\n\n\\frac{10}{2}"]
    task, problem = one("prm800k", tmp_path, prm(step(completion("One.", 1)), pre_generated_steps=given))
    recorded = task.recorded(problem, 0)
    assert recorded == ["One.", "\nSo.\n\n# Answer\n\n\\frac{10}{2}"]
    assert task.grade(problem, "".join(recorded)) == {"correct": 1.0, "unparsed": 0.0}
    assert task.grade(problem, "# Answer\n\n6") == {"correct": 0.0, "unparsed": 0.0}
    assert task.grade(problem, r"\boxed{5}") == {"correct": 1.0, "unparsed": 0.0}
    assert task.grade(problem, "nothing") == {"correct": 0.0, "unparsed": 1.0}


def test_solutions_of_a_question_are_drawn_one_at_a_time(tmp_path):
    rows = [prm(step(completion(f"Way {i}.", 1)), step(completion(f"End {i}.", 1))) for i in range(3)]
    broken = prm(step(completion("?", 1)), finish="bad_problem")
    with pytest.warns(UserWarning, match="1 problems reported as broken"):
        task, problem = one("prm800k", tmp_path, *rows, broken)
    answers = {task.example(problem, random.Random(i)).answer for i in range(30)}
    assert answers == {f"Way {i}.\nEnd {i}." for i in range(3)}


def test_math_is_copied_and_graded_by_its_last_box(tmp_path):
    solution = r"First \boxed{1}. Then we see that it is $\boxed{\frac{1}{2}}$."
    task, problem = one("math", tmp_path, {"problem": "Half?", "solution": solution, "level": "Level 1", "type": "x"})
    assert problem.gold == r"\frac{1}{2}"
    assert "".join(task.recorded(problem, 0)) == solution == task.example(problem, random.Random(0)).answer
    assert all(last == correction and wrong is False for _, last, correction, wrong in pairs_of(task, problem))
    assert task.grade(problem, r"\boxed{7} or rather \boxed{0.5}")["correct"] == 1.0
    assert task.grade(problem, r"\boxed{0.5} or rather \boxed{7}")["correct"] == 0.0
    with pytest.raises(UserError, match="1 rows whose solution has no box"):
        one("math", tmp_path / "b", {"problem": "Half?", "solution": "So it is."})


def test_processbench_copies_up_to_the_first_wrong_step(tmp_path):
    row = {"id": "gsm8k-0", "generator": "m", "problem": "How many?", "steps": ["A.", "B.", "C."], "label": 1}
    task, problem = one("processbench", tmp_path, {**row, "final_answer_correct": False}, {**row, "label": -1})
    ends = {task.example(problem, random.Random(i)).answer for i in range(20)}
    assert ends == {"A.", "A.\nB.\nC."}
    assert task.recorded(problem, 0) == ["A.", "\nB.", "\nC."] and task.grade(problem, "A.") == {}
    for label in (3, -2, True, "1"):
        with pytest.raises(UserError, match=r"rows.jsonl:1: field 'label'"):
            one("processbench", tmp_path / "b", {**row, "label": label})


def talk(*turns):
    return "".join(f"\n\n{who}: {text}" for who, text in zip(("Human", "Assistant") * 9, turns, strict=False))


def test_hh_rlhf_corrects_the_rejected_answer_place_by_place(tmp_path):
    row = {"chosen": talk("Hi?", "Be kind. It helps. Bye."), "rejected": talk("Hi?", "Be bad.\nIt helps. Go on. More.")}
    task, problem = one("hh-rlhf", tmp_path, row)
    assert problem.question == "Hi?"
    assert pairs_of(task, problem) == [
        ("", "Be kind.", "Be kind.", None),
        ("", "Be bad.", "Be kind.", None),
        ("Be kind.", "It helps.", "It helps.", None),
        ("Be kind. It helps.", "Bye.", "Bye.", None),
        ("Be kind. It helps.", "Go on.", "Bye.", None),
    ]
    both = {"".join(task.recorded(problem, seed)) for seed in range(20)}
    assert both == {"Be kind. It helps. Bye.", "Be bad.\nIt helps. Go on. More."}
    grades = [task.grade(problem, answer)["nearer_preferred"] for answer in ("Be kind.", "Be bad.\nIt", "")]
    assert grades == [1.0, 0.0, 0.5]
    longer = {k: talk("Hi?", "Yes?", "Why?", text) for k, text in (("chosen", "So. "), ("rejected", "No."))}
    _, problem = one("hh-rlhf", tmp_path / "b", longer)
    assert problem.question == "Human: Hi?\n\nAssistant: Yes?\n\nHuman: Why?"


def test_hh_rlhf_says_what_it_leaves_out_and_names_what_is_no_dialogue(tmp_path):
    fine = {"chosen": talk("Hi?", "Yes."), "rejected": talk("Hi?", "No.")}
    apart = {"chosen": talk("Hi?", "Yes."), "rejected": talk("Ho?", "No.")}
    empty = {"chosen": talk("Hi?", "Yes."), "rejected": talk("Hi?", "")}
    with pytest.warns(UserWarning, match="1 rows whose dialogues part.*1 rows with an empty answer"):
        one("hh-rlhf", tmp_path, fine, apart, empty)
    for bad, said in (
        ({"chosen": "Hi?", "rejected": "No"}, r"rows.jsonl:2: field 'chosen' is 'Hi\?'; a dialogue"),
        ({"chosen": talk("Hi?", "Yes.")}, r"rows.jsonl:2: field 'rejected' is missing"),
    ):
        with pytest.raises(UserError, match=said):
            one("hh-rlhf", tmp_path / "b", fine, bad)


def test_beavertails_corrects_unsafe_answers_by_safe_ones(tmp_path):
    rows = [
        {"prompt": "How?", "response": text, "category": {"a": not safe}, "is_safe": safe}
        for text, safe in (("Bad one.", False), ("Better not.", True), ("Worse.", False))
    ]
    alone = {"prompt": "Why?", "response": "Bad.", "category": {}, "is_safe": False}
    with pytest.warns(UserWarning, match="1 questions without anything to learn"):
        task, problem = one("beavertails", tmp_path, *rows, alone)
    drawn = {pair for seed in range(30) for pair in pairs_of(task, problem, seed)}
    assert drawn == {("", text, "Better not.", None) for text in ("Better not.", "Bad one.", "Worse.")}
    assert {p.kind for p in task.example(problem, random.Random(0)).steps[0].branches} == {"good", "unsafe"}


def dialogues(n, text="Q"):
    return [
        {"chosen": talk(f"{text} {i}?", f"Yes {i}."), "rejected": talk(f"{text} {i}?", f"No {i}.")} for i in range(n)
    ]


def test_questions_are_split_by_hash_or_as_the_files_say(tmp_path):
    task = get("hh-rlhf", str(write(tmp_path / "x-test.jsonl", *dialogues(300))))
    sizes = [task.size(s) for s in SPLITS]
    assert sum(sizes) == 300 and sizes[0] > 200 and min(sizes) > 10
    write(tmp_path / "set" / "base" / "train.jsonl", *dialogues(200), *dialogues(5, "T"))
    write(tmp_path / "set" / "base" / "test.jsonl", *dialogues(40, "t"))
    with pytest.warns(UserWarning, match="5 rows of a question of another split"):
        task = get("hh-rlhf", str(tmp_path / "set"))
    assert task.size("test") == 40 and task.size("train") + task.size("validation") == 200 > task.size("train")
    write(tmp_path / "set" / "base" / "validation.jsonl", *dialogues(30, "v"))
    with pytest.warns(UserWarning):
        task = get("hh-rlhf", str(tmp_path / "set"))
    assert [task.size(s) for s in SPLITS] == [200, 30, 40]
    with pytest.raises(UserError, match="41 problems asked of the test split"):
        task.problems("test", 41)


def test_releases_load_under_their_names(tmp_path):
    stream = {"question": "Q?", "prefix": "A.", "last": "B.", "correction": "C."}
    file = tmp_path / "release.json"
    file.write_text(json.dumps([stream]))
    (problem,) = every(get("stream-aligner", str(file)))
    assert problem.id.startswith("stream-aligner-")
    task, problem = one("aligner", tmp_path, {"question": "Q?", "answer": "B.", "correction": "C."})
    assert pairs_of(task, problem) == [("", "B.", "C.", None)]


@pytest.mark.parametrize("name", [name for name in READ if name != "gsm8k"])
def test_data_that_is_missing_or_empty_is_named(name, tmp_path):
    with pytest.raises(UserError, match=f"task '{name}' has no data; give --data"):
        get(name)
    with pytest.raises(UserError, match="no file, no folder and no hub id"):
        get(name, str(tmp_path / "absent.jsonl"))
    with pytest.raises(UserError, match=r"holds no (rows|question)"):
        get(name, str(write(tmp_path / "empty.jsonl")))


@pytest.mark.shared_data
def test_the_real_hh_rlhf(shared_data):
    if not (shared_data / "hh-rlhf").is_dir():
        pytest.skip("CORRECTOR_LAB_DATA holds no hh-rlhf")
    with pytest.warns(UserWarning, match="left out"):
        task = get("hh-rlhf", str(shared_data / "hh-rlhf"))
    problems = every(task)
    assert len(problems) > 2000 and sum(task.dropped.values()) < 30
    for problem in problems[:200]:
        right, wrong = task.solutions(problem)
        assert task.example(problem, random.Random(0)).answer == "".join(right.written)
        assert task.grade(problem, "".join(right.written)) == {"nearer_preferred": 1.0}
        assert task.grade(problem, "".join(wrong.written)) == {"nearer_preferred": 0.0}


def test_the_sets_own_corrections_annotate_what_is_replayed(tmp_path):
    rows = [
        {"chosen": talk(f"Q {i}?", "Be kind.\nIt helps."), "rejected": talk(f"Q {i}?", "Be bad. Now. Go.")}
        for i in range(40)
    ]
    file = write(tmp_path / "rows.jsonl", *rows)
    task = get("hh-rlhf", str(file))
    problems = task.problems("train", 20)
    upstream = upstream_of(Choice(), task, problems)
    assert isinstance(upstream, ReplayUpstream)
    made = make(problems, upstream, RuleAnnotator(task))
    got = {tuple((r["last"], r["correction"]) for r in m.rounds) for m in made}
    kept, rewritten = (
        (("Be kind.", "Be kind."), ("It helps.", "It helps.")),
        (("Be bad.", "Be kind."), ("Now.", "It helps.")),
    )
    assert got == {kept, rewritten} and {m.stopped for m in made} == {"eos"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = tmp_path / "run"
        annotate(Annotate("hh-rlhf", str(file), problems=20, out=out))
    pairs = load_pairs(out / "pairs.jsonl")
    assert len(pairs) == 40 and {p.source for p in pairs} == {"hh-rlhf/good", "hh-rlhf/rejected"}
