"""Directions: arrays [n, d] of two classes in, a frozen direction of one layer out. Positive = more correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError
from probes.capture import Activations

Method = Literal["diff_means", "lat"]


@dataclass(frozen=True, eq=False)
class Direction:
    """A fitted direction at one layer.

    `vector` is in natural units: its norm is the classes' mean difference along it, so coef 1 adds that difference
    whatever the method. `explained_variance` is the share Σ(dᵢ·u)² / Σ‖dᵢ‖² of the paired differences dᵢ along the
    unit direction u (None: not paired). `sign` is +1, or -1 where the fit had to be flipped to point to correction.
    """

    vector: Float[Tensor, " d"]
    method: str
    layer: int = -1
    site: str = ""
    span: str = ""
    explained_variance: float | None = None
    sign: int = 1

    @property
    def norm(self) -> float:
        return float(self.vector.norm())

    @property
    def unit(self) -> Float[Tensor, " d"]:
        """The unit direction u = v / ‖v‖."""
        return self.vector / self.vector.norm()

    def scores(self, h: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """h·u, the projection on the unit direction."""
        return h @ self.unit


def diff_means(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"]) -> Direction:
    """Difference of means: v = mean(h⁺) - mean(h⁻).

    Raises UserError on empty or non-finite input and where the means are equal. Source: 2310.06824; 2502.02716.
    """
    v = _mean_difference(pos, neg)
    u = v / v.norm()
    explained = _explained(pos.double() - neg.double(), u) if len(pos) == len(neg) else None
    return Direction(v.float(), "diff_means", explained_variance=explained)


def lat(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"]) -> Direction:
    """Linear artificial tomography: v = (Δ·u) u, u the first component of the paired differences ±(h⁺ - h⁻), uncentred.

    Taking each difference with both signs makes their mean zero, so that nothing is subtracted: u is the first right
    singular vector of the differences. (Centring differences of one fixed order subtracts the very signal.) The sign
    is set by Δ = mean(h⁺) - mean(h⁻) of the training data, and the length is Δ's projection, so a coefficient means
    what it means for diff_means. Raises UserError as diff_means does, and where Δ·u = 0. Source: 2310.01405, changed.
    """
    delta = _mean_difference(pos, neg)
    if len(pos) != len(neg):
        raise UserError(f"lat needs pairs, got {len(pos)} positives and {len(neg)} negatives; match them or diff_means")
    differences = pos.double() - neg.double()
    _, _, rows = torch.linalg.svd(differences, full_matrices=False)
    u = rows[0]
    projection = float(delta @ u)
    if projection == 0:
        raise UserError("lat: the first component does not tell the classes apart; use --method diff_means")
    v = (projection * u).float()
    return Direction(v, "lat", explained_variance=_explained(differences, u), sign=1 if projection > 0 else -1)


def random_direction(d: int, norm: float, generator: torch.Generator) -> Direction:
    """A direction uniform on the sphere of radius `norm` in d dimensions: a null direction."""
    v = torch.randn(d, generator=generator, dtype=torch.float64)
    return Direction((v * (norm / v.norm())).float(), "random")


METHODS: dict[str, Callable[[Tensor, Tensor], Direction]] = {"diff_means": diff_means, "lat": lat}


def fit(method: str, pos: Activations, neg: Activations) -> dict[int, Direction]:
    """A direction of every captured layer, by the name of its method.

    Raises UserError for an unknown method, activations of unlike layers, sites or spans, and as the method does.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r} is not one of {', '.join(METHODS)}; choose --method among them")
    if (pos.layers, pos.site, pos.span) != (neg.layers, neg.site, neg.span):
        raise UserError(
            f"positives were read at {pos.site}, {pos.span}, {pos.layers}, "
            f"negatives at {neg.site}, {neg.span}, {neg.layers}; capture both alike"
        )
    out: dict[int, Direction] = {}
    for layer in pos.layers:
        try:
            fitted = METHODS[method](pos.at(layer), neg.at(layer))
        except UserError as error:
            raise UserError(f"layer {layer}, {pos.site} at {pos.span}: {error}") from error
        out[layer] = dataclasses.replace(fitted, layer=layer, site=pos.site, span=pos.span)
    return out


def _mean_difference(pos: Tensor, neg: Tensor) -> Tensor:
    """Δ in float64, checked."""
    for name, h in (("positives", pos), ("negatives", neg)):
        if len(h) == 0:
            raise UserError(f"no {name} to fit a direction on; give at least one of each class")
        if not torch.isfinite(h).all():
            raise UserError(f"{name} hold a NaN or infinity in row {int((~torch.isfinite(h)).any(1).nonzero()[0])}")
    delta = pos.double().mean(0) - neg.double().mean(0)
    if float(delta.norm()) == 0:
        raise UserError("positives and negatives have the same mean; read at a --span and --site where they differ")
    return delta


def _explained(differences: Tensor, u: Tensor) -> float:
    return float((differences @ u).square().sum() / differences.square().sum())
