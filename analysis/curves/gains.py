"""Outcomes and costs of a run of analysis.sizes, by corrected rounds, training seed and problem; and convergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analysis.rounds import load_answers
from corrector.errors import UserError
from corrector.statistics import crossed_means

Row = dict[str, Any]
Columns = Float[ndarray, "k seed problem"]
SHARE = 0.9
"""Of the gain of all rounds: a corrector has converged at the first k that reaches it."""
RESAMPLES = 2000


def load_sizes(run: str | Path) -> tuple[list[Row], list[list[Row]]]:
    """Rows of a run, and what is said of the correctors of each size, one a training seed, the smallest first."""
    rows, correctors = load_answers(run)
    if not all("size" in c for c in correctors):
        raise UserError(f"{run} was written before sizes had training seeds; delete it and run its command again")
    sizes: dict[str, list[Row]] = {}
    for c in correctors:
        sizes.setdefault(c["size"], []).append(c)
    if mixed := [size for size, of in sizes.items() if len({c["n_parameters"] for c in of}) > 1]:
        raise UserError(f"{mixed[0]} holds correctors of different size; join by commas those of one size only")
    return rows, sorted(sizes.values(), key=lambda of: of[0]["n_parameters"])


def columns(rows: Sequence[Row], of_size: Sequence[Row]) -> dict[str, Columns]:
    """Outcomes and costs of the correctors of one size; k ascends, all rounds last; problems in the run's order.

    `seconds` are of those that were measured in this run, so may have fewer seeds, or be absent; nothing else may lack.
    """
    by_seed = [_columns([r for r in rows if r["corrector"] == c["corrector"]], c) for c in of_size]
    timed = [of["seconds"] for of, c in zip(by_seed, of_size, strict=True) if c["source"] == "run"]
    out = {name: np.stack([of[name] for of in by_seed], axis=1) for name in by_seed[0] if name != "seconds"}
    return out | ({"seconds": np.stack(timed, axis=1)} if timed else {})


def _columns(rows: Sequence[Row], told_of: Row) -> dict[str, Float[ndarray, "k problem"]]:
    ks = list(dict.fromkeys(r["k"] for r in rows))
    of = [[r for r in rows if r["k"] == k] for k in ks]
    out = {name: np.array([[r["outcomes"][name] for r in at] for at in of], float) for name in told_of["outcomes"]}
    out["seconds"] = np.array([[np.nan if r["seconds"] is None else r["seconds"] for r in at] for at in of])
    fed = [[_work(r, told_of) for r in at] for at in of]
    return out | {"work": np.array(fed) / 1e6}


def _work(row: Row, told_of: Row) -> float:
    return float(row["upstream_tokens"] * told_of["n_upstream"] + row["corrector_tokens"] * told_of["n_parameters"])


def converged(gains: Columns, seed: int = 0) -> tuple[int, ndarray]:
    """First k whose mean gain is SHARE of the last one's, and the same of resampled seeds and problems, [resample].

    `gains` of k = 0, 1, ..., all; the last counts as k = its position.
    """
    means = np.stack([crossed_means(g, RESAMPLES, seed) for g in gains])
    return _first(gains.mean((1, 2))[:, None])[0], np.array(_first(means))


def _first(means: Float[ndarray, "k draw"]) -> list[int]:
    return [int(np.argmax(column >= SHARE * column[-1] - 1e-12)) for column in means.T]
