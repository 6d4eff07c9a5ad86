"""How cost grows: with the number of coefficients, of items, and of rounds of the loop (for prefixes see `prefix`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks import baselines, sweep
from benchmarks.bed import Bed
from benchmarks.loop import Stage, measured
from benchmarks.others import Others
from benchmarks.results import Row, rows_of
from benchmarks.timing import Contestant, race
from corrector.decoding import PLAIN
from steering.controls import Battery
from steering.sweeping.crossing import unsteered

CELLS = 4
"""Cells a round on which HF generate is measured, where there are as many."""
REACH = 2.0
"""Coefficients go from minus this to this."""


def coefficients(b: Bed, counts: Sequence[int], batches: Sequence[int], rounds: int) -> list[Row]:
    """Cost a row against the number of coefficients of one vector, by the lab and by HF generate + hook."""
    beds: dict[float, Bed] = {}
    for m in counts:
        coefs = tuple(float(c) for c in torch.linspace(-REACH, REACH, m + 1) if abs(c) > 1e-6)[:m]
        beds[m] = replace(b, grid=replace(b.grid, coefs=coefs, battery=Battery()))
    return _edits("coefficients", f"{len(b.pairs)} items", beds, batches, rounds)


def items(b: Bed, counts: Sequence[int], batches: Sequence[int], rounds: int) -> list[Row]:
    """Cost a row against the number of items, at the bed's coefficients of one vector."""
    beds: dict[float, Bed] = {n: replace(b.first(n), grid=replace(b.grid, battery=Battery())) for n in counts}
    return _edits("items", f"{len(b.grid.coefs)} coefficients", beds, batches, rounds)


def _edits(what: str, setting: str, beds: dict[float, Bed], batches: Sequence[int], rounds: int) -> list[Row]:
    out: list[Row] = []
    wide = beds[max(beds)]
    sizes = [size for size in batches if size <= len(wide.pairs)] or [min(batches)]
    best = baselines.fastest(sizes, lambda size: Others(wide, 1, size, []).hook(False, 0), tries=1)
    for x, b in beds.items():
        targets = unsteered(b.lm, b.task, b.pairs, tricks=PLAIN).targets
        others = Others(b, CELLS, min(best, len(b.pairs)), targets)
        how = f"batch {others.batch_size}; {len(others.sample(0))} cells a round"
        contestants = [
            Contestant("lab, edits and KL", partial(sweep.lab, b, False, len(b.pairs)), f"{len(b.cells)} cells"),
            Contestant("HF generate + hook, edits and KL", partial(others.hook, True), how),
        ]
        device = str(b.lm.device)
        times = race(contestants, rounds, device, f"{x:g} {what}")
        where = f"{what}, {setting}"
        out += rows_of("scaling", where, "ms a row", contestants, times, device, strict=False, x=x)
    return out


def rounds_of_loop(s: Stage, counts: Sequence[int], n: int, rounds: int, seed: int, strict: bool) -> list[Row]:
    """Cost a round and row against the number of rounds, greedy, n problems in one batch."""
    out: list[Row] = []
    for k in counts:
        found = measured(replace(s, rounds=k), n, n, 0.0, rounds, seed, strict)
        out += [replace(row, part="scaling", setting=f"rounds, batch {n}", x=k) for row in found]
    return out
