"""What a fit returns: a frozen direction of one layer in natural units, and the checks that every method shares."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corrector.errors import UserError

PARALLEL = 1e-6
"""A rest shorter than this share of the direction is rounding, not a direction."""


@dataclass(frozen=True, eq=False)
class Direction:
    """A fitted direction at one layer.

    `vector` is in natural units: its norm is the classes' mean difference along it, so coef 1 adds that difference
    whatever the method. `explained_variance` is the share Σ(dᵢ·u)² / Σ‖dᵢ‖² of the paired differences dᵢ along the
    unit direction u (None: not paired). `sign` is +1, or -1 where the fit had to be flipped to point to correction.

    `sign_identified` is False where the method itself leaves the sign open, so that the training labels set it (lat,
    lat_repe, cluster_mean, ccs, random). `threshold` is the score above which h is called positive: the method's own
    where it has one (logistic), else midway between the class means (None: no classes). `origin` is what is
    subtracted before projecting (lat_repe's mean difference; None: nothing). `loss` is the unsupervised loss of ccs.
    """

    vector: Float[Tensor, " d"]
    method: str
    layer: int = -1
    site: str = ""
    span: str = ""
    explained_variance: float | None = None
    sign: int = 1
    sign_identified: bool = True
    threshold: float | None = None
    origin: Float[Tensor, " d"] | None = None
    loss: float | None = None

    @property
    def norm(self) -> float:
        return float(self.vector.norm())

    @property
    def unit(self) -> Float[Tensor, " d"]:
        """The unit direction u = v / ‖v‖."""
        return self.vector / self.vector.norm()

    def scores(self, h: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """(h - origin)·u, the projection on the unit direction; origin is 0 but for lat_repe."""
        return (h if self.origin is None else h - self.origin) @ self.unit

    def predict(self, h: Float[Tensor, "n d"]) -> Bool[Tensor, " n"]:
        """scores(h) > threshold: what is called positive. UserError where the direction has no threshold."""
        if self.threshold is None:
            raise UserError(f"a {self.method} direction has no threshold; fit one of two classes, or compare scores")
        return self.scores(h) > self.threshold


def without(direction: Direction, other: Direction) -> Direction:
    """Project another direction w out of v:  v - (v·u)u, u = w / ‖w‖; what is left keeps its units.

    Raises UserError where the two are of unlike layer, site, span or width, and where nothing is left (parallel).
    """
    places = [(d.layer, d.site, d.span, len(d.vector)) for d in (direction, other)]
    if places[0] != places[1]:
        raise UserError(f"without: {places[0]} against {places[1]} (layer, site, span, d); fit both at one place")
    v, w = direction.vector.double(), other.vector.double()
    rest = v - (v @ w) / (w @ w) * w
    if float(rest.norm()) <= PARALLEL * float(v.norm()):
        raise UserError(f"nothing of {direction.method} is left without {other.method}; they are parallel")
    name = f"{direction.method}-without-{other.method}"
    return dataclasses.replace(
        direction, vector=rest.float(), method=name, explained_variance=None, threshold=None, origin=None, loss=None
    )


def mean_difference(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"]) -> Float[Tensor, " d"]:
    """Δ = mean(h⁺) - mean(h⁻) in float64; UserError on empty or non-finite input and where the means are equal."""
    for name, h in (("positives", pos), ("negatives", neg)):
        if len(h) == 0:
            raise UserError(f"no {name} to fit a direction on; give at least one of each class")
        if not torch.isfinite(h).all():
            raise UserError(f"{name} hold a NaN or infinity in row {int((~torch.isfinite(h)).any(1).nonzero()[0])}")
    delta = pos.double().mean(0) - neg.double().mean(0)
    if float(delta.norm()) == 0:
        raise UserError("positives and negatives have the same mean; read at a --span and --site where they differ")
    return delta


def paired_differences(
    pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], method: str
) -> Float[Tensor, "n_pos d"]:
    """h⁺ᵢ - h⁻ᵢ in float64; UserError where the classes are not paired."""
    if len(pos) != len(neg):
        raise UserError(
            f"{method} needs pairs, got {len(pos)} positives and {len(neg)} negatives; match them or diff_means"
        )
    return pos.double() - neg.double()


def oriented(
    axis: Float[Tensor, " d"],
    pos: Float[Tensor, "n_pos d"],
    neg: Float[Tensor, "n_neg d"],
    method: str,
    sign: int | None = None,
    sign_identified: bool = True,
    threshold: float | None = None,
    origin: Float[Tensor, " d"] | None = None,
    loss: float | None = None,
) -> Direction:
    """The direction along an axis u (any length, either sign) in natural units:  v = (Δ·u) u.

    `sign` (of u) replaces the sign of Δ·u where a method is published with its own rule; then v = sign |Δ·u| u.
    `threshold` counts along u as given (None: midway between the class means). UserError where Δ·u = 0.
    """
    u = axis.double() / axis.double().norm()
    delta = mean_difference(pos, neg)
    projection = float(delta @ u)
    if projection == 0:
        raise UserError(f"{method}: what was found does not tell the classes apart; use --method diff_means")
    chosen = sign if sign is not None else (1 if projection > 0 else -1)
    if threshold is None:
        middle = (pos.double().mean(0) + neg.double().mean(0)) / 2
        threshold = float((middle if origin is None else middle - origin.double()) @ u)
    return Direction(
        (chosen * abs(projection) * u).float(),
        method,
        explained_variance=explained(pos.double() - neg.double(), u) if len(pos) == len(neg) else None,
        sign=chosen,
        sign_identified=sign_identified,
        threshold=chosen * threshold,
        origin=None if origin is None else origin.float(),
        loss=loss,
    )


def explained(differences: Float[Tensor, "n d"], u: Float[Tensor, " d"]) -> float:
    """Σ(dᵢ·u)² / Σ‖dᵢ‖², the share of the paired differences that lies along u."""
    return float((differences @ u).square().sum() / differences.square().sum())
