"""What a coefficient comes to: its share of the residual norm, or the divergence that it causes."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Pair, Task
from steering.operators import IDENTITY_AT_ZERO
from steering.sweeping.cells import Cell, Setting, unsteered_tokens, with_kl
from steering.vectors import SteeringVector

Unit = Literal["natural", "norm", "kl"]
"""natural: multiples of the vector; norm: multiples of mean ‖h‖ along it; kl: nats a token, with the sign kept."""
LARGEST = 64.0
"""Multiple of the vector beyond which no coefficient is looked for."""
TOLERANCE = 0.02
"""Share of the target by which the divergence of a calibrated coefficient may miss it."""
STEPS = 40
"""Bisections at most; each halves the bracket, so that only a jump of the divergence leaves the tolerance unmet."""


def mean_norms(card: Mapping[str, Any]) -> dict[int, float]:
    """Mean ‖h‖ of every layer that a vector's card knows, over both classes of its training contrast."""
    return {int(k): float(row["mean_norm"]) for k, row in card.get("layers", {}).items() if "mean_norm" in row}


def dose(
    vector: Mapping[int, Tensor], layers: Sequence[int], coef: float, norms: Mapping[int, float], operator: str = "add"
) -> float | None:
    """|coef|·‖v‖ / mean‖h‖, the largest of the steered layers; 0 at coefficient 0 where that is no steering.

    None where a layer's mean ‖h‖ is not known, and for operators other than `add`, which do not write coef·v.
    """
    if coef == 0 and operator in IDENTITY_AT_ZERO:
        return 0.0
    if operator != "add" or any(k not in norms for k in layers):
        return None
    return max(abs(coef) * float(vector[k].norm()) / norms[k] for k in layers)


def in_norms(vector: SteeringVector) -> SteeringVector:
    """The vector with norm mean ‖h‖ at every layer, so that coefficient c writes c·mean‖h‖·v/‖v‖.

    Raises UserError where the card lacks a layer's mean ‖h‖.
    """
    norms = mean_norms(vector.card)
    if missing := [k for k in vector.layers if k not in norms]:
        raise UserError(f"the vector's card has no mean_norm of layer {missing[0]}; extract it anew, or --coef-unit kl")
    directions = {k: v * (norms[k] / float(v.norm())) for k, v in vector.directions.items()}
    return dataclasses.replace(vector, directions=directions)


class Calibration:
    """Coefficients of equal divergence, on the pairs that it is given (validation pairs, never test ones).

    The divergence of a cell is the mean over pairs of KL(unsteered ‖ steered), nats a token of the unsteered output.
    """

    def __init__(self, lm: LanguageModel, task: Task, pairs: Sequence[Pair]) -> None:
        self.lm, self.pairs = lm, pairs
        self.tokens = unsteered_tokens(lm, task, pairs)

    def kl(self, vector: Any, coef: float, setting: Setting) -> float:
        """Mean KL a token of one vector at one coefficient."""
        rows = with_kl(self.lm, self.pairs, [{} for _ in self.pairs], self.tokens, Cell("", coef, vector), setting)
        return statistics.fmean(row["kl"] for row in rows)

    def coef(self, vector: Any, setting: Setting, target: float) -> float:
        """The coefficient of |target| nats, on the side of target's sign; UserError where none is found."""
        side = math.copysign(1.0, target)
        return side * bracketed(lambda size: self.kl(vector, side * size, setting), abs(target))


def iso_kl(
    lm: LanguageModel, task: Task, pairs: Sequence[Pair], vector: Any, setting: Setting, target_kl: float
) -> float:
    """The coefficient at which a vector causes |target_kl| nats a token on these pairs; its sign is the target's.

    Found as `bracketed` says, within TOLERANCE of the target. Raises UserError as that does.
    """
    return Calibration(lm, task, pairs).coef(vector, setting, target_kl)


def bracketed(f: Callable[[float], float], target: float) -> float:
    """The least size > 0 found with f(size) = target, f(0) = 0, by doubling to a bracket and bisecting in it.

    f need not be monotone: the bracket is the first doubling at which it passes the target, and within a bracket a
    crossing always exists where f is continuous. Raises UserError for a target that is not above 0, where f stays
    below it up to LARGEST, and where f jumps over it.
    """
    if not 0 < target < math.inf:
        raise UserError(f"target KL={target:g} is not a finite number above 0; give --coef in nats a token")
    low, high = 0.0, 2.0**-6
    reached: list[tuple[float, float]] = []
    while (value := f(high)) < target:
        reached.append((value, high))
        if high >= LARGEST:
            most, at = max(reached)
            raise UserError(
                f"a KL of {target:g} nats a token is not reached up to {LARGEST:g} times the vector, where the largest "
                f"is {most:.3g} at {at:g}; choose smaller --coef, or another --coef-unit"
            )
        low, high = high, 2 * high
    middle = high
    for _ in range(STEPS):
        if abs(value - target) <= TOLERANCE * target:
            return middle
        middle = (low + high) / 2
        value = f(middle)
        low, high = (middle, high) if value < target else (low, middle)
    raise UserError(
        f"the KL jumps over {target:g} nats a token near {middle:.4g} times the vector (to {value:.3g}); "
        "choose other --coef, or another --coef-unit"
    )
