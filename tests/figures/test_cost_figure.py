"""The cost figure draws the scaling rows of the benchmarks' README, and no others."""

import pytest

from corrector.errors import UserError
from figures import cost, style

TEXT = """# Benchmarks

CPU, 2 cores, 1 thread(s), load 1.4; device cpu.

Cost is this process's CPU time: the median over 3 rounds.

## Sweep

somewhere, 9 items (ms a row):

| contestant | cost | times |
| --- | --- | --- |
| 7: lab, edits | 99 (98 to 100) | 1.00 (1.00 to 1.00) |

## Scaling

coefficients, 16 items (ms a row):

| contestant | cost | times |
| --- | --- | --- |
| 1: lab, edits and KL | 14.4 (14.3 to 15.1) | 1.00 (1.00 to 1.00) |
| 1: HF generate + hook | 22.7 (21.9 to 23.8) | 1.57 (1.45 to 1.67) |
| 2: lab, edits and KL | 12.8 (12 to 12.8) | 1.00 (1.00 to 1.00) |

rounds, batch 4 (ms a round and row):

| contestant | cost | times |
| --- | --- | --- |
| 8: lab without tricks | 30 (29 to 31) | 1.00 (1.00 to 1.00) |
"""


def test_points_stand_where_the_table_has_them():
    found = cost.table(TEXT)
    figure = cost.draw(found)
    lines = {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid()}
    assert list(lines["lab, edits and KL"].get_xdata()) == [1, 2]
    assert list(lines["lab, edits and KL"].get_ydata()) == [14.4, 12.8]
    assert [ax.get_xlabel() for ax in figure.axes] == ["coefficients of one vector", "rounds of the loop"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["ms a row", "ms a round and row"]
    footer = figure.get_supxlabel().replace("\n", " ")
    assert "Cost is this process's CPU time" in footer and "CPU, 2 cores, 1 thread(s), load 1.4" in footer
    assert lines["lab, edits and KL"].get_color() != lines["HF generate + hook"].get_color()
    assert len(cost.draw(found, style.COLUMN).axes) == 2


def test_rows_are_those_of_growth_with_their_spread():
    rows = cost.rows(cost.table(TEXT))
    assert [(r["panel"], r["x"], r["y"], r["low"], r["high"]) for r in rows] == [
        ("coefficients", 1, 14.4, 14.3, 15.1),
        ("coefficients", 2, 12.8, 12.0, 12.8),
        ("coefficients", 1, 22.7, 21.9, 23.8),
        ("rounds", 8, 30, 29, 31),
    ]


def test_a_folder_without_rows_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"README\.md is missing"):
        cost.build(tmp_path)
    (tmp_path / "README.md").write_text("# Benchmarks\n")
    with pytest.raises(UserError, match="no scaling rows"):
        cost.build(tmp_path)
