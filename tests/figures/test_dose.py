"""The dose figure: what is plotted is what the run holds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.dose import dose_statistics
from analysis.summary import select, summarise
from figures import dose, style
from figures.drawn import Draw, main

COEFS = (-2.0, -1.0, 0.0, 1.0, 2.0)
N = 24


def rows_of(task: str, labels: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rng = np.random.default_rng(1)
    edits: list[dict[str, Any]] = []
    loop: list[dict[str, Any]] = []
    directions = {"none": 0.0, "correction": 0.4, "random-00": 0.02, "random-01": -0.03, "shuffled": 0.1}
    names = ("helpful", "harmless") if labels else ("correct",)
    for direction, slope in {**directions, "upstream": 0.0}.items():
        for coef in (0.0,) if direction in ("none", "upstream") else [c for c in COEFS if c]:
            same = {"task": task, "coef": coef, "direction": direction}
            if not direction.startswith("random"):
                outcome = {name: 0.5 + 0.1 * coef - 0.3 * (direction == "upstream") for name in names}
                loop += [{**same, "problem": f"l{p}", "gold": "", "answer": "", "outcomes": outcome} for p in range(9)]
            if direction == "upstream":
                continue
            for i in range(N):
                ratio = float(max(0.0, 1 + slope * coef + 0.1 * rng.normal())) * (i % 5 > 0)
                edits.append(
                    {
                        **same,
                        **{"layers": [4], "item": i, "problem": f"p{i}", "edit_ratio": ratio, "copied": ratio == 0},
                        **{"length_ratio": 1.0, "is_wrong": bool(i % 2) if labels else None, "kl": abs(coef)},
                        **{"is_right_after": bool(i % 3), "well_formed": coef < 2 or i % 3 > 0, "ended": True},
                    }
                )
    return edits, loop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "sweep-0a1b2c3d"
    folder.mkdir()
    parts = [rows_of("dialogue", True), rows_of("arithmetic", False)]
    for k, name in enumerate(("edits", "alignments")):
        lines = [json.dumps(row) for part in parts for row in part[k]]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config.json").write_text(json.dumps({"model_organism": True, "method": "diff_means"}))
    (folder / "DONE").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def data(run: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    return summarise(run), dose_statistics(run)


def draw(summary: pd.DataFrame, statistics: dict[str, Any], width: float = style.PAGE) -> Figure:
    return dose.draw(dose.table(summary, statistics), width)


def plotted(ax: Axes) -> dict[str, tuple[list[float], list[float]]]:
    return {str(line.get_gid()): tuple(map(list, line.get_data())) for line in ax.lines}  # type: ignore[misc]


def test_panels_are_tasks_by_questions(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    figure = draw(*data)
    labels = [ax.get_ylabel().split("\n")[0] for ax in figure.axes if ax.get_visible()]
    both = ["edit ratio", "edit ratio", *["share of items"] * 4]
    assert labels == [*both, "loop: helpful", "loop: correct", "loop: harmless"]
    assert [ax.get_title(loc="left").split("}$")[0] for ax in figure.axes[:2]] == [r"$\bf{dialogue", r"$\bf{arithmetic"]
    assert "n = 24 items of 24 questions" in figure.axes[0].get_title(loc="left")
    assert "9 problems" in figure.axes[6].get_ylabel()
    footer = figure.get_supxlabel()
    assert "sweep-0a1b2c3d" in footer and "odel organism" in footer


def test_edit_ratio_lines_bands_and_fit_are_the_data(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    summary, statistics = data
    for ax, task in zip(draw(*data).axes[:2], ("dialogue", "arithmetic"), strict=True):
        lines, numbers = plotted(ax), statistics["tasks"][task]
        for direction in ("correction", "random-00", "random-01", "shuffled"):
            rows = select(summary, task=task, direction=direction)
            assert lines[direction] == (list(COEFS), rows["edit_ratio"].tolist())
        rows = select(summary, task=task, direction="correction")
        band = next(c for c in ax.collections if c.get_gid() == "correction-band")
        y = band.get_paths()[0].vertices[:, 1]
        assert y.min() == pytest.approx(rows["edit_ratio_low"].min())
        assert y.max() == pytest.approx(rows["edit_ratio_high"].max())
        assert numbers["usable"] == [-2.0, -1.0, 0.0, 1.0]
        ends = [numbers["intercept"] + numbers["slope"] * coef for coef in (-2.0, 1.0)]
        assert lines["fit"] == ([-2.0, 1.0], pytest.approx(ends))
        shades = [patch for patch in ax.patches if patch.get_gid() == "unusable"]
        assert [shade.get_x() for shade in shades] == [1.5]


def with_battery(data: tuple[pd.DataFrame, dict[str, Any]]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The run's own numbers with all families of controls and a null band added to dialogue."""
    summary, statistics = data
    own = select(summary, task="dialogue", direction="random-00")
    named = ("shuffled-00", "shuffled-01", "length", "without-length", "wrong-layer", "other-layer")
    extra = [own.assign(direction=name, edit_ratio=own["edit_ratio"] + 0.1 * i) for i, name in enumerate(named)]
    prompt = select(own, coef=0.0).assign(direction="prompt-copy", edit_ratio=0.123)
    table = pd.concat([select(summary, task="dialogue"), *extra, prompt], ignore_index=True)
    band = {"coef": list(COEFS), "low": [0.5, 0.6, 0.7, 0.6, 0.5], "high": [1.5, 1.4, 1.3, 1.4, 1.5], "n": 25}
    numbers = {**statistics["tasks"]["dialogue"], "null_band": band, "usable_from": "validation", "coef_unit": "kl"}
    return table, {**statistics, "tasks": {"dialogue": numbers}}


def test_the_null_band_and_every_named_control_are_drawn_and_told_apart(
    data: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    table, statistics = with_battery(data)
    figure = draw(table, statistics)
    ax, lines = figure.axes[0], plotted(figure.axes[0])
    band = next(c for c in ax.collections if c.get_gid() == "null-band")
    corners = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices}
    expected = statistics["tasks"]["dialogue"]["null_band"]
    assert corners == {*zip(COEFS, expected["low"], strict=True), *zip(COEFS, expected["high"], strict=True)}
    assert not any(name.startswith("random") for name in lines)  # the band stands for them
    for name in ("shuffled-00", "shuffled-01", "length", "without-length", "wrong-layer", "other-layer"):
        assert lines[name] == (list(COEFS), select(table, direction=name)["edit_ratio"].tolist())
    assert lines["prompt-copy"][1] == [0.123, 0.123]
    looks = {str(line.get_gid()): (line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert looks["shuffled-00"] == looks["shuffled-01"]
    families = ("shuffled-00", "length", "without-length", "wrong-layer", "other-layer", "prompt-copy")
    assert len({(looks[name][0], str(looks[name][1])) for name in families}) == 6
    legend = ax.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels[:2] == ["correction vector", "line fit"]
    assert labels.count("shuffled labels") == 1 and "25 null directions, 95 %" in labels and "prompt: copy" in labels
    assert "nats of KL" in figure.axes[-1].get_xlabel()
    footer = figure.get_supxlabel().replace("\n", " ")
    assert "of validation corrections" in footer and "Grey: 2.5 to 97.5 %" in footer


def test_rates_without_labels_are_not_drawn(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    summary, _ = data
    axes = draw(*data).axes
    labelled, bare = plotted(axes[2]), plotted(axes[3])
    assert {*labelled} - {"unsteered"} == {"copied", "false_rewrite", "missed_rewrite"}
    assert {*bare} - {"unsteered"} == {"copied"}
    rows = select(summary, task="dialogue", direction="correction")
    assert labelled["missed_rewrite"] == (list(COEFS), rows["missed_rewrite"].tolist())
    sound = plotted(axes[4])
    assert sound["well_formed"][1] == rows["well_formed"].tolist() and sound["threshold"][1] == [0.95, 0.95]


def test_loop_panels_show_outcomes_and_the_upstream_alone(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    lines = plotted(draw(*data).axes[6])
    assert lines["correction"] == (list(COEFS), pytest.approx([0.3, 0.4, 0.5, 0.6, 0.7]))
    assert lines["upstream"][1] == pytest.approx([0.2, 0.2])


def test_where_coefficient_0_steers_the_unsteered_numbers_are_lines_across(
    data: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    summary, statistics = data
    mine = select(summary, task="dialogue")
    plain = select(mine, direction="correction", coef=0.0).assign(
        direction="none", edit_ratio=0.321, copied=0.432, false_rewrite=0.543, well_formed=0.987, loop_helpful=0.654
    )
    gate = {"when": "prompt_last", "side": "below", "layer": 3}
    numbers = {**statistics["tasks"]["dialogue"], "operator": "clamp", "condition": gate}
    figure = draw(pd.concat([mine, plain]), {**statistics, "tasks": {"dialogue": numbers}})
    expected = {0: ("edit_ratio", 0.321), 1: ("copied", 0.432), 2: ("well_formed", 0.987), 3: ("loop_helpful", 0.654)}
    for i, (column, value) in expected.items():
        lines = plotted(figure.axes[i])
        assert lines[f"{column}-unsteered"][1] == [value, value]
        assert "unsteered" not in lines and "none" not in lines  # 0 is not marked as unsteered, nor none as a control
    assert plotted(figure.axes[1])["false_rewrite-unsteered"][1] == [0.543, 0.543]
    assert "clamp, gated below at prompt_last, layer 3" in figure.axes[0].get_title(loc="left")
    assert "midway between the classes" in figure.axes[-1].get_xlabel().replace("\n", " ")
    assert "coefficient 0 of clamp" in figure.get_supxlabel().replace("\n", " ")
    usual = draw(*data)
    assert not any(gid.endswith("-unsteered") for ax in usual.axes for gid in plotted(ax))
    assert "unsteered" in plotted(usual.axes[0]) and "clamp" not in usual.get_supxlabel()


def test_changed_data_changes_the_plot(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    summary, statistics = data
    changed = summary.assign(edit_ratio=summary["edit_ratio"] * 2)
    assert plotted(draw(changed, statistics).axes[0])["correction"] != plotted(draw(*data).axes[0])["correction"]


def test_one_task_alone_and_no_loop(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    summary, statistics = data
    alone = {**statistics, "finished": False, "tasks": {"dialogue": statistics["tasks"]["dialogue"]}}
    alone["tasks"]["dialogue"] = {**alone["tasks"]["dialogue"], "model_organism": False}
    loop = [name for name in summary if str(name).startswith("loop_")]
    figure = draw(select(summary, task="dialogue").drop(columns=loop), alone)
    assert len(figure.axes) == 3
    footer = figure.get_supxlabel().replace("\n", " ")
    assert "not finished" in footer and "organism" not in footer


def test_command_draws_the_same_bytes_as_this_process(run: Path) -> None:
    command = [sys.executable, "-m", "figures.dose", str(run)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "dialogue steers" in done.stdout and "figure.png" in done.stdout
    files = [run / name for name in ("figure.png", "figure.pdf", "summary.csv", "statistics.json")]
    first = [file.read_bytes() for file in files]
    assert first[0].startswith(b"\x89PNG") and first[1].startswith(b"%PDF") and b"CreationDate" not in first[1]
    main(Draw(run), dose.reported, "figure")
    assert [file.read_bytes() for file in files] == first


def test_the_style_stays_in_its_context(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    before = matplotlib.rcParams["axes.spines.top"]
    draw(*data)
    with style.look():
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert matplotlib.rcParams["axes.spines.top"] == before


def test_no_run_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "figures.dose", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "no config.json" in done.stderr


def test_panels_of_a_column_stand_below_each_other_and_a_page_holds_one_task_two_by_two(
    data: tuple[pd.DataFrame, dict[str, Any]],
) -> None:
    narrow = draw(*data, style.COLUMN)
    assert len(narrow.axes) == 9 and {ax.get_subplotspec().colspan.start for ax in narrow.axes} == {0}  # type: ignore[union-attr]
    summary, statistics = data
    alone = {**statistics, "tasks": {"dialogue": statistics["tasks"]["dialogue"]}}
    spans = [ax.get_subplotspec() for ax in draw(select(summary, task="dialogue"), alone).axes]
    assert [(s.rowspan.start, s.colspan.start, len(s.colspan)) for s in spans if s] == [
        *[(0, 0, 2), (1, 0, 1), (1, 1, 1), (2, 0, 1), (2, 1, 1)]
    ]


def test_rows_of_the_table_are_what_is_drawn(data: tuple[pd.DataFrame, dict[str, Any]]) -> None:
    rows = dose.rows(dose.table(*data))
    lines = plotted(draw(*data).axes[0])
    for name in ("correction", "random-00", "shuffled", "fit"):
        mine = [r for r in rows if (r["panel"], r["series"]) == ("dialogue/edit_ratio", name)]
        assert ([r["x"] for r in mine], [r["y"] for r in mine]) == lines[name]
    assert not any(r["panel"] == "arithmetic/false_rewrite" for r in rows), "without labels there is no such rate"
