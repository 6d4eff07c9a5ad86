"""The transfer figure: each route's slope beside the target's own, from planted rows with known slopes."""

import json

import pytest

from analysis.curves.transfers import transfer_statistics
from corrector.errors import UserError
from figures import style, transfer

SLOPES = {("a", "a", "own"): 0.5, ("a", "b", "raw"): 0.0, ("b", "b", "own"): 0.25, ("b", "a", "procrustes"): 0.2}


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "transfer-0"
    folder.mkdir()
    routes, rows = [], []
    for target in ("a", "b"):
        rows += [row(target, None, "none", 0.0, i, 1.0) for i in range(6)]
    for i, ((target, source, how), slope) in enumerate(SLOPES.items()):
        same = {"target": target, "task": "dialogue", "source": source, "source_task": "dialogue", "how": how}
        numbers = {"cosine": 1.0 if how == "own" else 0.3, "cosine_random": [0.1, -0.1, 0.0]}
        routes.append({**same, **numbers, "layer": 4, "source_layer": 4, "norm_ratio": 1.0, "explained": None})
        for k, name in enumerate(("correction", "random-00", "random-01", "random-02")):
            tilt = slope if k == 0 else 0.01 * (k - 2)
            rows += [row(target, i, name, c, item, 1.0 + tilt * c) for c in (-1.0, 1.0) for item in range(6)]
    (folder / "transfer.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "transfer.json").write_text(json.dumps({"routes": routes, "absent": ["c: no words"], "organisms": ["a"]}))
    config = {"seed": 0, "method": "diff_means", "span": "prompt_last", "items": 6, "coef": [-1, 0, 1], "scale": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "DONE").write_text("{}")
    return folder


def row(target, route, direction, coef, item, ratio):
    same = {"target": target, "task": "dialogue", "route": route, "direction": direction, "coef": coef}
    return {**same, "item": item, "problem": f"p{item}", "edit_ratio": ratio, "well_formed": True}


def test_slopes_are_drawn_where_the_rows_have_them(run):
    found = transfer.table(transfer_statistics(run))
    figure = transfer.draw(found)
    lines = {line.get_gid(): line for ax in figure.axes for line in ax.lines if line.get_gid()}
    for (target, source, how), slope in SLOPES.items():
        assert lines[f"{target}/{source}/{how}"].get_xdata()[0] == pytest.approx(slope, abs=1e-6)
    panel = figure.axes[0]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["a", "b"] and panel.get_ylim() == (1.5, -0.5)
    assert "n = 6 questions" in panel.get_title(loc="left") and panel.get_xlabel().startswith("slope")
    own = next(line for line in panel.lines if line.get_gid() == "own")
    assert own.get_xdata()[0] == pytest.approx(0.5)
    assert len(transfer.draw(found, style.COLUMN).axes) == 2


def test_numbers_and_what_is_absent_are_told(run):
    drawn = transfer.build(run)
    by = {r["series"] + " in " + r["panel"]: r for r in drawn.rows}
    assert by["b/raw in a, dialogue"]["x"] == pytest.approx(0.0, abs=1e-9)
    assert by["a/procrustes in b, dialogue"]["ratio"] == pytest.approx(0.8)
    assert by["a/own in a, dialogue"]["random_low"] == pytest.approx(-0.01)
    assert drawn.dropped == ("c: no words",) and drawn.n == {"questions of a target": 6, "routes": 4}
    assert "diff_means at prompt_last" in drawn.caption


def test_an_unfinished_run_is_refused(run):
    (run / "DONE").unlink()
    with pytest.raises(UserError, match=r"no finished run of steering\.transfer"):
        transfer_statistics(run)
