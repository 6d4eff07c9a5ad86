"""What the benchmarks are asked to measure, and at what sizes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corrector.errors import UserError

Part = Literal["sweep", "loop", "first-token", "capture", "scaling"]
BINS = 4
"""Of the growing prefix."""
PARTS: tuple[Part, ...] = ("sweep", "loop", "first-token", "capture", "scaling")


@dataclass(frozen=True)
class Run:
    """Measure what the lab's decoder saves, each part against the ways in which it is done elsewhere."""

    only: tuple[Part, ...] = PARTS
    """Parts to run."""
    rounds: int = 3
    """Measurements of everything; medians are over these."""
    corrector: str = "dialogue-0"
    """Corrector of sweep, loop and scaling."""
    upstream: str = "dialogue-upstream"
    """Upstream of the loop."""
    items: int = 256
    """Pairs of the sweep."""
    controls: int = 5
    """Random directions of the sweep; each has 8 cells."""
    fitted: int = 120
    """Train pairs that the vector is fitted on."""
    plain_items: int = 6
    """Pairs on which the lab without its tricks is measured."""
    cells: int = 4
    """Cells a round on which other libraries are measured, other ones each round, spread over the coefficients."""
    others: int = 128
    """Items on which other libraries are measured."""
    batches: tuple[int, ...] = (8, 32, 64, 128)
    """Batch sizes that other libraries may choose from."""
    problems: int = 32
    """Problems of the batched loop."""
    singles: int = 2
    """Problems of the loop at batch 1."""
    loop_rounds: int = 8
    """Rounds of the loop."""
    waits: int = 6
    """Problems of the first token."""
    scaled: tuple[int, ...] = (1, 2, 4, 8, 16, 33)
    """Numbers of coefficients."""
    scaled_items: tuple[int, ...] = (4, 16, 64)
    """Numbers of items."""
    scaled_rounds: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of rounds."""
    scaled_problems: int = 4
    """Problems of the loop whose rounds are counted, in one batch."""
    prefix_rounds: int = 24
    """Rounds of the loop whose prefix grows; in four bins."""
    threads: int = 1
    """Threads that torch may use."""
    device: str = "cpu"
    """Torch device; on cuda wall time counts."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision; only in float32 must the lab's rows be the same."""
    seed: int = 0
    """Seed of items, problems and controls."""
    quick: bool = False
    """The smallest sizes, which show that everything runs; they say nothing about cost."""
    out: Path | None = None
    """JSON file to write the rows to."""
    readme: bool = False
    """Write README.md and cost.png beside this module."""


QUICK: dict[str, Any] = {
    "rounds": 1,
    "items": 2,
    "controls": 1,
    "fitted": 8,
    "plain_items": 1,
    "others": 2,
    "cells": 1,
    "batches": (2,),
    "problems": 2,
    "singles": 1,
    "loop_rounds": 2,
    "waits": 1,
    "scaled": (1, 2),
    "scaled_items": (1, 2),
    "scaled_rounds": (1, 2),
    "scaled_problems": 2,
    "prefix_rounds": 4,
}


def check(config: Run) -> None:
    """Raise UserError for sizes that measure nothing, before anything is loaded."""
    for name in QUICK:
        value = getattr(config, name)
        if not value or min(value if isinstance(value, tuple) else (value,)) < 1:
            raise UserError(f"{name}={value} measures nothing; give --{name.replace('_', '-')} 1 or more")
    if not config.only:
        raise UserError(f"no part to run; give --only some of {', '.join(PARTS)}")
    if config.prefix_rounds % BINS:
        raise UserError(f"prefix_rounds={config.prefix_rounds} is no multiple of {BINS}; choose one that is")
    if "scaling" in config.only and max(config.scaled_items) > config.items:
        raise UserError(f"scaled_items={max(config.scaled_items)} is above items={config.items}; choose fewer")
    if config.readme and (config.quick or set(config.only) < {*PARTS}):
        raise UserError("README.md shows every part at sizes that say something; leave --only and --quick out")
