"""The page holds the rows as they were recorded, says what it leaves out, and why projections are absent."""

import shutil

import numpy as np
import plotly.graph_objects as go
import pytest
from trace_runs import alignments, edit, edits, write_run

from analysis.summary import select, summarise
from analysis.trace.columns import value
from analysis.trace.data import NO_PROJECTIONS, Caps, run_data, stops
from corrector.errors import UserError
from corrector.records import read_rows

PLAIN = Caps(traces=0)


@pytest.fixture(scope="module")
def data(traced_run):
    return run_data(traced_run, PLAIN)


def test_every_row_is_there_as_recorded(data, traced_run):
    task = data["tasks"][0]
    for name, table in (("edits", task["edits"]), ("alignments", task["loop"])):
        rows = read_rows(traced_run, name)
        assert table["n"] == len(rows) > 0
        for i, row in enumerate(rows):
            assert {field: value(table, field, i) for field in row} == row


def test_the_curves_are_the_summary(data, traced_run):
    table = select(summarise(traced_run), task="dialogue")
    panels = {panel["name"]: panel for panel in data["tasks"][0]["panels"]}
    assert [*panels] == ["edit_ratio", "errors", "text", "loop_correct", "loop_score"]
    own = select(table, direction="correction")
    curve = next(t for t in panels["edit_ratio"]["data"] if t.get("name") == "correction vector")
    assert curve["x"] == own["coef"].tolist() and curve["y"] == own["edit_ratio"].tolist()
    band = next(t for t in panels["edit_ratio"]["data"] if t.get("fillcolor") == "--accent-band")
    assert band["y"] == [*own["edit_ratio_high"], *reversed(own["edit_ratio_low"])]
    nulls = [t for t in panels["edit_ratio"]["data"] if t.get("legendgroup") == "null"]
    assert [t["y"] for t in nulls] == [select(table, direction=f"random-0{k}")["edit_ratio"].tolist() for k in (0, 1)]
    errors = {t["name"]: t["y"] for t in panels["errors"]["data"] if "name" in t}
    for name in ("false rewrite", "missed rewrite"):
        assert errors[name] == own[name.replace(" ", "_")].tolist()
    assert "n = 5 items of 5 questions" in panels["edit_ratio"]["title"]
    assert "n = 3 problems" in panels["loop_score"]["title"]
    assert f"{own['edit_ratio'].iloc[0]:.3f} [" in curve["text"][0] and "n = 5 items" in curve["text"][0]


def test_plotly_knows_every_part_of_a_figure(data):
    def grey(part):
        if isinstance(part, dict):
            return {k: grey(v) for k, v in part.items()}
        if isinstance(part, list):
            return [grey(v) for v in part]
        return "#888888" if isinstance(part, str) and part.startswith("--") else part

    for panel in data["tasks"][0]["panels"]:
        assert go.Figure(grey(panel["data"]), grey(panel["layout"])).data


def test_the_cells_are_the_lines_of_the_summary(data, traced_run):
    table, cells = select(summarise(traced_run), task="dialogue"), data["tasks"][0]["cells"]
    assert cells["n"] == len(table)
    for i, low in enumerate(table["edit_ratio_low"]):
        assert value(cells, "edit_ratio_low", i) == (None if np.isnan(low) else low)


def test_caps_keep_the_first_and_count_the_rest(traced_run):
    task = run_data(traced_run, Caps(items=2, problems=1, traces=0))["tasks"][0]
    assert task["edits_of"] == {"rows": 14, "rows_of": 35, "n": 2, "of": 5}
    assert task["loop_of"] == {"rows": 4, "rows_of": 12, "n": 1, "of": 3}
    assert {value(task["edits"], "item", i) for i in range(task["edits"]["n"])} == {0, 1}
    assert "5 items" in task["title"], "the curve is of all items"


def test_stops_are_the_recorded_coefficients_with_the_unsteered_rows_as_zero():
    rows = edits(1)
    assert [(s.label, s.direction, s.coef) for s in stops(rows, "correction")] == [
        ("-1", "correction", -1.0),
        ("0", "none", 0.0),
        ("+1", "correction", 1.0),
    ]
    clamped = [*rows, edit(0, "correction", 0.0)]
    assert [s.label for s in stops(clamped, "correction")] == ["unsteered", "-1", "0", "+1"]
    assert [s.label for s in stops(clamped[1:], "correction")] == ["-1", "0", "+1"]


def test_rounds_and_answers_come_with_their_diffs(data):
    loop = data["tasks"][0]["loop"]
    for i in range(loop["n"]):
        cuts, rounds = (value(loop, name, i) for name in ("round_cuts", "rounds"))
        for cut, of in zip(cuts, rounds, strict=True):
            assert (cut is None) == (of["correction"] is None)
            if cut:
                assert sum(part[-1] for part in cut) == len(of["correction"])
        answer = value(loop, "answer", i)
        assert sum(part[-1] for part in value(loop, "answer_cuts", i)) == len(answer)


def test_a_run_without_loop_has_none(tmp_path):
    task = run_data(write_run(tmp_path / "run", edits(2)), PLAIN)["tasks"][0]
    assert task["loop"]["n"] == 0 and task["loop_of"]["of"] == 0


def test_what_is_no_finished_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no config\.json"):
        run_data(tmp_path, PLAIN)
    with pytest.raises(UserError, match="no rows in edits"):
        run_data(write_run(tmp_path / "empty", []), PLAIN)
    with pytest.raises(UserError, match="is not finished"):
        run_data(write_run(tmp_path / "going", edits(2), finished=False), PLAIN)


def test_the_page_says_why_there_are_no_projections(traced_run, tmp_path):
    def why(run, caps):
        return run_data(run, caps)["tasks"][0]["traces"]["absent"]

    assert why(traced_run, PLAIN) == NO_PROJECTIONS
    run = tmp_path / "run"
    shutil.copytree(traced_run, run)
    (run / "vector-dialogue.safetensors").unlink()
    assert why(run, Caps(traces=1)) == "the run holds no vector-dialogue.safetensors"
    lost = write_run(tmp_path / "lost", edits(2), alignments(1), corrector=str(tmp_path / "nowhere"))
    shutil.copy(traced_run / "vector-dialogue.safetensors", lost)
    assert "is no folder here" in why(lost, Caps(traces=1))
