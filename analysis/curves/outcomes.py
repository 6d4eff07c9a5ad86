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


def _unsteered(records: Records, rows: Any, task: str, name: str, problems: Any) -> Any:
    """An outcome of the loop without steering, by problem, of these problems; NaN where it is not known."""
    mine = records.unsteered(rows, task)
    values = pd.Series([outcome.get(name) for outcome in mine["outcomes"]], index=mine["problem"], dtype=float)
    return values.reindex(problems)


def names(rows: Any, task: str) -> list[str]:
    """The outcomes of a task's loop, without what is only counted."""
    mine = select(rows, task=task) if len(rows) else rows
    found = dict.fromkeys(name for outcome in (mine["outcomes"] if len(mine) else []) for name in outcome)
    return [name for name in found if name not in COUNTS]


def loop_changes(records: Records, task: str) -> dict[str, Any]:
    """By outcome and coefficient, how many problems change against the unsteered loop, paired by problem.

    That is coefficient 0, which has no entry then, but for operators of which 0 steers too.
    `wrong_to_right` and `right_to_wrong` where all values are 0 or 1, else `rose` and `fell`; `n` problems.
    """
    out: dict[str, Any] = {}
    for name in names(records.alignments, task):
        wide = outcome_table(records.alignments, task, name)
        base = _unsteered(records, records.alignments, task, name, wide.index)
        if not len(wide) or base.isna().any():
            continue
        up, down = changes(wide)
        out[name] = [
            {"coef": float(c), "n": len(wide), up: int((d > 0).sum()), down: int((d < 0).sum())}
            for c in wide.columns
            if c != 0 or records.acts_at_zero(task)
            for d in [wide[c] - base]
        ]
    return out


def changes(wide: pd.DataFrame) -> tuple[str, str]:
    """What a rise and a fall of an outcome are called."""
    binary = {*wide.to_numpy().ravel().tolist()} <= {0.0, 1.0}
    return ("wrong_to_right", "right_to_wrong") if binary else ("rose", "fell")


def improvement(records: Records, task: str) -> dict[str, Any]:
    """By outcome, the coefficient that is best on validation problems, and what it gains over 0 on test problems.

    `best` has the largest mean on validation, of equal ones the smallest; `difference` with `low` and `high` is the
    mean over the n test problems of outcome(best) - outcome(unsteered), a paired bootstrap. Empty where no validation
    problem was run, None numbers where the test rows are not there. Where coefficient 0 steers too, `unsteered` is the
    mean on validation without steering, and `best` is None where no coefficient is above it.
    """
    out: dict[str, Any] = {}
    for name in names(records.validation, task):
        tried = outcome_table(records.validation, task, name)
        base = _unsteered(records, records.validation, task, name, tried.index)
        if not len(tried) or base.isna().any():
            continue
        means = {float(c): float(tried[c].mean()) for c in tried.columns}
        best = min(means, key=lambda c: (-means[c], abs(c), c))
        apart = {"unsteered": float(base.mean())} if records.acts_at_zero(task) else {}
        entry: dict[str, Any] = {
            "best": best if all(means[best] > mean for mean in apart.values()) else None,
            **apart,
            "validation": [{"coef": c, "mean": value} for c, value in means.items()],
            "n_validation": len(tried),
            **dict.fromkeys(("difference", "low", "high", "n")),
        }
        test = outcome_table(records.alignments, task, name)
        base = _unsteered(records, records.alignments, task, name, test.index)
        if entry["best"] in test and len(test) and not base.isna().any():
            gained = bootstrap_mean((test[best] - base).to_numpy())
            entry |= {"difference": gained.mean, "low": gained.low, "high": gained.high, "n": len(test)}
        out[name] = entry
    return out
