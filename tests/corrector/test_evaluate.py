"""The command over two small runs: what it finds, writes, resumes and refuses."""

import json
import re
from dataclasses import dataclass

import pytest

from corrector.errors import UserError
from corrector.evaluate import Evaluate, run
from corrector.records import RunFolder
from corrector.servers.chat import Server, Traffic

QUICK = Traffic(concurrency=4, timeout=5.0, retries=1, backoff=0.01)


@dataclass(frozen=True)
class Made:
    task: str = "arithmetic"
    data: str = ""


def make(path, correct, **changes):
    with RunFolder(path, Made()) as folder:
        rows = [
            {
                "task": "arithmetic",
                "problem": f"p{i}",
                "question": f"question {i}?",
                "gold": "3",
                "answer": f"{'good' if c else 'bad'} [red]answer[/red] {i}",
                "stopped": "end",
                "outcomes": {"correct": float(c), "no_answer": 0.0},
                "rounds": [],
                **changes,
            }
            for i, c in enumerate(correct)
        ]
        folder.append("alignments", rows)
        folder.finish()
    return path


@pytest.fixture
def runs(tmp_path):
    return make(tmp_path / "own", [1, 1, 1, 0, 1, 0]), make(tmp_path / "other", [0, 0, 1, 1, 0, 0])


def by_name(findings):
    return {f.name: f for f in findings}


def test_the_task_judges_two_runs(runs, tmp_path, capsys):
    own, other = runs
    config = Evaluate(own, other, out=tmp_path / "out")
    got = by_name(run(config))
    assert got["correct, difference"].value == pytest.approx(2 / 6)
    assert got["correct, McNemar's p"].note == "wrong -> right 3, right -> wrong 1"
    assert got["correct, omega by task"].note == "wins 3, ties 2, losses 1"
    said = capsys.readouterr().out
    assert all(len(re.findall(re.escape(f"│ {name} "), said)) == 1 for name in got)
    record = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert [f["name"] for f in record["findings"]] == list(got)
    assert record["failed"] == record["unpaired"] == 0 and (tmp_path / "out" / "DONE").exists()
    assert by_name(run(config)) == got
    alone = by_name(run(Evaluate(own, out=tmp_path / "alone")))
    assert list(alone) == ["correct, run", "no_answer, run"]


def script(body):
    first, second = body["messages"][1]["content"].split("[Answer B]")
    a, b = "good" in first, "good" in second
    return [f"VERDICT: {'TIE' if a == b else 'A' if a else 'B'}"]


def test_a_server_judges_and_a_second_run_sends_nothing(runs, tmp_path, faulty, capsys):
    server, (own, other) = faulty(script), runs
    config = Evaluate(
        own, other, "server", server=Server(server.url, "m"), traffic=QUICK, rubric=("helpful",), out=tmp_path / "out"
    )
    got = by_name(run(config))
    assert got["helpful, omega by server"].value == pytest.approx(2 / 6)
    assert got["helpful, omega by server"].note == "wins 3, ties 2, losses 1; 0 ties by order"
    n = server.n
    assert n == 8  # two of six have equal answers
    assert by_name(run(config)) == got and server.n == n
    (tmp_path / "out" / "DONE").unlink()
    (tmp_path / "out" / "verdicts.jsonl").unlink()
    assert by_name(run(config)) == got and server.n == n
    assert "requests 0, retries 0, retry-after 0, kept 8" in capsys.readouterr().out


def test_always_a_gives_omega_0_with_every_swap_a_tie(runs, tmp_path, faulty):
    own, other = runs
    server = faulty(lambda body: ["VERDICT: A"])
    base = {"server": Server(server.url, "m"), "traffic": QUICK, "rubric": ("harmless",)}
    (omega,) = run(Evaluate(own, other, "server", out=tmp_path / "o", **base))[-1:]
    assert omega.value == 0.0 and omega.note == "wins 0, ties 6, losses 0; 4 ties by order"


def test_failures_are_counted_and_asked_again(runs, tmp_path, faulty, capsys):
    own, other = runs
    down = {"0": True}

    def flaky(body):
        text = body["messages"][1]["content"]
        if "question 0?" in text and down["0"]:
            return [500]
        return ["no verdict"] if "question 1?" in text else script(body)

    server = faulty(flaky)
    config = Evaluate(
        own, other, "server", server=Server(server.url, "m"), traffic=QUICK, rubric=("helpful",), out=tmp_path / "out"
    )
    (omega,) = run(config)[-1:]
    assert omega.note.endswith("unparsed 1; failed 1") and omega.n == 4
    assert "1 verdicts failed" in capsys.readouterr().out and not (tmp_path / "out" / "DONE").exists()
    assert server.n == 8 + 2  # two orders, each tried again once
    down["0"] = False
    (omega,) = run(config)[-1:]
    assert omega.n == 5 and omega.note.startswith("wins 2") and omega.note.endswith("unparsed 1")
    assert server.n == 12 and (tmp_path / "out" / "DONE").exists()


def test_what_does_not_fit_is_refused(runs, tmp_path, monkeypatch):
    own, other = runs
    with pytest.raises(UserError, match="no run folder"):
        run(Evaluate(tmp_path / "absent"))
    with pytest.raises(UserError, match="--against"):
        run(Evaluate(own, judge="server"))
    (own / "DONE").rename(own / "x")
    with pytest.raises(UserError, match="not a finished run"):
        run(Evaluate(own))
    (own / "x").rename(own / "DONE")
    with pytest.raises(UserError, match="another gold"):
        run(Evaluate(own, make(tmp_path / "gold", [1] * 6, gold="4")))
    with pytest.raises(UserError, match="as a sweep does"):
        run(Evaluate(make(tmp_path / "twice", [1] * 2, problem="p0")))
    monkeypatch.setenv("LAB_TEST_KEY", "")
    with pytest.raises(UserError, match="not set"):
        run(Evaluate(own, other, "server", server=Server("http://x", "m", key_env="LAB_TEST_KEY"), out=tmp_path / "o"))
    assert not (tmp_path / "o").exists()


def test_questions_of_one_run_only_are_counted(runs, tmp_path, capsys):
    own, _ = runs
    got = by_name(run(Evaluate(own, make(tmp_path / "few", [1, 1]), out=tmp_path / "out")))
    assert got["correct, run"].n == 2
    assert "left out: 4 questions" in capsys.readouterr().out


def test_an_evaluation_of_other_answers_is_another(runs, tmp_path):
    own, other = runs
    run(Evaluate(own, other, out=tmp_path / "out"))
    for file in other.iterdir():
        file.unlink()
    make(other, [1] * 6)
    with pytest.raises(UserError, match="inputs"):
        run(Evaluate(own, other, out=tmp_path / "out"))
