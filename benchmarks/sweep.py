"""The sweep's edits: all cells at once against cell after cell, in the lab and in other libraries."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks import baselines
from benchmarks.bed import Bed
from benchmarks.others import Others
from benchmarks.results import Row, rows_of
from benchmarks.timing import Contestant, Times, Work, race
from corrector.decoding import PLAIN
from steering.sweeping.crossing import cross, unsteered

LAB = "lab, edits and KL"


def lab(b: Bed, plain: bool, of: int, _: int) -> Work:
    """All cells of the bed's pairs by the lab; `of` items in all, of which these are taken evenly."""
    step = max(of // len(b.pairs), 1)
    start = unsteered(b.lm, b.task, b.pairs, tricks=PLAIN if plain else None)
    found = cross(b.lm, b.task, b.pairs, b.cells, b.setting, start)
    rows: dict[Hashable, Any] = {
        (c, row["item"] * step): (row["correction"], row["kl"]) for c, rows in enumerate(found) for row in rows
    }
    return Work(len(rows), rows)


def measure(
    b: Bed, plain_items: int, other_items: int, n_cells: int, batches: Sequence[int], rounds: int, strict: bool
) -> list[Row]:
    """Rows of the sweep's table; costs are per row (one pair in one cell)."""
    n, m = len(b.pairs), len(b.cells)
    few, part = b.first(min(plain_items, n)), b.first(min(other_items, n))
    targets = unsteered(b.lm, b.task, part.pairs, tricks=PLAIN).targets
    sizes = [size for size in batches if size <= len(part.pairs)] or [min(batches)]
    best = baselines.fastest(sizes, lambda size: Others(part, 1, size, targets).hook(False, 0))
    others = Others(part, n_cells, best, targets, max(n // len(part.pairs), 1))
    # as many items as fill one batch
    short = part.first(min(best, len(part.pairs)))
    one = Others(short, n_cells, best, [], others.step * max(len(part.pairs) // len(short.pairs), 1))
    sequences = [others.sequences(r) for r in range(rounds)]
    bare_best = baselines.fastest(sizes, lambda size: baselines.bare(b.lm, sequences[0], size))

    def limit(r: int) -> Work:
        baselines.bare(b.lm, sequences[r], bare_best)
        return Work(len(sequences[r]))

    cells = f"{len(others.sample(0))} of {m} cells a round"
    how = f"batch {best}, best of {', '.join(map(str, sizes))}; {cells} x {len(part.pairs)} items"
    how_one = f"batch {best}; {cells} x {len(short.pairs)} items"
    contestants = [
        Contestant(LAB, partial(lab, b, False, n), f"{m} cells x {n} items, all"),
        Contestant("lab without tricks, edits and KL", partial(lab, few, True, n), f"x {len(few.pairs)} items", True),
        Contestant("HF generate + hook, edits only", partial(others.hook, False), how),
        Contestant("HF generate + hook, edits and KL", partial(others.hook, True), how),
        Contestant(
            "TransformerLens generate, edits only",
            partial(one.library, "transformer_lens"),
            f"{how_one}; runs every row to the last token allowed",
        ),
        Contestant("nnsight generate, edits only", partial(one.library, "nnsight"), how_one),
        Contestant("bare forward of all tokens", limit, f"batch {bare_best}; rows of HF"),
    ]
    _warm_up(few, batches, targets)
    times = race(contestants, rounds, str(b.lm.device), "sweep")
    where = f"{b.lm.ref}, {m} cells x {n} items; the sampled outputs are {_longer(times):.2f} times as long as all"
    return rows_of("sweep", where, "ms a row", contestants, times, str(b.lm.device), strict)


def _longer(times: Mapping[str, Times]) -> float:
    """Mean length of the texts that HF generate was measured on, over that of all."""
    found = times[LAB].found
    sampled = [found[key] for key in times["HF generate + hook, edits only"].found]
    mine, whole = (statistics.fmean(len(text) for text, _ in rows) for rows in (sampled, found.values()))
    return mine / whole


def _warm_up(few: Bed, batches: Sequence[int], targets: list[tuple[int, ...]]) -> None:
    """Every library's first use, which imports and copies, on two pairs."""
    tiny = few.first(2)
    others = Others(tiny, 1, min(batches), targets[:2])
    others.library("transformer_lens", 0)
    others.library("nnsight", 0)
    lab(tiny, False, 2, 0)
