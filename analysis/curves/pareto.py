"""Pareto fronts of edit amount against outcome, and resamples of questions that both sides share."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from corrector.errors import UserError

RESAMPLES = 2000
TAIL = 0.025
"""Below and above the 95 % intervals; a point on the front in fewer resamples than this is called dominated."""


@dataclass(frozen=True)
class Measured:
    """A number of every unit at every coefficient, and the question that each unit belongs to."""

    values: Float[ndarray, "unit coef"]
    groups: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.groups) or not len(self.groups):
            raise UserError(f"values of shape {self.values.shape} for {len(self.groups)} questions; give one row each")


def resampled(*sides: Measured, n_resamples: int = RESAMPLES, seed: int = 0) -> list[Float[ndarray, "resample coef"]]:
    """Means of every side under the same resamples of questions, drawn with replacement; nan where none is drawn.

    A question that two sides share is drawn for both, so that what they have in common cancels in comparisons.
    Source: Field & Welsh 2007, the cluster bootstrap.
    """
    index: dict[Hashable, int] = {}
    codes = [np.array([index.setdefault(g, len(index)) for g in side.groups]) for side in sides]
    n = len(index)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_resamples).astype(float)
    out: list[ndarray] = []
    for side, code in zip(sides, codes, strict=True):
        w = weights[:, code]
        with np.errstate(invalid="ignore"):
            out.append((w @ side.values) / w.sum(1, keepdims=True))
    return out


def front(cost: Float[ndarray, "*many coef"], gain: Float[ndarray, "*many coef"]) -> Bool[ndarray, "*many coef"]:
    """Which points no other dominates: none costs no more and gains no less, one of the two strictly.

    Points that are equal in both do not dominate each other.
    """
    costs_less = cost[..., None, :] - cost[..., :, None]  # [i, j]: cost of j less cost of i
    gains_more = gain[..., None, :] - gain[..., :, None]
    dominates = (costs_less <= 0) & (gains_more >= 0) & ((costs_less < 0) | (gains_more > 0))
    return np.asarray(~dominates.any(-1))


def pareto(coefs: Sequence[float], cost: Measured, gain: Measured, seed: int = 0) -> list[dict[str, Any]]:
    """A row a coefficient: means of cost and gain with 95 % intervals, whether it is on the front, how surely.

    `share_on_front` is the share of resamples of questions in which it is on the front; `dominated_by` names the
    coefficients that dominate the means; `verdict` is front, front within error, dominated within error or dominated
    (on the front in under 2.5 % of resamples). What is alike in every question has no spread under the bootstrap, so
    an outcome at its ceiling makes the verdict follow the cost alone.
    """
    means = [side.values.mean(0) for side in (cost, gain)]
    drawn = resampled(cost, gain, seed=seed)
    whole = ~np.isnan(drawn[0] + drawn[1]).any(1)  # a resample may hold no question of one side
    drawn = [side[whole] for side in drawn]
    on, shares = front(means[0], means[1]), front(drawn[0], drawn[1]).mean(0)
    bounds = [np.quantile(side, [TAIL, 1 - TAIL], axis=0) for side in drawn]
    rows: list[dict[str, Any]] = []
    for i, coef in enumerate(coefs):
        pairs = [np.array([side[i], side[j]]) for side in means for j in range(len(coefs))]
        by = [c for j, c in enumerate(coefs) if not front(pairs[j], pairs[len(coefs) + j])[0]]
        row: dict[str, Any] = {"coef": coef}
        for name, side, (low, high) in zip(("cost", "gain"), means, bounds, strict=True):
            row |= {name: float(side[i]), f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
        share = float(shares[i])
        sure = "front" if share >= 1 - TAIL else "front within error"
        beaten = "dominated" if share < TAIL else "dominated within error"
        row |= {"on_front": bool(on[i]), "share_on_front": share, "dominated_by": by}
        rows.append({**row, "verdict": sure if on[i] else beaten})
    return rows
