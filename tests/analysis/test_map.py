"""What a map comes to, on a run folder with planted slopes."""

import dataclasses
import io
import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from analysis import map as module
from analysis.map import main, map_statistics, report
from analysis.tables.map import correction, steers, verdict
from corrector.errors import UserError
from corrector.records import RunFolder
from steering.mapping import Map
from steering.maps.bands import choose, dose, means
from steering.vectors import SteeringVector

COEFS = (-2.0, -1.0, 1.0, 2.0)
SLOPES = {(0,): 0.1, (1,): 0.4, (2,): -0.2, (0, 1): 0.45}
NULLS = {"random-00": 0.05, "random-01": -0.1}
DOSES = {0: 0.5, 1: 1.0, 2: 1.0}
N = 12


def cell(split, layers, direction, coef, slope):
    for i in range(N):
        formed = not (layers == (2,) and coef == 2 and i < 6)
        yield {
            **{
                "split": split,
                "layers": [*layers],
                "direction": direction,
                "coef": coef,
                "item": i,
                "problem": f"p{i}",
            },
            **{"edit_ratio": 1 + 0.1 * (i % 3) + slope * coef, "copied": i % 2 == 0, "is_wrong": i % 4 == 0},
            **{"well_formed": formed, "kl": abs(coef) if split == "test" else None},
        }


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "map-toy"
    card = {"layers": {str(k): {"dose": d} for k, d in DOSES.items()}}
    vector = SteeringVector(
        {k: torch.ones(2) for k in DOSES}, "diff_means", "resid_post", "last", "f", "lab", "toy", card
    )
    cells = [("validation", (), "none", 0.0, 0.0)]
    cells += [("validation", k, "correction", c, s) for k, s in SLOPES.items() for c in (-2.0, 2.0)]
    n_validation = len(cells) * N
    cells += [
        ("test", (), "none", 0.0, 0.0),
        *(("test", k, "correction", c, s) for k, s in SLOPES.items() for c in COEFS),
    ]
    cells += [("test", k, d, c, s) for k in SLOPES for d, s in NULLS.items() for c in (-2.0, 2.0)]
    with RunFolder(path, Map(coef=COEFS, task="toy")) as folder:
        for given in cells:
            folder.append("edits", cell(*given))
        chosen = choose(folder.rows("edits")[:n_validation], vector)
        about = {"corrector": "toy-0", "model_organism": True, "n_layers": 3, "bands": chosen}
        folder.write_once("bands", about)
        for split, layers, direction, coef, slope in cells:
            written = {"split": split, "layer": layers[0] if len(layers) == 1 else None, "layers": layers}
            written |= {"direction": direction, "coef": coef, "dose": dose(vector, layers, coef)}
            folder.append("map", [{**written, **means([*cell(split, layers, direction, coef, slope)])}])
        folder.finish()
    return path


@pytest.fixture(scope="module")
def numbers(run):
    return map_statistics(run)


def test_slopes_doses_and_nulls_are_the_planted_ones(numbers):
    places = {tuple(p["layers"]): p for p in numbers["places"]}
    assert {*places} == {*SLOPES}
    for layers, slope in SLOPES.items():
        p, unit = places[layers], sum(DOSES[k] for k in layers)
        assert p["slope"] == pytest.approx(slope) and p["slope_ends"] == pytest.approx(slope)
        assert p["dose"] == pytest.approx(unit) and p["slope_per_dose"] == pytest.approx(slope / unit, rel=1e-4)
        assert p["null_slopes"] == pytest.approx(NULLS)
        assert p["over_null"] == pytest.approx(abs(slope) / 0.1, rel=1e-4)
        assert p["kl"] == 2.0
    assert places[2,]["usable"] == [-2.0, -1.0, 0.0, 1.0] and places[2,]["well_formed"] == 0.5
    assert places[1,]["usable"] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    # per dose on validation: 0.2, 0.4, -0.2 and 0.45 / 1.5
    assert [layers for layers, p in places.items() if p["best"]] == [(1,)]


def test_p_is_corrected_for_all_places_by_the_studentised_maxima_of_the_nulls(numbers):
    """Both nulls move every place alike; s² is (slope² + .05² + .1²) / 3, so the null -.1 is largest where slope is."""
    assert (numbers["n_nulls"], numbers["p_least"]) == (2, pytest.approx(1 / 3, rel=1e-4))
    scale = {k: math.sqrt((s**2 + 0.05**2 + 0.1**2) / 3) for k, s in SLOPES.items()}
    maxima = [max(abs(null) / scale[k] for k in SLOPES) for null in NULLS.values()]
    wanted = {k: (1 + sum(m >= abs(s) / scale[k] - 1e-9 for m in maxima)) / 3 for k, s in SLOPES.items()}
    found = {tuple(p["layers"]): p["p_corrected"] for p in numbers["places"]}
    assert found == pytest.approx(wanted, rel=1e-4)
    assert found[1,] == pytest.approx(1 / 3, rel=1e-4) and found[0,] == pytest.approx(2 / 3, rel=1e-4)


def place(slope, half, nulls):
    ends = {"slope_ends": slope, "slope_ends_low": slope - half, "slope_ends_high": slope + half}
    return {"layers": [0], **ends, "null_slopes": {f"random-{i:02d}": v for i, v in enumerate(nulls)}}


def test_nulls_that_do_not_move_leave_p_1_where_the_interval_holds_0():
    still = [0.0] * 19
    assert module._corrected([place(0.01, 0.02, still)]) == [1.0]
    assert module._corrected([place(1e-17, 0.0, [1e-18] * 19)]) == [1.0]
    assert module._corrected([place(0.4, 0.1, still), place(0.0, 0.0, still)]) == [0.05, 1.0]
    assert module._corrected([place(0.4, 0.1, [])]) == [None]
    # one place with spread says nothing of another without
    both = module._corrected([place(0.01, 0.02, still), place(0.5, 0.1, [0.1, -0.1] * 9 + [0.0])])
    assert both == pytest.approx([1.0, 0.05])


def test_cells_are_test_means_with_the_unsteered_once_a_layer(numbers):
    at = {(tuple(c["layers"]), c["coef"]): c for c in numbers["cells"]}
    assert {*at} == {(k, c) for k in SLOPES for c in (*COEFS, 0.0)} and numbers["coefs"] == [-2, -1, 0, 1, 2]
    assert at[(1,), 2.0]["edit_ratio"] == pytest.approx(1.1 + 0.8) and at[(2,), 0.0]["edit_ratio"] == pytest.approx(1.1)
    assert at[(0,), -1.0]["false_rewrite"] == pytest.approx(6 / 9, rel=1e-4)
    assert at[(0,), -1.0]["missed_rewrite"] == 1.0


def test_a_layer_steers_above_its_nulls_only(numbers):
    single = {p["layers"][0]: steers(p, numbers["p_least"]) for p in numbers["places"] if len(p["layers"]) == 1}
    assert single == {0: False, 1: True, 2: False}
    text = verdict(numbers)
    assert "1 of 3 layers (1)" in text and "layers 1 (0.40)" in text and "4.0 times" in text
    assert "p 0.333 to 0.667, corrected for all 4 places by each null's largest studentised |slope|; 2 nulls" in text
    assert "allow 0.333 at the least. For p 0.05 give --controls 19 or more." in text


def test_a_layer_steers_at_p_05_where_the_nulls_allow_it_and_never_without_nulls():
    found = {"slope_ends_low": 0.1, "p_corrected": 0.05}
    assert steers(found, 0.01) and not steers({**found, "p_corrected": 0.06}, 0.01)
    assert steers({**found, "p_corrected": 1 / 3}, 1 / 3) and not steers({**found, "p_corrected": None}, None)
    assert not steers({**found, "slope_ends_low": -0.1}, 0.01) and not steers({**found, "slope_ends_low": None}, 0.01)
    assert correction({"n_nulls": 0}).startswith("Without nulls no layer can be told from chance")
    enough = {"n_nulls": 19, "p_least": 0.05, "places": [{"p_corrected": 0.05}]}
    assert correction(enough).startswith("p 0.050, corrected for all 1 places")
    assert correction(enough).endswith("19 nulls allow 0.050 at the least.")


def test_the_report_writes_json_and_prints_the_first_layer_at_the_bottom(run, numbers):
    out = io.StringIO()
    report(run, Console(file=out, width=80))
    assert json.loads((run / "map.json").read_text()) == numbers
    text = out.getvalue()
    tables = text[: text.index("Steers at")]
    first_column = [line.split()[0] for line in tables.splitlines() if line.strip()[:1].isdigit()]
    assert first_column == ["0-1", "2", "1", "0", "0-1", "2", "1*", "0"]
    assert "(0.70)" in text and "…" not in text  # layer 2 at +2 is in brackets; nothing is cut off
    with RunFolder(run, Map(coef=COEFS, task="toy")) as again:
        assert again.done


def test_an_unfinished_or_foreign_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no finished map"):
        map_statistics(tmp_path)


def test_main_runs_reports_and_draws(run, monkeypatch):
    drawn, asked = [], []
    monkeypatch.setattr(
        "analysis.drawing.subprocess", SimpleNamespace(run=lambda command, check: drawn.append(command))
    )
    monkeypatch.setattr("steering.mapping.run", lambda config: asked.append(config) or run)
    config = dataclasses.replace(Map(), items=7)
    main(config)
    assert asked == [config] and drawn == [[sys.executable, "-m", "figures.map", str(run)]]
