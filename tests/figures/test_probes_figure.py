"""The probe grid: every AUROC is drawn at its layer, baselines across, and a run without layers is refused."""

import json
import subprocess
import sys

import pytest

from corrector.errors import UserError
from figures import probes, style

ABOUT = {"corrector": "toy-0", "task": "dialogue", "model_organism": True, "n_absent_rows": 2, "n_absent_labels": 0}


def row(label, source, span, layer, classifier, auroc):
    ends = {"auroc": auroc, "low": auroc - 0.1, "high": auroc + 0.05}
    same = {"label": label, "source": source, "span": span, "layer": layer, "classifier": classifier}
    return {**same, **ends, "n": 40, "n_problems": 20, "n_train": 80}


def measured():
    out = []
    for i, label in enumerate(("is_wrong", "was_edited")):
        for span in ("prompt_last", "last"):
            for source, name in (("corrector", "logistic"), ("corrector", "lda"), ("other", "logistic")):
                out += [row(label, source, span, k, name, 0.6 + 0.1 * k + 0.01 * i) for k in range(3)]
        out += [row(label, source, None, None, "logistic", 0.7 + 0.02 * i) for source in ("bag_of_words", "prior")]
    return out


def test_readings_stand_at_their_layer_and_baselines_across():
    rows = measured()
    found = probes.table(rows, ABOUT, "probes-0")
    figure = probes.draw(found)
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert len(panels) == 4
    lines = {line.get_gid(): line for line in panels[1].lines if line.get_gid()}
    mine = [
        r["auroc"] for r in rows if (r["label"], r["span"], r["classifier"]) == ("was_edited", "prompt_last", "lda")
    ]
    assert list(lines["corrector, lda"].get_ydata()) == mine and list(lines["corrector, lda"].get_xdata()) == [0, 1, 2]
    assert list(lines["bag_of_words"].get_ydata()) == [0.72, 0.72] and "prior" not in lines
    assert "n = 40" in panels[1].get_title(loc="left") and "was" in panels[1].get_title(loc="left")
    assert all(ax.get_xlabel() == "layer" for ax in panels) and panels[0].get_ylabel().startswith("AUROC")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["corrector, logistic", "corrector, lda", "other, logistic", "bag of words"]
    assert len(probes.draw(found, style.COLUMN).axes) == 4


def test_the_table_holds_every_plotted_number():
    out = probes.rows(probes.table(measured(), ABOUT, "probes-0"))
    assert len(out) == 2 * 2 * 3 * 3 + 2
    assert {r["x"] for r in out} == {0, 1, 2, None} and all(r["low"] < r["y"] < r["high"] for r in out)


def test_a_run_folder_gives_figure_and_words(tmp_path):
    run = tmp_path / "probes-0"
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "summary.json").write_text(json.dumps(ABOUT))
    with pytest.raises(UserError, match="no finished run"):
        probes.build(run)
    (run / "DONE").write_text("{}")
    (run / "probes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in measured() if r["layer"] is None))
    with pytest.raises(UserError, match="no rows of layers"):
        probes.build(run)
    (run / "probes.jsonl").write_text("".join(json.dumps(r) + "\n" for r in measured()))
    drawn = probes.build(run)
    assert drawn.n == {"test items": 40, "test problems": 20, "training items": 80}
    assert any(text.startswith("2 labels and rows") for text in drawn.dropped) and "toy-0" in drawn.caption
    assert [file.name for file in drawn.inputs] == ["config.json", "probes.jsonl", "summary.json"]
    got = subprocess.run([sys.executable, "-m", "figures.probes", str(run)], capture_output=True, text=True)
    assert got.returncode == 0 and (run / "probes.png").is_file() and (run / "probes.pdf").is_file()
