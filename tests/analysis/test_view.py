"""A run folder shows its own report and figures, and is left as it was."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from analysis.view import view
from corrector.errors import UserError

RUNS = Path(__file__).parents[2] / "figures" / "runs"
SHOWN = {
    "fig8-dialogue-0": ("sweep", "dialogue steers: "),
    "map-dialogue-0": ("map", "Steers at "),
    "rounds-dialogue": ("rounds", "dialogue/helpful/gain"),
    "scan-dialogue": ("scan", "at which a reading first leaves chance"),
    "probes-dialogue-0": ("probes", "bag_of_words"),
}


def state(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", SHOWN)
def test_shipped_runs_show_their_report_and_stay_as_they_were(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(RUNS / name, tmp_path / name)
    before, (kind, words) = state(folder), SHOWN[name]
    shown = view(folder)
    html = shown._repr_html_()
    assert shown.kind == kind and words in html and f"{name}: {kind}" in html
    assert repr(shown) == f"RunView({name}: {kind}, finished)"
    assert state(folder) == before and str(tmp_path) not in html


def made(folder: Path, **rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"task": "<script>x</script>", "seed": 0, "out": str(folder)}))
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def test_an_align_run_shows_outcomes(tmp_path: Path) -> None:
    rounds = [{"last": "a", "correction": "a"}, {"last": "b", "correction": "c"}]
    rows = [{"problem": f"p{i}", "outcomes": {"correct": float(i)}, "stopped": "end", "rounds": rounds} for i in (0, 1)]
    html = view(made(tmp_path / "align-1", alignments=rows))._repr_html_()
    assert "0.500" in html and "copied 2 of 4 sentences (50.0 %)" in html and "not finished" in html


def test_any_other_run_shows_its_settings_and_small_figures(tmp_path: Path) -> None:
    folder = made(tmp_path / "other")
    Image.effect_noise((3000, 900), 60).convert("RGB").save(folder / "figure.png")
    shown = view(folder)
    html = shown._repr_html_()
    assert shown.kind == "run" and "<script" not in html
    assert '<img alt="figure" src="data:image/png;base64,' in html
    assert len(html) < (folder / "figure.png").stat().st_size / 4


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config\.json, so no run"):
        view(tmp_path)
