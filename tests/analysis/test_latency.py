"""Waiting times: a small run, and ratios of rows that are known."""

import json

import pytest

from analysis.experiments.waits import Latency, lengthened, run
from analysis.latency import latency_statistics, load_waits, report
from corrector import tasks
from corrector.errors import UserError

SMALL = {"lengths": (0, 30), "problems": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(Latency(**SMALL, out=tmp_path_factory.mktemp("runs") / "latency"))


def test_both_methods_are_timed_at_every_length_and_aligner_waits_for_the_whole_answer(finished):
    rows, about = load_waits(finished)
    assert len(rows) + 2 * about["left_out"] == 2 * 2 * 2 * 2 and about["n_parameters"]["stream"] > 0
    by = {(r["decoding"], r["length"], r["problem"], r["method"]): r for r in rows}
    for (how, length, problem, method), row in by.items():
        assert row["first"] > 0 and row["whole"] > 0 and row["question_tokens"] >= length
        if method == "stream":
            assert row["waited_tokens"] <= by[how, length, problem, "aligner"]["waited_tokens"]
        other = by["plain" if how == "fast" else "fast", length, problem, method]
        assert row["tokens"] == other["tokens"], "both ways of decoding write the same"
    report(finished)
    assert json.loads((finished / "statistics.json").read_text())["findings"]


def test_ratios_are_of_sums_over_the_same_problems(tmp_path):
    folder = tmp_path / "latency"
    folder.mkdir()
    rows = [
        {
            **{"method": method, "decoding": "fast", "length": 0, "problem": str(i), "tokens": 10 if i else 20},
            **{"waited_tokens": 3, "question_tokens": 8, "first": first * (i + 1), "whole": whole},
        }
        for method, first, whole in (("stream", 0.1, 1.0), ("aligner", 0.4, 2.0))
        for i in range(3)
    ]
    rows.append({**rows[0], "problem": "empty", "tokens": 0})
    rows.append({**rows[3], "problem": "empty"})
    (folder / "waits.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "config.json").write_text(json.dumps({"task": "toy", "seed": 0, "stream": "s"}))
    (folder / "about.json").write_text(json.dumps({"model_organism": False}))
    with pytest.raises(UserError, match="no finished run"):
        latency_statistics(folder)
    (folder / "DONE").write_text("{}")
    numbers = latency_statistics(folder)
    by = {p["measure"]: p for p in numbers["points"]}
    assert numbers["left_out"] == 1 and by["first"]["n"] == 3
    assert by["first"]["ratio"] == pytest.approx(4.0), "Aligner over Stream Aligner"
    assert by["per_token"]["ratio"] == pytest.approx(0.5), "Stream Aligner over Aligner"
    assert by["first"]["stream"] == pytest.approx(200.0), "milliseconds"


def test_questions_grow_by_words_of_their_own():
    problem = tasks.get("dialogue").problems("test", 1)[0]
    longer = lengthened(problem, 20, lambda text: len(text.split()))
    assert longer.question.startswith(problem.question + " ") and longer.id == problem.id
    n = len(problem.question.split())
    assert n + 20 <= len(longer.question.split()) < n + 20 + n
    assert lengthened(problem, 0, len) == problem
    with pytest.raises(UserError, match="cannot be made longer"):
        lengthened(type(problem)("a", "Why?", ""), 5, len)


@pytest.mark.parametrize("change", [{"problems": 1}, {"lengths": ()}, {"lengths": (-1,)}, {"decoding": ()}])
def test_impossible_measurements_are_refused(change, tmp_path):
    with pytest.raises(UserError, match="choose 2 problems"):
        run(Latency(**{**SMALL, **change}, out=tmp_path / "run"))
