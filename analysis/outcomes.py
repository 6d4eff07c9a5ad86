"""The align loop against itself unsteered, problem by problem: what steering mends, breaks and gains."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.summary import CORRECTION, COUNTS, Records, select
from corrector.statistics import bootstrap_mean


def outcome_table(rows: Any, task: str, name: str) -> Any:
    """An outcome of the steered loop as [problem, coef], of the problems that have it at every coefficient."""
    mine = select(rows, task=task, direction=CORRECTION) if len(rows) else rows
    values = [outcome.get(name) for outcome in mine["outcomes"]] if len(mine) else []
    frame = pd.DataFrame(
        {"problem": mine["problem"].to_numpy(), "coef": mine["coef"].to_numpy(dtype=float), "value": values}
        if len(mine)
        else {"problem": [], "coef": [], "value": []}
    )
    wide: Any = frame.pivot(index="problem", columns="coef", values="value").astype(float)
    return wide.dropna()


def names(rows: Any, task: str) -> list[str]:
    """The outcomes of a task's loop, without what is only counted."""
    mine = select(rows, task=task) if len(rows) else rows
    found = dict.fromkeys(name for outcome in (mine["outcomes"] if len(mine) else []) for name in outcome)
    return [name for name in found if name not in COUNTS]


def loop_changes(records: Records, task: str) -> dict[str, Any]:
    """By outcome and coefficient, how many problems change against coefficient 0, paired by problem.

    `wrong_to_right` and `right_to_wrong` where all values are 0 or 1, else `rose` and `fell`; `n` problems.
    """
    out: dict[str, Any] = {}
    for name in names(records.alignments, task):
        wide = outcome_table(records.alignments, task, name)
        if 0.0 not in wide or not len(wide):
            continue
        up, down = changes(wide)
        out[name] = [
            {"coef": float(c), "n": len(wide), up: int((d > 0).sum()), down: int((d < 0).sum())}
            for c in wide.columns
            if c != 0
            for d in [wide[c] - wide[0.0]]
        ]
    return out


def changes(wide: pd.DataFrame) -> tuple[str, str]:
    """What a rise and a fall of an outcome are called."""
    binary = {*wide.to_numpy().ravel().tolist()} <= {0.0, 1.0}
    return ("wrong_to_right", "right_to_wrong") if binary else ("rose", "fell")


def improvement(records: Records, task: str) -> dict[str, Any]:
    """By outcome, the coefficient that is best on validation problems, and what it gains over 0 on test problems.

    `best` has the largest mean on validation, of equal ones the smallest; `difference` with `low` and `high` is the
    mean over the n test problems of outcome(best) - outcome(0), a paired bootstrap. Empty where no validation problem
    was run, None numbers where the test rows are not there.
    """
    out: dict[str, Any] = {}
    for name in names(records.validation, task):
        tried = outcome_table(records.validation, task, name)
        if 0.0 not in tried or not len(tried):
            continue
        means = {float(c): float(tried[c].mean()) for c in tried.columns}
        best = min(means, key=lambda c: (-means[c], abs(c), c))
        entry: dict[str, Any] = {
            "best": best,
            "validation": [{"coef": c, "mean": value} for c, value in means.items()],
            "n_validation": len(tried),
            **dict.fromkeys(("difference", "low", "high", "n")),
        }
        test = outcome_table(records.alignments, task, name)
        if {0.0, best} <= {*test.columns} and len(test):
            gained = bootstrap_mean((test[best] - test[0.0]).to_numpy())
            entry |= {"difference": gained.mean, "low": gained.low, "high": gained.high, "n": len(test)}
        out[name] = entry
    return out
