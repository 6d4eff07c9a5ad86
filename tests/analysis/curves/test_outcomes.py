"""What the loop gains and loses against itself unsteered, on fabricated rows."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.curve import report
from analysis.dose import dose_statistics
from tests.analysis.test_curve import alignment, sweep_rows, write_run

N = 20


def loop(values: dict[float, list[float]], name: str = "correct", split: str = "t") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for coef, of_coef in values.items():
        direction = "correction" if coef else "none"
        for i, value in enumerate(of_coef):
            rows.append({**alignment(direction, coef, 0, **{name: value}), "problem": f"{split}{i}"})
    return rows


def statistics(folder: Path, test: list[dict[str, Any]], validation: list[dict[str, Any]] | None = None) -> Any:
    run = write_run(folder, sweep_rows("dialogue", 0.4), test)
    if validation:
        (run / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in validation))
    return dose_statistics(run)["tasks"]["dialogue"]


def ones(n: int) -> list[float]:
    """The first n of N problems are right."""
    return [float(i < n) for i in range(N)]


def test_changes_are_paired_by_problem(tmp_path: Path) -> None:
    # at +1 problems 8 to 11 become right; at -1 the right ones are the last 8: 8 break, 8 mend
    test = loop({0.0: ones(8), 1.0: ones(12), -1.0: [float(i >= 12) for i in range(N)]})
    test.reverse()  # rows are matched by problem, not by their place
    assert statistics(tmp_path / "run", test)["loop"] == {
        "correct": [
            {"coef": -1.0, "n": N, "wrong_to_right": 8, "right_to_wrong": 8},
            {"coef": 1.0, "n": N, "wrong_to_right": 4, "right_to_wrong": 0},
        ]
    }


def test_scores_that_are_no_right_and_wrong_rise_and_fall(tmp_path: Path) -> None:
    test = loop({0.0: [0.5] * N, 2.0: [0.5] * 5 + [0.9] * 9 + [-3.0] * 6}, "helpful")
    assert statistics(tmp_path / "run", test)["loop"]["helpful"] == [{"coef": 2.0, "n": N, "rose": 9, "fell": 6}]


def test_a_loop_without_rows_has_no_changes(tmp_path: Path) -> None:
    numbers = statistics(tmp_path / "run", [])
    assert numbers["loop"] == {} == numbers["improvement"]


def test_the_coefficient_is_chosen_on_validation_and_judged_on_test(tmp_path: Path) -> None:
    validation = loop({0.0: ones(8), 1.0: ones(14), 2.0: ones(10)}, split="v")
    # on test coefficient 2 would be best: that must not count
    test = loop({0.0: ones(8), 1.0: ones(11), 2.0: ones(20)})
    found = statistics(tmp_path / "run", test, validation)["improvement"]["correct"]
    assert found["best"] == 1.0 and found["n_validation"] == N == found["n"]
    assert found["validation"] == [{"coef": c, "mean": pytest.approx(m)} for c, m in ((0, 0.4), (1, 0.7), (2, 0.5))]
    assert found["difference"] == pytest.approx(3 / N) and 0 <= found["low"] < 3 / N < found["high"]


def test_a_constant_gain_has_no_spread_however_unlike_the_problems(tmp_path: Path) -> None:
    """Planted: the interval is of the paired differences, not of the outcomes."""
    levels = [float(i) for i in range(N)]
    raised = {0.0: levels, -1.0: [x + 0.25 for x in levels]}
    found = statistics(tmp_path / "run", loop(raised, "helpful"), loop(raised, "helpful", "v"))["improvement"]
    assert found["helpful"]["best"] == -1.0
    assert [found["helpful"][k] for k in ("difference", "low", "high")] == pytest.approx([0.25] * 3)


def test_of_equal_coefficients_the_smallest_is_chosen_and_0_is_said_so(tmp_path: Path) -> None:
    same = {0.0: ones(8), 1.0: ones(8), -2.0: ones(8)}
    run = tmp_path / "run"
    found = statistics(run, loop(same), loop(same, split="v"))["improvement"]["correct"]
    assert found["best"] == 0.0 and found["difference"] == 0.0
    out = StringIO()
    report(run, Console(file=out))
    text = " ".join(out.getvalue().split())
    assert "Best coef for correct on 20 validation problems: 0, so steering is not chosen." in text
    assert "Loop, correct, of 20 problems against coef 0, wrong to right and right to wrong: -2: 0 and 0; +1: 0" in text


def test_a_run_going_on_gives_no_number_for_what_is_not_there(tmp_path: Path) -> None:
    validation = loop({0.0: ones(8), 1.0: ones(14)}, split="v")
    found = statistics(tmp_path / "run", loop({0.0: ones(8)}), validation)["improvement"]["correct"]
    assert found["best"] == 1.0 and found["difference"] is None and found["low"] is None
