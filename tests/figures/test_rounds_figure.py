"""The figure's table against the numbers that it was made of."""

import pytest

from analysis import loops
from analysis.rounds import load_answers, rounds_statistics
from figures.rounds import draw, table


def test_every_point_is_drawn_where_the_statistics_have_it(tmp_path):
    out = tmp_path / "rounds"
    loops.run(loops.Rounds(task=("arithmetic",), corrector=("arithmetic-s",), rounds=1, problems=4, out=out))
    numbers, (rows, _) = rounds_statistics(out), load_answers(out)
    figure = draw(table(numbers, rows))
    means = {round(p["mean"], 5) for p in numbers["points"]}
    drawn = {round(float(y), 5) for ax in figure.axes for line in ax.get_lines() for y in line.get_ydata()}
    assert means <= drawn
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes if ax.lines)
    assert any("n = 4" in text for ax in figure.axes for text in [ax.get_title(loc="left"), ax.get_title()])
    assert pytest.approx(0.0) == min(p["gain"] for p in numbers["points"] if p["k"] == 0)
