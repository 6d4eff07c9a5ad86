"""Onset tables and verdicts, from rows whose layers are known."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.claims.decisions import decided_first, early, layer_interval, more_layers, verdicts
from analysis.onset import correctors, load_curves, report, table_row
from corrector.errors import UserError

N = 6
ROOT = Path(__file__).parents[2]


def curve(reader: str, saturation: int | None, draws: list[int | None] | None = None, **changes: Any) -> dict[str, Any]:
    """A curve that saturates at a layer; its onset is one layer before."""
    draws = [saturation] * 40 if draws is None else draws
    value = [0.5] * N if saturation is None else [0.5 + 0.45 * (k >= saturation) + 0.01 * (k == 4) for k in range(N)]
    onset = None if saturation is None else max(saturation - 1, 0)
    return {
        **{"run": "scan-1", "task": "dialogue", "corrector": "runs/a", "reader": reader, "span": "prompt_last"},
        **{"statistic": "auroc", "value": value, "low": [v - 0.1 for v in value], "high": [v + 0.02 for v in value]},
        **{"null_low": 0.4, "null_high": 0.6, "onset": onset, "saturation": saturation, "saturation_draws": draws},
        **{"onset_draws": [None if d is None else max(d - 1, 0) for d in draws], "n_items": 30, "n_problems": 25},
        "model_organism": True,
        "differs": 0.9,
        **changes,
    }


def math(saturation: int | None, draws: list[int | None] | None = None) -> dict[str, Any]:
    return curve("direction", saturation, draws, task="arithmetic", corrector="b", run="scan-2")


def test_a_layers_interval_counts_no_layer_as_beyond_the_last() -> None:
    assert layer_interval([2] * 98 + [0, 5], N) == (2, 2)
    assert layer_interval([1] * 2 + [2] * 36 + [4] * 2, N) == (1, 4)
    assert layer_interval([1] * 20 + [None] * 20, N) == (1, None)
    assert layer_interval([None] * 40, N) == (None, None)


def test_a_line_says_onset_saturation_and_the_largest_value_where_it_is() -> None:
    line = table_row(curve("direction", 3, [3] * 30 + [5] * 10))
    assert (line["onset"], line["onset_interval"], line["saturation"], line["saturation_interval"]) == (
        *(2, [2, 4]),
        *(3, [3, 5]),
    )
    assert (line["max"], line["max_layer"], line["n_layers"]) == (pytest.approx(0.96), 4, N)
    assert (line["max_low"], line["max_high"]) == (pytest.approx(0.86), pytest.approx(0.98))


@pytest.mark.parametrize(
    ("saturation", "draws", "holds"),
    [(1, [1, 2], True), (4, [3, 5], False), (2, [2, 3], None), (2, [1, None], None), (None, [None, None], None)],
)
def test_early_is_the_first_half_of_the_layers(saturation: Any, draws: list[Any], holds: bool | None) -> None:
    found = early(curve("direction", saturation, draws * 20))
    assert found.holds is holds and "dialogue, a" in found.claim


@pytest.mark.parametrize(
    ("extent", "written", "holds"),
    [([1, 2], [4, 5], True), ([5, 5], [2, 3], False), ([1, 4], [3, 3], None), ([2, None], [5, 5], None)],
)
def test_extent_before_execution_by_paired_gaps(extent: list[Any], written: list[Any], holds: bool | None) -> None:
    found = decided_first(curve("extent", extent[0], extent * 20), curve("written", written[0], written * 20))
    assert found.holds is holds and "gap" in found.reason


def test_gaps_are_paired_draw_by_draw() -> None:
    """Layers that move together: marginal intervals overlap, yet written is one layer later in every resample."""
    moving = [1, 2, 3, 4] * 10
    assert decided_first(curve("extent", 2, moving), curve("written", 3, [d + 1 for d in moving])).holds is True


def test_what_cannot_be_asked_is_not_answered() -> None:
    late = decided_first(curve("extent", 1), curve("written", 5, differs=0.16))
    assert late.holds is None and "only 16% of the rewrites differ" in late.reason
    lost = more_layers(math(3, [3] * 36 + [None] * 4), curve("direction", 0))
    assert lost.holds is None and "in 10% of the resamples no layer's AUROC of arithmetic" in lost.reason
    assert decided_first(None, curve("written", 5)).holds is None
    assert decided_first(curve("extent", None, [None] * 40), curve("written", 5)).holds is None
    none = more_layers(math(None, [None] * 40), curve("direction", 0))
    assert none.holds is None and "no layer's AUROC of arithmetic" in none.reason


def test_math_against_qa() -> None:
    assert more_layers(math(4), curve("direction", 0)).holds is True
    assert more_layers(math(1), curve("direction", 4)).holds is False
    unsure = more_layers(math(3, [0, 3, 4, 5] * 10), curve("direction", 1, [0, 1, 2, 3] * 10))
    assert unsure.holds is None and "difference +0.40 [" in unsure.reason
    # Depths, not layers, where models differ: layer 1 of 2 is deeper than layer 2 of 6.
    shallow = {**math(1), "value": [0.5, 0.9]}
    assert more_layers(shallow, curve("direction", 2)).holds is True
    first = more_layers({**math(0), "value": [0.9] * 4}, curve("direction", 0))
    assert first.holds is None and "difference +0.00 [+0.00, +0.00]" in first.reason


def test_verdicts_of_several_runs_compare_every_math_with_every_qa() -> None:
    rows = [curve("direction", 0), curve("extent", 1), curve("written", 5), math(3)]
    rows += [{**curve(r, 5), "task": "arithmetic", "corrector": "b", "run": "scan-2"} for r in ("extent", "written")]
    rows.append(curve("output", 0, span="output[0:1]"))
    found = verdicts(rows)
    assert [v.holds for v in found] == [True, True, False, None, True]
    assert [v.claim.split(":")[0] for v in found[:4]] == ["dialogue, a"] * 2 + ["arithmetic, b"] * 2
    assert found[4].claim == "math (arithmetic, b) uses more layers to decide than QA (dialogue, a)"


def folder(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    kept = [{k: v for k, v in r.items() if k not in ("run", "model_organism")} for r in rows]
    (path / "onset.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept))
    for i, name in enumerate(dict.fromkeys(r["corrector"] for r in rows)):
        about = {"corrector": name, "n_layers": N, "model_organism": True}
        (path / f"corrector-{i}.json").write_text(json.dumps(about))
    (path / "DONE").write_text("{}")
    return path


def test_a_report_prints_all_runs_and_writes_each_its_own_summary(tmp_path: Path) -> None:
    one = folder(tmp_path / "scan-1", [curve("direction", 0), curve("extent", 1), curve("written", 5)])
    two = folder(tmp_path / "scan-2", [math(3), {**math(5), "reader": "written"}])
    console = Console(record=True, width=80)
    lines, found = report([one, two], console)
    text = " ".join(console.export_text().split())
    assert len(lines) == 5 and len(found) == 5 and "0.96 [0.86, 0.98]" in text and "model organisms" in text
    assert "is decided first, then executed: holds" in text and "uses more layers to decide than QA" in text
    summary = json.loads((one / "summary.json").read_text())
    assert summary["finished"] is True and [v["holds"] for v in summary["verdicts"]] == [True, True]
    assert len(json.loads((two / "summary.json").read_text())["onset"]) == 2
    before = (one / "summary.json").read_bytes()
    report([one], console)
    assert (one / "summary.json").read_bytes() == before


def test_a_corrector_that_is_not_done_is_left_out(tmp_path: Path) -> None:
    rows = [curve("direction", 0), curve("written", 5), {**curve("direction", 2), "corrector": "late"}]
    path = folder(tmp_path / "scan-3", rows)
    (path / "corrector-1.json").unlink()
    assert [c["corrector"] for c in load_curves(path)] == ["runs/a"] * 2
    assert [a["corrector"] for a in correctors(path)] == ["runs/a"]


def test_users_mistakes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_curves(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"no rows in onset\.jsonl"):
        load_curves(tmp_path)
    with pytest.raises(UserError, match="no run folder"):
        report([])


def test_the_command_exits_with_2_in_one_line_and_loads_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.onset", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no config.json" in done.stderr
    code = "import sys, analysis.onset, figures.scan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
