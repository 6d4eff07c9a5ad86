"""Dose curves of fabricated runs whose every number is known."""

import json
import math
from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from analysis.curve import report
from analysis.dose import dose_statistics, usable_range
from analysis.summary import outcomes, select, summarise
from analysis.tradeoff import tradeoff
from corrector.errors import UserError

COEFS = (-2.0, -1.0, 0.0, 1.0, 2.0)
N = 40


def edit(task: str, direction: str, coef: float, item: int, ratio: float, **fields: Any) -> dict[str, Any]:
    wrong = item % 4 == 0
    return {
        **{"task": task, "coef": coef, "direction": direction, "layers": [3, 4], "item": item},
        **{"problem": f"p{item // 2}", "question": "q", "prefix": "", "last": "l", "correction": "c", "distance": 1},
        **{"edit_ratio": ratio, "copied": ratio == 0, "length_ratio": 1.0, "is_wrong": wrong, "is_right_after": True},
        **{"well_formed": True, "ended": True, "kl": abs(coef) / 10, "applied": 1},
        **fields,
    }


def sweep_rows(task: str, slope: float, well_formed_at: Callable[[float], bool] = lambda coef: True) -> list[Any]:
    """Item i has edit ratio (i % 4 + 4) / 4 · (1 + slope · coef), every third is copied; controls: slope ± 0.05."""
    rows: list[Any] = []
    for direction, per_coef in (("none", 0.0), ("correction", slope), ("random-00", 0.05), ("random-01", -0.05)):
        for coef in COEFS if direction != "none" else (0.0,):
            if direction != "none" and coef == 0:
                continue
            for i in range(N):
                ratio = (i % 4 + 4) / 4 * (1 + per_coef * coef) * (i % 3 > 0)
                rows.append(edit(task, direction, coef, i, ratio, well_formed=well_formed_at(coef) or i > 10))
    return rows


def write_run(folder: Path, edits: list[Any], alignments: Sequence[Any] = (), **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("edits", edits), ("alignments", alignments)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps({"method": "diff_means", **config}))
    (folder / "DONE").write_text("{}")
    return folder


def alignment(direction: str, coef: float | None, problem: int, **outcome: float) -> dict[str, Any]:
    fields = {
        "task": "dialogue",
        "coef": coef,
        "direction": direction,
        "problem": f"x{problem}",
        "gold": "",
        "answer": "",
    }
    return {**fields, "outcomes": outcome, "rounds": []}


def test_rows_become_the_rates_they_hold(tmp_path: Path) -> None:
    table = summarise(write_run(tmp_path / "run", sweep_rows("dialogue", 0.4)))
    row = select(table, direction="correction", coef=1.0).iloc[0]
    ratios = [(i % 4 + 4) / 4 * 1.4 * (i % 3 > 0) for i in range(N)]
    assert row["edit_ratio"] == pytest.approx(np.mean(ratios))
    assert row["edit_ratio_low"] < row["edit_ratio"] < row["edit_ratio_high"]
    right, wrong = [i for i in range(N) if i % 4], [i for i in range(N) if i % 4 == 0]
    assert row["copied"] == pytest.approx(np.mean([i % 3 == 0 for i in range(N)]))
    assert row["false_rewrite"] == pytest.approx(np.mean([i % 3 > 0 for i in right]))
    assert row["missed_rewrite"] == pytest.approx(np.mean([i % 3 == 0 for i in wrong]))
    assert (row["n_items"], row["n_questions"], row["n_right"], row["n_wrong"]) == (N, N // 2, len(right), len(wrong))
    assert (row["kl"], row["well_formed"], row["right_after"]) == pytest.approx((0.1, 1.0, 1.0))


def test_unsteered_rows_belong_to_every_curve(tmp_path: Path) -> None:
    table = summarise(write_run(tmp_path / "run", sweep_rows("dialogue", 0.4)))
    assert list(dict.fromkeys(table["direction"])) == ["correction", "random-00", "random-01"]
    for direction in dict.fromkeys(table["direction"]):
        assert select(table, direction=direction)["coef"].tolist() == list(COEFS)
    assert select(table, coef=0.0)["edit_ratio"].nunique() == 1


def test_unknown_labels_stay_blank(tmp_path: Path) -> None:
    rows = [{**row, "is_wrong": None, "is_right_after": None} for row in sweep_rows("hh", 0.4)]
    run = write_run(tmp_path / "run", rows)
    table, _ = report(run, Console(file=StringIO()))
    assert table[["false_rewrite", "missed_rewrite", "right_after"]].isna().all(axis=None)
    assert (table[["n_right", "n_wrong"]] == 0).all(axis=None)
    written = pd.read_csv(run / "summary.csv")
    assert (
        written["false_rewrite"].isna().all() and ",0," not in (run / "summary.csv").read_text().splitlines()[1][40:60]
    )
    rows[0]["is_wrong"], rows[1]["is_wrong"] = True, False
    half = summarise(write_run(tmp_path / "half", rows))
    assert select(half, coef=0.0).iloc[0][["n_right", "n_wrong"]].tolist() == [1, 1]


def test_loop_outcomes_with_upstream_alone(tmp_path: Path) -> None:
    loop = [alignment("upstream", None, p, helpful=0.0, unparsed=1.0) for p in range(10)]
    loop += [alignment("none", 0.0, p, helpful=p % 2, unparsed=0.0) for p in range(10)]
    loop += [alignment("correction", c, p, helpful=1.0, unparsed=0.0) for c in COEFS if c for p in range(10)]
    table = summarise(write_run(tmp_path / "run", sweep_rows("dialogue", 0.4), loop))
    assert outcomes(table) == ["helpful"]
    assert select(table, direction="upstream")["loop_helpful"].tolist() == [0.0]
    curve = select(table, direction="correction").set_index("coef")
    assert curve["loop_helpful"].tolist() == [1.0, 1.0, 0.5, 1.0, 1.0]
    assert curve.loc[0.0, "loop_helpful_low"] < 0.5 < curve.loc[0.0, "loop_helpful_high"]
    assert (curve["n_problems"] == 10).all()


def test_planted_slope_is_found_and_compared_with_the_controls(tmp_path: Path) -> None:
    numbers = dose_statistics(write_run(tmp_path / "run", sweep_rows("dialogue", 0.4)))["tasks"]["dialogue"]
    base = np.mean([(i % 4 + 4) / 4 * (i % 3 > 0) for i in range(N)])
    assert numbers["usable"] == list(COEFS) and numbers["layers"] == [3, 4]
    assert numbers["slope"] == pytest.approx(0.4 * base) and numbers["unsteered"] == pytest.approx(base)
    assert numbers["slope_low"] < numbers["slope"] < numbers["slope_high"]
    assert numbers["r2"] == pytest.approx(1.0) and numbers["spearman"] == pytest.approx(1.0)
    assert numbers["random_slopes"] == pytest.approx({"random-00": 0.05 * base, "random-01": -0.05 * base})
    assert numbers["ratio"] == pytest.approx(8.0)
    assert numbers["z"] == pytest.approx(0.4 / (0.05 * math.sqrt(2))) and numbers["p"] == pytest.approx(1 / 3)
    assert numbers["relative"] == pytest.approx([0.2, 1.8]) and numbers["wrong_way"] == 0.0
    assert numbers["steers"] and "8.0 times the largest of 2 random slopes" in numbers["reason"]
    assert numbers["reason"].endswith("so few cannot give p below 0.33")


@pytest.mark.parametrize(
    ("slope", "says"),
    [(0.0, "holds 0; it is 0.0 times"), (0.06, "it is 1.2 times the largest"), (-0.4, "wrong sign")],
)
def test_what_does_not_steer_is_said_not_to(tmp_path: Path, slope: float, says: str) -> None:
    numbers = dose_statistics(write_run(tmp_path / "run", sweep_rows("dialogue", slope)))["tasks"]["dialogue"]
    assert not numbers["steers"] and says in numbers["reason"]
    assert (numbers["wrong_way"] > 0) == (slope < 0)


def test_slopes_are_measured_inside_the_usable_range_only(tmp_path: Path) -> None:
    rows = sweep_rows("dialogue", 0.4, well_formed_at=lambda coef: coef < 2)
    for row in rows:
        if row["coef"] == 2 and row["direction"] == "correction":
            row["edit_ratio"] = 50.0  # degeneration, which must not be taken for steering
    numbers = dose_statistics(write_run(tmp_path / "run", rows))["tasks"]["dialogue"]
    assert numbers["usable"] == [-2.0, -1.0, 0.0, 1.0] == numbers["compared"]
    assert numbers["slope"] == pytest.approx(0.4 * numbers["unsteered"]) and numbers["ratio"] == pytest.approx(8.0)


def test_controls_on_fewer_coefs_are_compared_on_those(tmp_path: Path) -> None:
    rows = [r for r in sweep_rows("dialogue", 0.4) if r["direction"] == "correction" or abs(r["coef"]) < 2]
    for row in rows:
        if abs(row["coef"]) == 2:
            row["edit_ratio"] = (2.0 if row["coef"] > 0 else 0.0) + row["coef"] + 2
    numbers = dose_statistics(write_run(tmp_path / "run", rows))["tasks"]["dialogue"]
    assert numbers["usable"] == list(COEFS) and numbers["compared"] == [-1.0, 0.0, 1.0]
    assert numbers["ratio"] == pytest.approx(8.0)


def test_without_controls_nothing_steers(tmp_path: Path) -> None:
    rows = [row for row in sweep_rows("dialogue", 0.4) if not row["direction"].startswith("random")]
    numbers = dose_statistics(write_run(tmp_path / "run", rows))["tasks"]["dialogue"]
    assert not numbers["steers"] and "no random control" in numbers["reason"]


def test_usable_range_is_contiguous_around_zero() -> None:
    assert usable_range([-2.0, -1.0, 0.0, 1.0, 2.0], [1.0, 0.9, 1.0, 0.95, 0.2]) == [0.0, 1.0]
    assert usable_range([-1.0, 0.0, 1.0], [1.0, 0.9, 1.0]) == []
    with pytest.raises(UserError, match="lack 0"):
        usable_range([-1.0, 1.0], [1.0, 1.0])


def test_report_reads_well_and_writes_the_files(tmp_path: Path) -> None:
    rows = sweep_rows("dialogue", 0.4, lambda coef: coef > -2) + sweep_rows("arithmetic", 0.0)
    run = write_run(tmp_path / "run", rows, model_organism=True)
    out = StringIO()
    report(run, Console(file=out, width=60))
    text = out.getvalue()
    assert "dialogue steers: " in text and "arithmetic does not steer here: " in text and "model organism" in text
    assert "…" not in text and max(map(len, text.splitlines())) <= 100
    row = next(line for line in text.splitlines() if line.strip().startswith("+1 "))
    assert "1.25 [" in row and "0.85-0.94" in row
    statistics = json.loads((run / "statistics.json").read_text())
    assert statistics["finished"] and list(statistics["tasks"]) == ["arithmetic", "dialogue"]
    assert len(pd.read_csv(run / "summary.csv")) == 2 * 3 * 5
    before = {name: (run / name).read_bytes() for name in ("summary.csv", "statistics.json")}
    report(run, Console(file=StringIO()))
    assert before == {name: (run / name).read_bytes() for name in before}
    plain = StringIO()
    report(write_run(tmp_path / "plain", rows), Console(file=plain))
    assert "model organism" not in plain.getvalue()


def test_runs_without_sound_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        summarise(tmp_path)
    with pytest.raises(UserError, match="no rows"):
        summarise(write_run(tmp_path / "empty", []))
    rows = sweep_rows("dialogue", 0.4)
    with pytest.raises(UserError, match="twice"):
        summarise(write_run(tmp_path / "twice", [*rows, rows[-1]]))
    with pytest.raises(UserError, match="item"):
        dose_statistics(write_run(tmp_path / "short", rows[:-1]))
    with pytest.raises(UserError, match="line 1 lacks kl"):
        summarise(write_run(tmp_path / "lacks", [{k: v for k, v in rows[0].items() if k != "kl"}]))
    with pytest.raises(UserError, match="other than 0"):
        summarise(write_run(tmp_path / "none", [{**rows[0], "coef": 1.0}, *rows[1:]]))


def test_a_run_going_on_is_summarised_as_far_as_it_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", sweep_rows("dialogue", 0.4)[:-1])
    (run / "DONE").unlink()
    with (run / "edits.jsonl").open("a") as file:
        file.write('{"task": "dia')
    out = StringIO()
    _, statistics = report(run, Console(file=out))
    assert not statistics["finished"] and "not finished" in out.getvalue()


@pytest.mark.parametrize("block", [1, 7, 32])
def test_rows_block_by_block_give_the_numbers_of_rows_cell_by_cell(tmp_path: Path, block: int) -> None:
    edits = [*sweep_rows("dialogue", 0.4), *sweep_rows("hh", 0.2)]
    cells = [("upstream", None), ("none", 0.0), *(("correction", c) for c in COEFS if c)]
    loop = [alignment(d, c, p, helpful=(p * 7 + i) % 3 / 2) for i, (d, c) in enumerate(cells) for p in range(10)]
    blocks = sorted(edits, key=lambda row: (row["task"], row["item"] // block))
    loops = sorted(loop, key=lambda row: int(row["problem"][1:]) // block)
    assert blocks != edits
    whole, cut = (write_run(tmp_path / name, *rows) for name, rows in (("a", (edits, loop)), ("b", (blocks, loops))))
    pd.testing.assert_frame_equal(summarise(whole), summarise(cut), check_exact=True)
    for numbers in (dose_statistics, tradeoff):
        a, b = ({**numbers(run), "run": ""} for run in (whole, cut))
        assert a == b
