"""How answers grow with corrected rounds: length against k of runs of `analysis.rounds`, without answering again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.claims.found import Found, finding
from analysis.rounds import LENGTH, load_answers, values
from corrector.records import read_json
from corrector.statistics import bootstrap_mean, item_slopes

Row = dict[str, Any]
VERBOSITY = "ablation/verbosity"
"""Begins the keys of these findings."""


def verbosity(runs: Sequence[str | Path]) -> tuple[list[Row], list[Found]]:
    """Points, one a run, corrector, mode and k, of `tokens` with its interval; and the slope of each curve.

    The slope is in tokens a round over k = 0..R by least squares, problem by problem, its interval from resampling
    problems; answers of which all rounds are corrected (k None) have no number of rounds, so are points only.
    """
    points, found = list[Row](), list[Found]()
    for run in runs:
        rows, about = load_answers(run)
        seed = int(read_json(Path(run), "config")["seed"])
        for who in about:
            mine = [r for r in rows if (r["task"], r["corrector"]) == (who["task"], who["corrector"])]
            for mode in dict.fromkeys(r["mode"] for r in mine):
                by_k = values([r for r in mine if r["mode"] == mode], LENGTH)
                name = {
                    "run": Path(run).resolve().name,
                    "task": who["task"],
                    "corrector": who["corrector"],
                    "mode": mode,
                }
                for k, tokens in by_k.items():
                    mean = bootstrap_mean(tokens, seed=seed)
                    points.append({**name, "k": k, "n": mean.n, "mean": mean.mean, "low": mean.low, "high": mean.high})
                ks = [k for k in by_k if k is not None]
                slopes = item_slopes(ks, np.array([by_k[k] for k in ks]).T)
                key = f"{VERBOSITY} {who['task']} {mode}/tokens a round"
                note = f"slope over k = {ks[0]}..{ks[-1]}, run {name['run']}"
                found.append(finding(key, who["corrector"], slopes, seed, note))
    return points, found
