"""What answers are worth at any length: outcomes without what the task charges for length alone.

An answer may score lower since it says worse things, or since it says more. Where the task knows what length alone
costs (`Task.charged`), an outcome has a second one beside it, with that cost given back. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from corrector import tasks

Row = dict[str, Any]
ANY = " at any length"
"""Behind the name of the outcome."""
NOTE = "At any length: what the scorer takes off for length alone is given back."
"""What figures say of it."""


def names(task: str) -> tuple[str, ...]:
    """The outcomes of a task that have one at any length; tasks that read data have none."""
    return tuple(tasks.get(task).charged("")) if task.partition("@")[0] in tasks.GENERATED else ()


def outcomes(of: Iterable[str], task: str) -> tuple[str, ...]:
    """Names of outcomes, each followed by that at any length where there is one."""
    free = names(task)
    return tuple(name for each in of for name in ((each, each + ANY) if each in free else (each,)))


def with_any(rows: Sequence[Row], task: str) -> list[Row]:
    """Rows of answers with `outcomes` at any length too: as graded, and the cost of the answer's length given back."""
    if not names(task):
        return list(rows)
    read = tasks.get(task)
    out: list[Row] = []
    for row in rows:
        given_back = {k + ANY: row["outcomes"][k] + cost for k, cost in read.charged(row["answer"]).items()}
        out.append({**row, "outcomes": {**row["outcomes"], **given_back}})
    return out
