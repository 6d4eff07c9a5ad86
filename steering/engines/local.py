"""The engine of one process: block after block, in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence

from steering.sweeping.grid import Grid
from steering.sweeping.plan import Sweep
from steering.sweeping.rows import Block, Row, compute
from steering.sweeping.work import Work

Results = Generator[tuple[Block, list[Row]]]
Engine = Callable[[Sweep, Mapping[str, Work], Mapping[str, Grid], Sequence[Block]], Results]
"""Computes blocks and gives each with its rows once it is done, in whatever order that is."""


def in_order(config: Sweep, works: Mapping[str, Work], grids: Mapping[str, Grid], todo: Sequence[Block]) -> Results:
    """One block after the other, with the models that are loaded already."""
    for block in todo:
        yield block, compute(config, works[block.task], grids[block.task], block)
