"""The battery of controls: nulls, p, band and everything that is reported apart, on fabricated rows."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from analysis.curve import report
from analysis.curves.nulls import family, is_null, null_band
from analysis.dose import dose_statistics
from analysis.summary import select, summarise
from tests.analysis.test_curve import COEFS, N, edit, write_run

RUNS = Path(__file__).parents[3] / "figures" / "runs"
STEEP = 0.5
"""Slope of every item per coef at edit ratio 1; the nulls' are below."""


def battery_rows(slopes: dict[str, float], coefs: tuple[float, ...] = COEFS) -> list[dict[str, Any]]:
    """Edit ratio 1 + slope · coef in every item; `none` at 0."""
    rows = [edit("dialogue", "none", 0.0, i, 1.0, collapse="none", dose=0.0) for i in range(N)]
    for direction, slope in slopes.items():
        for coef in coefs:
            if coef:
                made = [1 + slope * coef] * N
                rows += [
                    edit("dialogue", direction, coef, i, r, collapse="none", dose=abs(coef) / 2)
                    for i, r in enumerate(made)
                ]
    return rows


def nulls(n_random: int, n_orthogonal: int, size: float) -> dict[str, float]:
    """Slopes spread evenly over ±size."""
    random = np.linspace(-size, size, n_random)
    return {f"random-{i:02d}": float(s) for i, s in enumerate(random)} | {
        f"orthogonal-{i:02d}": size / 10 * i for i in range(n_orthogonal)
    }


def statistics(folder: Path, slopes: dict[str, float], **selection: Any) -> dict[str, Any]:
    run = write_run(folder, battery_rows(slopes))
    if selection:
        (run / "selection.json").write_text(json.dumps({"dialogue": selection}))
    return dose_statistics(run)["tasks"]["dialogue"]


def test_families_are_names_without_their_number() -> None:
    assert [family(d) for d in ("random-07", "without-length", "shuffled-12", "length")] == [
        "random",
        "without-length",
        "shuffled",
        "length",
    ]
    assert is_null("random-00") and is_null("orthogonal-04")
    assert not any(is_null(d) for d in ("shuffled-00", "length", "correction", "wrong-layer", "prompt-copy"))


def test_z_and_p_are_of_the_random_and_orthogonal_directions_alone(tmp_path: Path) -> None:
    null = nulls(20, 5, 0.1)
    apart = {"shuffled-00": 0.5, "shuffled-01": -0.5, "length": 0.3, "wrong-layer": 0.0}
    numbers = statistics(tmp_path / "run", {"correction": STEEP, **null, **apart})
    values = np.array([*null.values()])
    assert (numbers["n_null"], len(numbers["random_slopes"]), len(numbers["orthogonal_slopes"])) == (25, 20, 5)
    assert numbers["z"] == pytest.approx((STEEP - values.mean()) / values.std(ddof=1))
    assert numbers["p"] == pytest.approx(1 / 26) and numbers["ratio"] == pytest.approx(5.0)
    assert numbers["control_slopes"] == pytest.approx(apart)


def test_p_counts_the_nulls_that_are_as_steep_either_way_and_is_of_the_chosen_setting(tmp_path: Path) -> None:
    slopes = {"correction": 0.1, "random-00": 0.2, "random-01": -0.3, "random-02": 0.05, "orthogonal-00": 0.01}
    once = statistics(tmp_path / "once", slopes)
    assert once["p"] == pytest.approx(3 / 5) and once["p_least"] == 1 / 5 and once["n_candidates"] == 1
    tied = statistics(tmp_path / "tied", {**slopes, "correction": 0.2})
    assert tied["p"] == pytest.approx(3 / 5)
    steep = {**slopes, "correction": 0.9}
    many = statistics(tmp_path / "many", steep, candidates=[{}, {}, {}], left_out=["no"])
    assert many["n_candidates"] == 4 and many["p"] == pytest.approx(1 / 5) == many["p_least"]
    assert not {"p_corrected", "p_correction", "p_floor"} & {*many}
    assert many["z_absent"] == "" and many["z"] > 0


STILL = {f"random-{i:02d}": 0.0 for i in range(20)} | {f"orthogonal-{i:02d}": 0.0 for i in range(5)}


def test_a_slope_that_is_0_but_for_rounding_has_p_1_among_nulls_of_0(tmp_path: Path) -> None:
    """Least squares over -2..2 of a constant .1 leaves 1e-17 or so, which no null of exactly 0 reaches."""
    rows = battery_rows({"correction": 0.0, **STILL})
    for row in rows:
        row["edit_ratio"] = 0.1
        if row["direction"] == "correction":
            row["edit_ratio"] += 1e-16 * row["coef"]
    run = write_run(tmp_path / "run", rows)
    numbers = dose_statistics(run)["tasks"]["dialogue"]
    assert numbers["p"] == 1.0 and numbers["z"] is None and numbers["ratio"] is None
    assert numbers["z_absent"] == "none of 25 null directions moves the curve"
    out = StringIO()
    report(run, Console(file=out))
    text = " ".join(out.getvalue().split())
    assert "ratio undefined, z undefined (none of 25 null directions moves the curve), p 1.000." in text


def test_among_nulls_that_do_not_move_a_slope_counts_only_with_an_interval_above_0(tmp_path: Path) -> None:
    for name, n_moved, p in (("few", 2, 1.0), ("all", N, 1 / 26)):
        rows = battery_rows({"correction": 0.0, **STILL})
        for row in rows:
            if row["direction"] == "correction" and row["item"] < n_moved:
                row["edit_ratio"] += 0.2 * row["coef"]
        numbers = dose_statistics(write_run(tmp_path / name, rows))["tasks"]["dialogue"]
        assert numbers["slope"] > 0 and (numbers["slope_low"] > 1e-9) == (p < 1)
        assert numbers["p"] == pytest.approx(p) and numbers["z"] is None
        assert numbers["z_absent"].startswith("none of 25")


def test_why_there_is_no_z_is_said(tmp_path: Path) -> None:
    one = statistics(tmp_path / "one", {"correction": STEEP, "random-00": 0.1})
    assert one["z"] is None and one["z_absent"] == "one null direction has no spread" and one["p"] == 0.5
    alike = statistics(tmp_path / "alike", {"correction": STEEP, "random-00": 0.1, "random-01": 0.1})
    assert alike["z"] is None and alike["z_absent"] == "all 2 null directions have one slope"


def test_the_committed_run_without_effect_has_p_1() -> None:
    for name in ("fig8-arithmetic-l", "fig8-arithmetic-s"):
        numbers = dose_statistics(RUNS / name)["tasks"]["arithmetic"]
        assert numbers["largest_random_slope"] == 0 and numbers["p"] == 1.0 and numbers["z"] is None
        assert numbers["z_absent"] == "none of 25 null directions moves the curve"


def test_the_band_is_the_quantiles_of_the_null_curves_and_none_of_few(tmp_path: Path) -> None:
    null = nulls(16, 5, 0.1)
    run = write_run(tmp_path / "run", battery_rows({"correction": STEEP, "length": 2.0, **null}))
    band = null_band(summarise(run))
    assert band is not None and band["coef"] == list(COEFS) and band["n"] == 21
    for coef, low, high in zip(band["coef"], band["low"], band["high"], strict=True):
        expected = np.quantile([1 + s * coef for s in null.values()], [0.025, 0.975])
        assert [low, high] == pytest.approx(expected)
    few = write_run(tmp_path / "few", battery_rows({"correction": STEEP, **nulls(19, 0, 0.1)}))
    assert null_band(summarise(few)) is None


def test_items_that_move_the_wrong_way_and_not_at_all_are_counted(tmp_path: Path) -> None:
    own = {i: -0.2 if i < 10 else 0.0 if i < 16 else 0.4 for i in range(N)}
    rows = battery_rows({"correction": 0.0, **nulls(2, 0, 0.01)})
    for row in rows:
        if row["direction"] == "correction":
            row["edit_ratio"] = 1 + own[row["item"]] * row["coef"]
    numbers = dose_statistics(write_run(tmp_path / "run", rows))["tasks"]["dialogue"]
    assert numbers["item_slopes"] == pytest.approx([own[i] for i in range(N)])
    assert numbers["wrong_way"] == 10 / N and numbers["unmoved"] == 6 / N
    assert numbers["wrong_way_low"] < 10 / N < numbers["wrong_way_high"]


def test_the_usable_range_is_the_validations_where_the_selection_tells(tmp_path: Path) -> None:
    rows = battery_rows({"correction": STEEP, **nulls(3, 0, 0.1)})
    for row in rows:
        if row["direction"] == "correction" and row["coef"] == 2:
            row["edit_ratio"] = 9.0  # formed well on test, yet not trusted
        if row["coef"] == -2:
            row["well_formed"] = row["item"] > 10  # broken on test items, which do not choose the range
    run = write_run(tmp_path / "run", rows)
    (run / "selection.json").write_text(json.dumps({"dialogue": {"usable": [-2.0, -1.0, 0.0, 1.0]}}))
    numbers = dose_statistics(run)["tasks"]["dialogue"]
    assert numbers["usable"] == [-2.0, -1.0, 0.0, 1.0] and numbers["usable_from"] == "validation"
    assert numbers["usable_on_test"] == [-1.0, 0.0, 1.0, 2.0]
    assert numbers["slope"] == pytest.approx(STEEP) and numbers["r2"] == pytest.approx(1.0)
    means = [0.0, 0.5, 1.0, 1.5, 9.0]
    slope = np.polyfit(COEFS, means, 1)[0]
    assert numbers["slope_all"] == pytest.approx(slope)
    assert numbers["r2_all"] == pytest.approx(np.corrcoef(COEFS, means)[0, 1] ** 2)
    (run / "selection.json").unlink()
    assert dose_statistics(run)["tasks"]["dialogue"]["usable_from"] == "test"


def test_collapse_is_counted_by_kind_and_dose_is_the_rows(tmp_path: Path) -> None:
    rows = battery_rows({"correction": STEEP, **nulls(2, 0, 0.1)})
    kinds = ["repetition"] * 6 + ["no_end"] * 3 + ["empty"] * 2 + ["malformed"]
    for row in rows:
        if row["direction"] == "correction" and row["coef"] == 2 and row["item"] < len(kinds):
            row["collapse"] = kinds[row["item"]]
    table = summarise(write_run(tmp_path / "run", rows))
    row = select(table, direction="correction", coef=2.0).iloc[0]
    assert row["collapsed"] == pytest.approx(12 / N) and row["collapsed_low"] < 12 / N < row["collapsed_high"]
    shares = [row[f"collapse_{kind}"] for kind in ("repetition", "no_end", "empty", "malformed")]
    assert shares == pytest.approx([6 / N, 3 / N, 2 / N, 1 / N])
    assert select(table, direction="correction")["dose"].tolist() == [1.0, 0.5, 0.0, 0.5, 1.0]
    bare = [{k: v for k, v in row.items() if k not in ("collapse", "dose")} for row in rows]
    assert not {"collapsed", "dose"} & {*summarise(write_run(tmp_path / "bare", bare))}


def test_the_report_names_every_family_what_is_absent_and_how_texts_break(tmp_path: Path) -> None:
    apart = {"shuffled-00": 0.5, "shuffled-01": -0.4, "length": 0.3}
    rows = battery_rows({"correction": STEEP, **nulls(20, 5, 0.1), **apart})
    rows += [edit("dialogue", "prompt-copy", 0.0, i, 0.25, kl=None, dose=None, collapse="none") for i in range(N)]
    for row in rows:
        if row["direction"] == "correction" and row["coef"] == 2 and row["item"] < 4:
            row["collapse"] = "repetition"
    run = write_run(tmp_path / "run", rows)
    absent = {"prompt-rewrite": "'Rewrite' is not in this model's vocabulary", "wrong-layer": "none is left"}
    chosen = {"candidates": [{}] * 6, "usable": [-1.0, 0.0, 1.0], "controls": {"absent": absent}}
    (run / "selection.json").write_text(json.dumps({"dialogue": chosen}))
    out = StringIO()
    table, numbers = report(run, Console(file=out))
    text = " ".join(out.getvalue().split())
    assert "20 random and 5 orthogonal directions of equal norm: largest |slope| 0.10, ratio 5.0" in text
    assert "p 0.038, the least that so many can give (at the setting chosen from 6 on validation pairs" in text
    assert "the nulls had no such choice, and analysis.map corrects for it over layers)" in text
    assert "length: slope 0.30." in text and "shuffled-00" not in text
    assert "Shuffled labels, 2 fits" in text and "slopes 0.50, -0.40." in text
    assert "Prompt baselines: prompt-copy edit ratio 0.25, copied 0.00." in text
    assert "Absent: prompt-rewrite ('Rewrite' is not in" in text and "wrong-layer (none is left)." in text
    assert "Collapse: +2 10% repetition." in text
    assert "Over all coefs: slope" not in text  # a straight line is the same on both ranges
    prompt = select(table, direction="prompt-copy")
    assert prompt["coef"].tolist() == [0.0] and prompt["kl"].isna().all()
    assert "prompt-rewrite" not in {*table["direction"]}
    assert max(map(len, out.getvalue().splitlines())) <= 100 and "prompt-copy" not in numbers["tasks"]["dialogue"]
