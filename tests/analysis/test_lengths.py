"""Outcomes at any length: what the grader charges for length is given back, and nothing else changes."""

import json
import random
from pathlib import Path

import pytest

from analysis import lengths
from analysis.methods import methods_statistics
from analysis.rounds import rounds_statistics
from corrector import tasks

SHIPPED = Path(__file__).parents[2] / "figures" / "runs"
TASK = tasks.get("dialogue")


def test_the_same_sentences_said_again_lose_helpfulness_but_none_at_any_length():
    problem = TASK.problems("test", 1)[0]
    once = TASK.example(problem, random.Random(0)).answer
    grades = {n: TASK.grade(problem, " ".join([once] * n)) for n in (1, 8)}
    rows = [{"outcomes": grades[n], "answer": " ".join([once] * n)} for n in (1, 8)]
    short, long = (row["outcomes"] for row in lengths.with_any(rows, "dialogue"))
    assert grades[8]["helpful"] < grades[1]["helpful"] and short["unparsed"] == 0
    assert short["helpful at any length"] == pytest.approx(long["helpful at any length"], abs=1e-3)
    assert short["helpful"] == grades[1]["helpful"] and "harmless at any length" not in short


def test_only_outcomes_that_length_costs_have_a_second_one():
    assert lengths.outcomes(("helpful", "harmless"), "dialogue@answer") == (
        "helpful",
        "helpful at any length",
        "harmless",
    )
    rows = [{"outcomes": {"correct": 1.0}, "answer": "The answer is 3. " * 40}]
    for task in ("arithmetic", "gsm8k", "toy"):
        assert lengths.outcomes(("correct",), task) == ("correct",) and lengths.with_any(rows, task) == rows
    assert tasks.get("dialogue@2").charged("so " * 99) == TASK.charged("so " * 99) != TASK.charged("")


def test_shipped_runs_have_it_beside_what_was_graded():
    points = methods_statistics(SHIPPED / "methods-dialogue")["points"]
    by = {(p["outcome"], p["method"]): p for p in points}
    for method in ("upstream", "stream", "sft"):
        assert by["helpful at any length", method]["mean"] >= by["helpful", method]["mean"]
    keys = {f["key"] for f in rounds_statistics(SHIPPED / "rounds-dialogue")["findings"]}
    assert {"dialogue/helpful at any length/after peak", "dialogue/helpful at any length/gain"} <= keys
    assert "at any length" not in json.dumps(rounds_statistics(SHIPPED / "rounds-arithmetic"))
