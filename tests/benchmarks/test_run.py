"""The benchmarks at their smallest sizes: everything runs, agrees and stands in the tables."""

import json
from dataclasses import asdict, replace

import pytest

from benchmarks import report, run
from benchmarks.config import PARTS, QUICK, Run, check
from benchmarks.results import Spread, agree, rows_of
from benchmarks.timing import Contestant, Times, Work, race
from corrector.errors import UserError
from figures import cost

WANTED = {
    "sweep": {
        "lab, edits and KL",
        "lab without tricks, edits and KL",
        "HF generate + hook, edits only",
        "HF generate + hook, edits and KL",
        "TransformerLens generate, edits only",
        "nnsight generate, edits only",
        "bare forward of all tokens",
    },
    "loop": {"lab pipeline", "lab without tricks", "naive, whole answers", "naive, one sentence"},
    "first-token": {"after one sentence", "after a whole answer"},
    "scaling": {
        "lab, edits and KL",
        "HF generate + hook, edits and KL",
        "lab pipeline",
        "lab without tricks",
        "naive, whole answers",
        "naive, one sentence",
        "bare forward behind a cache",
    },
}
CAPTURED = {"bare forward", "torch, last token", "transformer_lens, row mean", "nnsight, row mean"}


@pytest.fixture(scope="module")
def rows():
    return run.measure(replace(Run(quick=True), **QUICK))


@pytest.fixture(scope="module")
def about():
    return report.machine("cpu", "float32")


def test_every_contestant_runs_and_agrees(rows):
    for part in PARTS:
        mine = [row for row in rows if row.part == part]
        assert {row.what for row in mine} >= WANTED.get(part, CAPTURED)
        assert all(row.cost.low > 0 and row.n > 0 for row in mine)
    for part in ("sweep", "loop"):
        compared = [row for row in rows if row.part == part and row.compared]
        assert all(row.differ == 0 for row in compared)
        assert {row.what for row in compared} >= WANTED[part] - {"bare forward of all tokens"}


def test_growth_is_measured_at_every_size(rows):
    for axis, sizes in (("coefficients", "scaled"), ("items", "scaled_items"), ("rounds", "scaled_rounds")):
        assert {row.x for row in rows if row.setting.startswith(axis)} == {*QUICK[sizes]}
    lengths = [row.x for row in rows if row.setting.startswith("prefix") and row.what == "lab pipeline"]
    assert len(lengths) == 4 and lengths == sorted(set(lengths))


def test_readme_json_and_plot_hold_every_row(rows, about, tmp_path):
    command = "python -m benchmarks.run --readme"
    text = report.readme(rows, about, command, 1)
    assert command in text and about["cpu"] in text and "float32" in text
    lines = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    heads = [line for line in lines if line.startswith("| contestant")]
    assert len(lines) - len(heads) == len(rows)
    report.write_json(tmp_path / "rows.json", rows, about, asdict(Run(out=None)))
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == len(rows)
    plotted = cost.table(text)
    assert len(cost.rows(plotted)) == sum(row.part == "scaling" for row in rows)
    figure = cost.draw(plotted)
    assert all(ax.get_xlabel() and "ms" in ax.get_ylabel() for ax in figure.axes) and len(figure.axes) == 4


def test_the_committed_table_names_its_command_and_has_every_contestant():
    text = (report.HOME / "README.md").read_text(encoding="utf-8")
    assert "python -m benchmarks.run --readme" in text and "--quick" not in text and "/" + "tmp" not in text
    for names in (*WANTED.values(), CAPTURED):
        assert all(name in text for name in names)
    assert (report.HOME / report.PLOT).is_file()


def test_what_measures_nothing_fails():
    with pytest.raises(RuntimeError, match="did nothing"):
        race([Contestant("idle", lambda r: Work(0))], 1, "cpu", "test")


def _busy(r):
    return Work(sum(range(20_000)) > 0, {"row": ("same", 0.5)})


@pytest.mark.parametrize("other", [("else", 0.5), ("same", 0.6), None])
def test_a_path_of_the_lab_that_differs_fails(other):
    def differs(r):
        return Work(_busy(r).n, {} if other is None else {"row": other})

    contestants = [Contestant("first", _busy), Contestant("second", differs, exact=True)]
    times = race(contestants, 2, "cpu", "test")
    with pytest.raises(RuntimeError, match="second differs"):
        rows_of("test", "here", "ms", contestants, times, "cpu", strict=True)
    (_, row) = rows_of("test", "here", "ms", contestants, times, "cpu", strict=False)
    assert row.differ == (None if other is None else 1)


def test_ratios_are_of_the_same_round():
    contestants = [Contestant(name, _busy) for name in ("a", "b")]
    times = {"a": Times([1.0, 2.0, 4.0], [1.0] * 3, [1] * 3), "b": Times([3.0, 4.0, 4.0], [1.0] * 3, [1] * 3)}
    (_, row) = rows_of("test", "here", "s", contestants, times, "cpu", strict=False, scale=1.0)
    assert (row.cost, row.ratio) == (Spread(4.0, 3.0, 4.0), Spread(2.0, 1.0, 3.0))
    (_, wall) = rows_of("test", "here", "s", contestants, times, "cuda:0", strict=False, scale=1.0)
    assert wall.ratio == Spread(1.0, 1.0, 1.0)


def test_divergences_agree_up_to_rounding():
    assert agree(("a", 0.5), ("a", 0.502)) and agree(("a", None), ("a", 0.5)) and agree("x", "x")
    assert not agree(("a", 0.5), ("a", 0.51)) and not agree(("a", 0.5), ("b", 0.5))


@pytest.mark.parametrize(
    "config",
    [
        Run(only=()),
        Run(rounds=0),
        Run(batches=(8, 0)),
        Run(prefix_rounds=6),
        Run(items=8),
        Run(readme=True, only=("sweep",)),
        Run(readme=True, quick=True),
    ],
)
def test_sizes_that_say_nothing_are_refused(config):
    with pytest.raises(UserError):
        check(config)


def test_the_command_leaves_out_the_file_of_one_machine():
    assert run._command(["--readme", "--out", "here.json", "--rounds", "5"]) == (
        "python -m benchmarks.run --readme --rounds 5"
    )
