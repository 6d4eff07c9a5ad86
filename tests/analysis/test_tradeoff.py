"""Both errors, fronts, item slopes and flips of runs whose answers are known."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from analysis import tradeoff as module
from analysis.curves.pareto import Measured, front, pareto, resampled
from analysis.tradeoff import flips, item_table, main, reached_area, report, tradeoff
from corrector.errors import UserError
from corrector.records import RunFolder

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Toy:
    """What a toy run was configured with."""

    model_organism: bool = True


COEFS = (-1.0, 0.0, 1.0)
N = 40
EDITED = {-1.0: (2, 5), 0.0: (4, 15), 1.0: (16, 20)}
"""Of 20 right items and 20 wrong ones, how many are edited."""
RATIO = {-1.0: 0.5, 0.0: 1.0, 1.0: 2.0}
CORRECT = {-1.0: 2, 0.0: 6, 1.0: 4}
"""Of 10 problems, how many end correct; at 0 and 1 they are the first ones, at -1 the last ones."""


def edits(labels=True):
    for direction in ("none", "correction", "random-00"):
        for coef in (0.0,) if direction == "none" else (-1.0, 1.0):
            for i in range(N):
                side, rank = i % 2, i // 2
                edited = rank < EDITED[coef if direction == "correction" else 0.0][side]
                yield {
                    **{"task": "toy", "coef": coef, "direction": direction, "item": i, "problem": f"p{i}"},
                    **{"edit_ratio": RATIO[coef] if edited else 0.0, "copied": not edited, "length_ratio": 1.0},
                    **{"is_wrong": bool(side) if labels else None, "is_right_after": edited == bool(side)},
                    **{"well_formed": True, "ended": True, "kl": abs(coef)},
                }


def alignments():
    for direction, coef in (("upstream", 0.0), ("none", 0.0), ("correction", -1.0), ("correction", 1.0)):
        for i in range(10):
            rank = 9 - i if coef < 0 else i
            correct = float(rank < CORRECT[coef]) * (direction != "upstream")
            yield {
                **{"task": "toy", "coef": coef, "direction": direction, "problem": f"p{i}"},
                "outcomes": {"correct": correct, "no_answer": 0.0},
            }


def folder(path, labels=True, loop=True):
    (path / "config.json").write_text(json.dumps({"model_organism": True}))
    (path / "edits.jsonl").write_text("".join(json.dumps(r) + "\n" for r in edits(labels)))
    if loop:
        (path / "alignments.jsonl").write_text("".join(json.dumps(r) + "\n" for r in alignments()))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("sweep-toy"))


@pytest.fixture(scope="module")
def numbers(run):
    return tradeoff(run)["tasks"]["toy"]


def test_the_curve_of_both_errors_is_the_planted_one(numbers):
    for point, coef in zip(numbers["roc"], COEFS, strict=True):
        false, hit = (n / 20 for n in EDITED[coef])
        assert (point["coef"], point["usable"]) == (coef, True)
        assert point["false_rewrite"] == pytest.approx(false) and point["missed_rewrite"] == pytest.approx(1 - hit)
        assert point["youden"] == pytest.approx(hit - false, abs=1e-5)
        assert point["youden_low"] < point["youden"] < point["youden_high"]
        assert point["false_rewrite_low"] <= false <= point["false_rewrite_high"]
    unsteered = {"false_rewrite": 0.2, "missed_rewrite": 0.25}
    assert [c["coef"] for c in numbers["controls"]["random-00"]] == [*COEFS]
    assert all(c.items() >= unsteered.items() for c in numbers["controls"]["random-00"])
    assert (numbers["n_right"], numbers["n_wrong"]) == (20, 20)


def test_the_area_is_of_the_reached_range_only(numbers):
    area = numbers["area"]
    assert (area["reached_from"], area["reached_to"]) == (0.1, 0.8)
    assert area["area_reached"] == pytest.approx(0.1 * (0.25 + 0.75) / 2 + 0.6 * (0.75 + 1) / 2)
    assert area["height"] == pytest.approx(area["area_reached"] / 0.7, rel=1e-5)
    assert area["over_chance"] == pytest.approx(area["height"] - 0.45, abs=1e-5)
    assert area["over_chance_low"] < area["over_chance"] < area["over_chance_high"]


def test_area_of_known_curves():
    half = {"area_reached": 0.5, "reached_from": 0.0, "reached_to": 1.0, "height": 0.5, "chance": 0.5}
    assert reached_area([0.0, 1.0], [0.0, 1.0]) == half
    perfect = reached_area([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    assert perfect and perfect["area_reached"] == 1.0
    assert reached_area([0.3, 0.3], [0.0, 1.0]) is None and reached_area([], []) is None
    shuffled = reached_area([1.0, 0.0, 0.5], [1.0, 0.0, 0.9])
    assert shuffled == reached_area([0.0, 0.5, 1.0], [0.0, 0.9, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7))
def test_the_front_is_what_an_exhaustive_search_finds(points):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    cost, gain = np.array(points, dtype=float).T
    assert front(cost, gain).tolist() == [not any(beats(a, b) for a in points) for b in points]
    assert front(np.stack([cost, cost]), np.stack([gain, gain])).tolist() == [front(cost, gain).tolist()] * 2


def test_fronts_of_the_run(numbers):
    assert {*numbers["pareto"]} == {"edit_ratio/correct", "kl/correct"}
    by_edits = {r["coef"]: r for r in numbers["pareto"]["edit_ratio/correct"]}
    assert [by_edits[c]["on_front"] for c in COEFS] == [True, True, False]
    assert by_edits[1.0]["dominated_by"] == [0.0] and by_edits[1.0]["verdict"].startswith("dominated")
    assert by_edits[1.0]["cost"] == pytest.approx(36 / 40 * 2) and by_edits[1.0]["gain"] == pytest.approx(0.4)
    by_kl = {r["coef"]: r for r in numbers["pareto"]["kl/correct"]}
    assert by_kl[0.0]["on_front"] and by_kl[-1.0]["dominated_by"] == [0.0, 1.0]
    for r in [*by_edits.values(), *by_kl.values()]:
        assert r["cost_low"] <= r["cost"] <= r["cost_high"] and r["gain_low"] <= r["gain"] <= r["gain_high"]


def test_what_differs_in_every_question_is_sure_and_a_tie_is_not():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 1))
    groups = tuple(range(60))
    cost = Measured(noise + np.array([0.0, 1.0]), groups)
    sure = pareto((0.0, 1.0), cost, Measured(noise + np.array([1.0, 0.0]), groups))
    assert [r["share_on_front"] for r in sure] == [1.0, 0.0] and sure[1]["verdict"] == "dominated"
    loose = pareto((0.0, 1.0), cost, Measured(np.array([0.0, -0.02]) + rng.normal(size=(60, 2)), groups))
    assert 0.1 < loose[1]["share_on_front"] < 0.9 and loose[1]["verdict"].endswith("within error")


def test_resamples_draw_shared_questions_for_both_sides():
    values = np.random.default_rng(1).normal(size=(12, 1))
    groups = tuple("abcabcabcabc")
    one, two = resampled(Measured(values, groups), Measured(-values[::-1], groups[::-1]), n_resamples=50)
    assert one == pytest.approx(-two) and one.std() > 0
    with pytest.raises(UserError, match="one row each"):
        Measured(values, groups[:3])


def test_flips_count_both_ways_against_coefficient_0(numbers):
    loop = {f["coef"]: f for f in numbers["flips"]["loop correct"]}
    assert {c: (f["better"], f["worse"], f["n"]) for c, f in loop.items()} == {-1.0: (2, 6, 10), 1.0: (0, 2, 10)}
    sentence = {f["coef"]: f for f in numbers["flips"]["sentence"]}
    # at -1: two of the right items are no longer edited, ten of the wrong ones are missed
    assert (sentence[-1.0]["better"], sentence[-1.0]["worse"]) == (2, 10)
    assert (sentence[1.0]["better"], sentence[1.0]["worse"]) == (5, 12)
    same = flips((0.0, 2.0), np.ones((4, 2)))
    assert same == [{"coef": 2.0, "n": 4, "better": 0, "worse": 0, "p": 1.0}]
    all_worse = flips((0.0, 2.0), np.array([[1.0, 0.0]] * 6))[0]
    assert all_worse["p"] == pytest.approx(2 / 2**6)


def test_slopes_of_items_by_what_they_were(numbers):
    values = np.array([[0.0, 0.0, 1.0], [2.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])
    out = item_table(COEFS, values, np.array([True, False, False, False]), ("a", "b", "c", "d"))
    assert out["slopes"] == [0.5, -1.0, 0.0, 1.0]
    assert (out["all"]["wrong_way"], out["all"]["unmoved"]) == (0.25, 0.25)
    assert (out["copied"]["n"], out["rewritten"]["n"]) == (1, 3) and out["copied"]["slope"] == 0.5
    assert out["rewritten"]["wrong_way"] == pytest.approx(1 / 3)
    assert item_table(COEFS, values, np.full(4, False), tuple("abcd"))["copied"] is None
    assert numbers["items"]["all"]["n"] == N and numbers["items"]["copied"]["n"] == 21


def test_without_labels_or_loop_there_is_no_curve_and_no_front(tmp_path):
    of = tradeoff(folder(tmp_path, labels=False, loop=False))["tasks"]["toy"]
    assert (of["roc"], of["area"], of["pareto"]) == ([], None, {})
    assert of["items"]["all"]["n"] == N


def test_the_report_writes_json_says_all_and_leaves_guarded_files_alone(tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run"
    with RunFolder(path, Toy()) as made:
        made.append("edits", edits())
        made.append("alignments", alignments())
        made.finish()
    out = io.StringIO()
    numbers = report(path, Console(file=out, width=80))
    text = out.getvalue()
    assert json.loads((path / "tradeoff.json").read_text()) == numbers and numbers["finished"]
    assert "0.20 [0." in text and "reached 0.10 to 0.80 only" in text
    assert "dominated" in text and "wrong to right" in text and "wrong way" in text
    with RunFolder(path, Toy()) as again:
        assert again.done


def test_main_draws_by_a_program(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "analysis.drawing.subprocess", SimpleNamespace(run=lambda command, check: drawn.append(command))
    )
    main(module.Tradeoff(run))
    assert drawn == [[sys.executable, "-m", "figures.tradeoff", str(run)]]


def test_reading_loads_no_torch():
    code = (
        "import sys, analysis.tradeoff, analysis.map, figures.tradeoff, figures.map; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
