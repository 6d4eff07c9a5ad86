"""The dose curve on the upstream's own sentences, of rows whose edits are known."""

from pathlib import Path

import pandas as pd
import pytest

from analysis.curves.sentences import sentence_dose, sentence_line
from analysis.summary import Records, load_records

RUNS = Path(__file__).parents[3] / "figures" / "runs"


class Loops(Records):
    """Records with a loop alone."""

    def __init__(self, rows):
        object.__setattr__(self, "alignments", pd.DataFrame(rows))

    def acts_at_zero(self, task):
        return False


def row(problem, coef, *edits):
    """A problem whose k-th sentence of ten characters loses edits[k] of them; None is not corrected."""
    rounds = [{"last": "x" * 10, "correction": None if n is None else "x" * (10 - n)} for n in edits]
    return {"task": "t", "direction": "correction", "coef": coef, "problem": problem, "rounds": rounds}


def test_first_and_every_sentence_have_the_slopes_that_were_made():
    rows = [row(p, c, 2 + 2 * c, 4) for p in "abc" for c in (-1.0, 0.0, 1.0) for c in [int(c)]]
    got = sentence_dose(Loops(rows), "t", [-1.0, 0.0, 1.0])
    assert [x["mean"] for x in got["first"]["edit_ratio"]] == pytest.approx([0.0, 0.2, 0.4])
    assert got["first"]["slope"] == pytest.approx(0.2) and got["first"]["r2"] == pytest.approx(1.0)
    assert got["every"]["slope"] == pytest.approx(0.1) and got["every"]["n"] == 3
    assert "slope 0.20 [0.20, 0.20], R2 1.00 (3 problems)" in sentence_line(got)


def test_a_problem_that_is_not_corrected_somewhere_is_left_out():
    rows = [row("a", c, 1) for c in (0.0, 1.0)] + [row("b", 0.0, 1), row("b", 1.0, None)]
    rows += [row("c", 0.0), row("c", 1.0, 3)]
    got = sentence_dose(Loops(rows), "t", [0.0, 1.0])
    assert got["first"]["n"] == 1
    assert sentence_dose(Loops([]), "t", [0.0, 1.0]) == {} and sentence_line({}) == ""


def test_the_committed_run_steers_the_sentences_of_its_upstream():
    got = sentence_dose(load_records(RUNS / "fig8-dialogue-0"), "dialogue", [-2.0, -1.0, 0.0, 1.0, 2.0])
    assert got["first"]["n"] == 50 and got["first"]["low"] > 0.5
