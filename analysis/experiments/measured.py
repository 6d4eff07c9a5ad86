"""What a run of `analysis.ablations` measured: a table of seeds and problems for every variant and measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from analysis.experiments.variants import COEFS
from analysis.rounds import LENGTH
from corrector.statistics import item_slopes

Row = dict[str, Any]
AUROC, SLOPE, RANDOM = "auroc", "slope", "random slope"
EDITS: dict[str, Callable[[Row], float | None]] = {
    "edit_ratio": lambda r: float(r["edit_ratio"]),
    "copied_good": lambda r: float(r["copied"]) if r["clear"] == "good" else None,
    "rewritten_bad": lambda r: float(not r["copied"]) if r["clear"] == "bad" else None,
    "false_rewrite": lambda r: float(not r["copied"]) if r["is_wrong"] is False else None,
    "missed_rewrite": lambda r: float(r["copied"]) if r["is_wrong"] is True else None,
    "well_formed": lambda r: float(r["well_formed"]),
    "valid": lambda r: float(r["valid"]),
}
"""Measures of test pairs, one value a pair (None: it has no part in the measure)."""


@dataclass(frozen=True)
class Measured:
    """One measure of one variant: a row a seed, a column a problem."""

    seeds: tuple[int, ...]
    problems: tuple[str, ...]
    values: Float[ndarray, "seed problem"]

    def less(self, base: Measured) -> Measured | None:
        """The difference to another where both have seed and problem; None where they share none."""
        seeds = tuple(s for s in self.seeds if s in base.seeds)
        problems = tuple(p for p in self.problems if p in {*base.problems})
        if not seeds or not problems:
            return None
        own, other = (m.values[np.ix_(_at(m.seeds, seeds), _at(m.problems, problems))] for m in (self, base))
        return Measured(seeds, problems, own - other)


def _at(every: Sequence[Any], wanted: Sequence[Any]) -> list[int]:
    index = {x: i for i, x in enumerate(every)}
    return [index[x] for x in wanted]


def measured(of: Mapping[int, Mapping[str, float | None]]) -> Measured | None:
    """Values by seed and problem as a table over the problems that every seed has a value of; None without any."""
    seeds = tuple(of)
    problems = tuple(p for p in of[seeds[0]] if all(of[s].get(p) is not None for s in seeds))
    if not problems:
        return None
    return Measured(seeds, problems, np.array([[of[s][p] for p in problems] for s in seeds], dtype=float))


def auroc_parts(
    rewritten: Float[ndarray, " problem"], copied: Float[ndarray, " problem"]
) -> Float[ndarray, " problem"]:
    """What each matched pair adds to the AUROC: their mean is the AUROC itself, and their spread its variance.

    With w(x, y) = 1, 1/2 or 0 for x above, equal to or below y, pair i has mean_j w(rewritten_i, copied_j) +
    mean_j w(rewritten_j, copied_i) - AUROC. Source: DeLong et al. 1988, the structural components of paired samples.
    """
    wins = (rewritten[:, None] > copied) + 0.5 * (rewritten[:, None] == copied)
    return wins.mean(1) + wins.mean(0) - wins.mean()


def tables(files: Mapping[str, Sequence[Row]], outcomes: Sequence[str]) -> dict[str, dict[str, Measured]]:
    """Every measure of every variant: variant, then measure.

    `gain_<outcome>` is the loop's outcome less that of the upstream alone on the same problem; `slope` that of the
    edit ratio over COEFS along the direction, `random slope` that of the steepest of the random ones, both by problem.
    """
    rows = {name: _by_variant(files[name]) for name in files}
    alone = {(r["variant"], r["problem"]): r["outcomes"] for r in files["answers"] if r["seed"] is None}
    out: dict[str, dict[str, Measured]] = {}
    for variant in dict.fromkeys(r["variant"] for r in files["models"]):
        found: dict[str, Measured | None] = {}
        if edits := rows["edits"].get(variant):
            found |= {name: _each(edits, value) for name, value in EDITS.items()}
        if answers := rows["answers"].get(variant):
            found |= _loop(answers, {p: of for (v, p), of in alone.items() if v == variant}, outcomes)
        if pairs := rows["directions"].get(variant):
            found[AUROC] = measured({s: _auroc(mine) for s, mine in pairs.items()})
        if steered := rows["steered"].get(variant):
            found[SLOPE] = measured({s: _slopes(mine)[0] for s, mine in steered.items()})
            found[RANDOM] = measured({s: _slopes(mine)[1] for s, mine in steered.items()})
        out[variant] = {name: table for name, table in found.items() if table is not None}
    return out


BySeed = Mapping[int, Sequence[Row]]


def _by_variant(rows: Sequence[Row]) -> dict[str, BySeed]:
    out: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        if row["seed"] is not None:
            out.setdefault(row["variant"], {}).setdefault(row["seed"], []).append(row)
    return {**out}


def _each(rows: BySeed, value: Callable[[Row], float | None]) -> Measured | None:
    return measured({seed: {r["problem"]: value(r) for r in mine} for seed, mine in rows.items()})


def _loop(
    answers: BySeed, alone: Mapping[str, Mapping[str, float]], outcomes: Sequence[str]
) -> dict[str, Measured | None]:
    out: dict[str, Measured | None] = {}
    for name in outcomes:
        out[name] = _each(answers, lambda r, name=name: r["outcomes"][name])
        out[f"gain_{name}"] = _each(answers, lambda r, name=name: r["outcomes"][name] - alone[r["problem"]][name])
    return {**out, LENGTH: _each(answers, lambda r: float(r[LENGTH]))}


def _auroc(rows: Sequence[Row]) -> dict[str, float | None]:
    parts = auroc_parts(*(np.array([r[side] for r in rows], dtype=float) for side in ("rewritten", "copied")))
    return dict(zip([r["problem"] for r in rows], parts.tolist(), strict=True))


def _slopes(rows: Sequence[Row]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """By problem: the slope along the direction, and that of the steepest random one, turned so that it rises."""
    problems = [r["problem"] for r in rows]
    by_name = {
        name: item_slopes(COEFS, np.array([r["edit_ratio"][name] for r in rows])) for name in rows[0]["edit_ratio"]
    }
    own = by_name.pop("correction")
    null = max(by_name.values(), key=lambda slopes: abs(float(slopes.mean())))
    null = null * (1 if null.mean() >= 0 else -1)
    return dict(zip(problems, own.tolist(), strict=True)), dict(zip(problems, null.tolist(), strict=True))
