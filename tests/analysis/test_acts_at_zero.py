"""Runs of an operator of which coefficient 0 steers too: it stands beside the unsteered rows, and is not them."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.curve import report
from analysis.dose import dose_statistics
from analysis.summary import ACTS_AT_ZERO, load_records, select, summarise
from analysis.tables.curve import changes_lines, condition_line, improvement_lines, unsteered_line
from analysis.tradeoff import tradeoff
from corrector.errors import UserError
from steering.operators import IDENTITY_AT_ZERO, OPERATORS
from tests.analysis.test_curve import COEFS, N, alignment, edit, sweep_rows, write_run

PLAIN, AT_ZERO = 0.5, 0.9
CONDITION = {"when": "prompt_last", "side": "above", "layer": 4, "threshold": 1.25, "direction": "own"}


def rows(opened: dict[float, int] | None = None) -> list[Any]:
    """Unsteered 0.5, the vector 0.9 + 0.2 coef, a control 0.55 + 0.01 coef; `opened` of N items by coefficient."""
    lines = {"none": (PLAIN, 0.0), "correction": (AT_ZERO, 0.2), "random-00": (0.55, 0.01)}
    out: list[Any] = []
    for direction, (base, slope) in lines.items():
        for coef in (0.0,) if direction == "none" else COEFS:
            for i in range(N):
                row = edit("dialogue", direction, coef, i, base + slope * coef + 0.02 * (i % 2))
                told = None if direction == "none" else i < (opened or {}).get(coef, 0)
                out.append({**row, **({} if opened is None else {"opened": told})})
    return out


def loop(values: dict[tuple[str, float], float], split: str = "t") -> list[Any]:
    """Ten problems, of which a share is right in each cell."""
    return [
        {**alignment(direction, coef, 0, correct=float(i < 10 * share)), "problem": f"{split}{i}"}
        for (direction, coef), share in values.items()
        for i in range(10)
    ]


def clamped(folder: Path, edits: list[Any], *loops: list[Any], **selected: Any) -> Path:
    run = write_run(folder, edits, loops[0] if loops else ())
    for name, of_loop in zip(("validation",), loops[1:], strict=False):
        (run / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_loop))
    chosen = {"operator": "clamp", "usable": list(COEFS), **selected}
    (run / "selection.json").write_text(json.dumps({"dialogue": chosen}))
    return run


def test_the_operators_that_act_at_zero_are_those_of_the_steering_floor() -> None:
    assert {*OPERATORS} - IDENTITY_AT_ZERO == ACTS_AT_ZERO


def test_the_unsteered_rows_stay_apart_and_belong_to_no_direction(tmp_path: Path) -> None:
    run = clamped(tmp_path / "run", rows())
    table = summarise(run)
    assert list(dict.fromkeys(table["direction"])) == ["correction", "none", "random-00"]
    zero = select(table, coef=0.0).set_index("direction")["edit_ratio"]
    assert zero.to_dict() == pytest.approx({"correction": AT_ZERO + 0.01, "none": PLAIN + 0.01, "random-00": 0.56})
    assert (table["n_items"] == N).all() and len(table) == 2 * len(COEFS) + 1
    records = load_records(run)
    assert {*records.unsteered(records.edits, "dialogue")["direction"]} == {"none"}
    # the same rows under an operator that does nothing at 0 are one row too many for every direction but none
    other = load_records(write_run(tmp_path / "add", sweep_rows("dialogue", 0.4)))
    assert {*other.unsteered(other.edits, "dialogue")["direction"]} == {"correction"}
    assert len(other.unsteered(other.edits, "dialogue")) == N and not other.acts_at_zero("dialogue")


def test_the_curve_runs_through_its_own_zero_and_is_compared_with_the_unsteered_rows(tmp_path: Path) -> None:
    numbers = dose_statistics(clamped(tmp_path / "run", rows()))["tasks"]["dialogue"]
    assert numbers["operator"] == "clamp" and numbers["unsteered"] == pytest.approx(PLAIN + 0.01)
    assert numbers["slope"] == pytest.approx(0.2) and numbers["intercept"] == pytest.approx(AT_ZERO + 0.01)
    assert numbers["r2"] == pytest.approx(1.0) and numbers["compared"] == list(COEFS)
    assert numbers["relative"] == pytest.approx([1.0, 1.31 / 0.51])
    assert numbers["random_slopes"] == pytest.approx({"random-00": 0.01}) and numbers["steers"]
    plain = dose_statistics(write_run(tmp_path / "add", sweep_rows("dialogue", 0.4)))["tasks"]["dialogue"]
    assert "operator" not in plain and "condition" not in plain


def test_a_zero_that_breaks_the_text_leaves_no_usable_range_however_sound_the_unsteered_rows(tmp_path: Path) -> None:
    broken = [{**r, "well_formed": r["coef"] != 0 or r["direction"] != "correction"} for r in rows()]
    run = clamped(tmp_path / "run", broken, usable=None)
    (run / "selection.json").write_text(json.dumps({"dialogue": {"operator": "clamp"}}))
    numbers = dose_statistics(run)["tasks"]["dialogue"]
    assert numbers["usable"] == [] == numbers["usable_on_test"] and not numbers["steers"]


def test_the_loop_is_compared_with_the_unsteered_one_at_every_coefficient(tmp_path: Path) -> None:
    test = loop({("upstream", 0.0): 0.2, ("none", 0.0): 0.5, ("correction", 0.0): 0.7, ("correction", 1.0): 0.4})
    validation = loop({("none", 0.0): 0.5, ("correction", 0.0): 0.8, ("correction", 1.0): 0.3}, "v")
    run = clamped(tmp_path / "run", rows(), test, validation)
    numbers = dose_statistics(run)["tasks"]["dialogue"]
    assert numbers["loop"]["correct"] == [
        {"coef": 0.0, "n": 10, "wrong_to_right": 2, "right_to_wrong": 0},
        {"coef": 1.0, "n": 10, "wrong_to_right": 0, "right_to_wrong": 1},
    ]
    assert "of 10 problems against no steering" in changes_lines(numbers["loop"])[0]
    found = numbers["improvement"]["correct"]
    assert (found["best"], found["unsteered"]) == (0.0, 0.5)
    assert found["difference"] == pytest.approx(0.2) and found["n"] == 10
    (line,) = improvement_lines(numbers["improvement"])
    assert "validation problems: 0; on 10 test problems" in line and line.endswith("(paired, against no steering).")


def test_no_coefficient_is_chosen_where_none_is_above_no_steering(tmp_path: Path) -> None:
    values = {("none", 0.0): 0.8, ("correction", 0.0): 0.8, ("correction", 1.0): 0.3}
    run = clamped(tmp_path / "run", rows(), loop(values), loop(values, "v"))
    found = dose_statistics(run)["tasks"]["dialogue"]["improvement"]["correct"]
    assert found["best"] is None and found["difference"] is None
    assert improvement_lines({"correct": found})[0].endswith("validation problems: none, so steering is not chosen.")
    report(run, Console(file=StringIO()))
    assert (
        json.loads((run / "statistics.json").read_text())["tasks"]["dialogue"]["improvement"]["correct"]["best"] is None
    )


def test_the_unsteered_numbers_are_told_where_the_table_lacks_them(tmp_path: Path) -> None:
    line = unsteered_line(summarise(clamped(tmp_path / "run", rows())))
    assert line.startswith("Unsteered, which coef 0 of this operator is not: edit ratio 0.51, copied 0.00, false rewr")
    assert unsteered_line(summarise(write_run(tmp_path / "add", sweep_rows("dialogue", 0.4)))) == ""


def test_what_a_gate_opened_is_a_column_and_a_sentence(tmp_path: Path) -> None:
    opened = {-2.0: 10, -1.0: 10, 0.0: 10, 1.0: 20, 2.0: 10}
    run = clamped(tmp_path / "run", rows(opened), condition=CONDITION)
    table = summarise(run)
    shares = select(table, direction="correction").set_index("coef")["opened"]
    assert shares.to_dict() == {c: n / N for c, n in opened.items()}
    assert select(table, direction="none")["opened"].isna().all()
    assert dose_statistics(run)["tasks"]["dialogue"]["condition"] == CONDITION
    line = condition_line(CONDITION, select(table, direction="correction"))
    assert line == (
        "Steered only where the projection on its own direction at layer 4 lies above 1.250 (prompt_last): "
        "0.25 to 0.50 of the items."
    )
    plain = summarise(write_run(tmp_path / "add", sweep_rows("dialogue", 0.4)))
    assert "opened" not in plain and condition_line(None, plain) == "" == condition_line(CONDITION, plain)


def test_a_run_without_its_zero_yet_is_no_curve_and_says_so(tmp_path: Path) -> None:
    early = [r for r in rows() if r["direction"] == "none" or r["coef"] < 0]
    run = clamped(tmp_path / "run", early)
    (run / "DONE").unlink()
    with pytest.raises(UserError, match="no row of dialogue steered at coefficient 0 yet"):
        summarise(run)


def test_tradeoffs_against_coefficient_0_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--operator clamp, of which coefficient 0 steers"):
        tradeoff(clamped(tmp_path / "run", rows()))
