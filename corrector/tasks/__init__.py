"""Tasks by name: `get("dialogue")`, `get("gsm8k", data="folder")`, `get("hh-rlhf", data="Anthropic/hh-rlhf")`."""

from __future__ import annotations

from importlib import import_module

from corrector.errors import UserError
from corrector.tasks.base import Example, MinimalPair, Pair, Problem, Split, Step, Task
from corrector.tasks.units import LONGEST, WHOLE, in_units

__all__ = ["GENERATED", "NAMES", "READ", "Example", "MinimalPair", "Pair", "Problem", "Split", "Step", "Task", "get"]

GENERATED = {
    "dialogue": "corrector.tasks.dialogue:Dialogue",
    "arithmetic": "corrector.tasks.arithmetic:Arithmetic",
}
"""Tasks that make their own data."""
READ = {
    "gsm8k": "corrector.tasks.gsm8k:Gsm8k",
    "jsonl": "corrector.tasks.jsonl:Jsonl",
    "stream-aligner": "corrector.tasks.jsonl:StreamAligner",
    "aligner": "corrector.tasks.jsonl:Aligner",
    "math": "corrector.tasks.maths:Math",
    "prm800k": "corrector.tasks.maths:Prm800k",
    "processbench": "corrector.tasks.maths:ProcessBench",
    "hh-rlhf": "corrector.tasks.preferences:HhRlhf",
    "beavertails": "corrector.tasks.preferences:BeaverTails",
}
"""Tasks that read data from a path or the hub."""
NAMES = (*GENERATED, *READ)


def get(name: str, data: str = "") -> Task:
    """The task of that name; `data` is the path or hub id that the tasks of READ take.

    `NAME@N` has N sentences to a unit, `NAME@answer` all of an answer (`corrector.tasks.units`). Raises UserError for
    an unknown name or unit, and for data given to a task that generates its own.
    """
    own, apart, unit = name.partition("@")
    if own not in NAMES:
        raise UserError(f"task={own!r} is not one of {', '.join(NAMES)}; choose --task among them")
    if apart and unit != WHOLE and not unit.isdecimal():
        raise UserError(f"task={name!r}: {unit!r} is no unit; write {own}@2 for two sentences, or {own}@{WHOLE}")
    if data and own in GENERATED:
        raise UserError(f"--data={data!r} was given, but task {own!r} generates its data; leave --data out")
    module, _, kind = (GENERATED | READ)[own].partition(":")
    make = getattr(import_module(module), kind)
    task: Task = make(data) if own in READ else make()
    return in_units(task, LONGEST if unit == WHOLE else int(unit)) if apart else task
