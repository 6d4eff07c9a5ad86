"""Tasks by name: `get("dialogue")`, `get("gsm8k", data="folder")`, `get("jsonl", data="pairs.jsonl")`."""

from __future__ import annotations

from corrector.errors import UserError
from corrector.tasks.base import Example, MinimalPair, Pair, Problem, Split, Step, Task

__all__ = ["NAMES", "Example", "MinimalPair", "Pair", "Problem", "Split", "Step", "Task", "get"]

NAMES = ("dialogue", "arithmetic", "gsm8k", "jsonl")


def get(name: str, data: str = "") -> Task:
    """The task of that name; `data` is the path or hub id that gsm8k and jsonl read from.

    Raises UserError for an unknown name, and for data given to a task that generates its own.
    """
    if name not in NAMES:
        raise UserError(f"task={name!r} is not one of {', '.join(NAMES)}; choose --task among them")
    if data and name in ("dialogue", "arithmetic"):
        raise UserError(f"--data={data!r} was given, but task {name!r} generates its data; leave --data out")
    if name == "dialogue":
        from corrector.tasks.dialogue import Dialogue

        return Dialogue()
    if name == "arithmetic":
        from corrector.tasks.arithmetic import Arithmetic

        return Arithmetic()
    if name == "gsm8k":
        from corrector.tasks.gsm8k import Gsm8k

        return Gsm8k(data)
    from corrector.tasks.jsonl import Jsonl

    return Jsonl(data)
