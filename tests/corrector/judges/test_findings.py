"""Findings against counts made by hand."""

import pytest

from corrector.judges import Answer, Duel, Verdict
from corrector.judges.findings import outcome_findings, verdict_findings
from corrector.statistics import bootstrap_mean

OWN, OTHER = [1, 1, 1, 1, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 0, 1, 0, 0, 1, 0]


def duels(own, other, name="correct"):
    return [
        Duel(str(i), "q", Answer("", {name: float(a)}), None if b is None else Answer("", {name: float(b)}))
        for i, (a, b) in enumerate(zip(own, other, strict=True))
    ]


def by_name(findings):
    return {f.name: f for f in findings}


def test_accuracy_its_difference_and_the_flips():
    got = by_name(outcome_findings(duels(OWN, OTHER), ["correct"]))
    assert (got["correct, run"].value, got["correct, against"].value) == (0.7, 0.3)
    difference = got["correct, difference"]
    wanted = bootstrap_mean([float(a - b) for a, b in zip(OWN, OTHER, strict=True)])
    assert (difference.value, difference.low, difference.high, difference.n) == (
        pytest.approx(0.4),
        wanted.low,
        wanted.high,
        10,
    )
    test = got["correct, McNemar's p"]
    assert test.note == "wrong -> right 5, right -> wrong 1"
    assert test.value == pytest.approx(2 * (1 + 6) / 2**6)  # P(X <= 1) twice, X ~ Binomial(6, 1/2)


def test_graded_outcomes_and_a_run_alone_have_no_flips():
    assert "helpful, McNemar's p" not in by_name(outcome_findings(duels([0.5], [0], "helpful"), ["helpful"]))
    assert "unparsed, McNemar's p" not in by_name(outcome_findings(duels([1], [0], "unparsed"), ["correct"]))
    assert list(by_name(outcome_findings(duels(OWN, [None] * 10), ["correct"]))) == ["correct, run"]


def test_omega_counts_decided_duels_only():
    names = ["win"] * 5 + ["loss"] * 2 + ["tie"] + ["swapped"] * 2 + ["unparsed"] * 3 + ["failed"]
    (got,) = verdict_findings("server", [Verdict(str(i), "helpful", name) for i, name in enumerate(names)])
    assert got.value == pytest.approx((5 - 2) / 10) and got.n == 10
    assert got.note == "wins 5, ties 3, losses 2; 2 ties by order; unparsed 3; failed 1"
    assert got.low <= got.value <= got.high


def test_without_a_decision_there_is_no_omega():
    (got,) = verdict_findings("server", [Verdict("a", "helpful", "unparsed")])
    assert got.value is None and got.n == 0 and "unparsed 1" in got.note
    (alone,) = verdict_findings("model", [Verdict("a", "reward", None, 2.0)])
    assert (alone.name, alone.value, alone.low) == ("reward, run", 2.0, None)


def test_a_model_judge_has_paired_scores():
    verdicts = [Verdict(str(i), "cost", "win", float(i), float(i + 1)) for i in range(4)]
    got = by_name(verdict_findings("model", verdicts))
    assert got["cost, difference"].value == -1.0 and got["cost, omega by model"].value == 1.0
