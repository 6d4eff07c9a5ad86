"""The figure of ablations against the numbers that it was made of."""

import subprocess
import sys

import pytest

from analysis.ablations import ablation_statistics
from figures.ablations import draw, label, table
from tests.analysis.ablation_rows import write_rounds, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return write_run(folder / "run", (write_rounds(folder / "rounds"),))


def test_every_mean_and_curve_is_drawn_where_the_statistics_have_it(run):
    numbers = ablation_statistics(run)
    figure = draw(table(numbers))
    lines = {line.get_gid(): line for ax in figure.axes for line in ax.get_lines() if line.get_gid()}
    shown = [p for p in numbers["points"] if label(p["measure"])]
    assert len(shown) > 10
    for p in shown:
        assert lines[f"mean-{p['measure']}-{p['name']}"].get_xdata()[0] == pytest.approx(p["mean"])
    curve = [p["mean"] for p in numbers["verbosity"]]
    assert list(lines["one/stream"].get_ydata()) == pytest.approx(curve) and len(curve) == 4


def test_axes_say_what_they_show_of_how_many(run):
    figure = draw(table(ablation_statistics(run)))
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert all(ax.get_xlabel() for ax in figure.axes) and all("n = " in title for title in titles)
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["base", "identity 0"]
    foot = " ".join(figure._supxlabel.get_text().split())
    assert "Run run, drawn by figures.ablations" in foot and "rounds" in foot and "model organisms" in foot


def test_the_command_writes_both_files(run):
    got = subprocess.run([sys.executable, "-m", "figures.ablations", str(run)], capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    assert (run / "ablations.png").is_file() and (run / "ablations.pdf").is_file()
