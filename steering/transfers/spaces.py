"""Maps between the residual spaces of two models, fitted on unlabelled activations, and vectors carried over them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError
from corrector.models import LanguageModel
from steering.vectors import SteeringVector


@dataclass(frozen=True, eq=False)
class SpaceMap:
    """v -> v W: a direction behind block `layer_from` of one model as one behind `layer_to` of another.

    W is semi-orthogonal (W Wᵀ = 1 or WᵀW = 1), so it turns directions and never stretches them. `how` is `procrustes`
    or `raw`, the identity: the same numbers in the other space.
    """

    w: Float[Tensor, "d_from d_to"]
    how: str
    layer_from: int
    layer_to: int

    def __call__(self, v: Float[Tensor, "*n d_from"]) -> Float[Tensor, "*n d_to"]:
        """The direction (or several) in the other space, computed in float64, float32 on return."""
        return (v.double() @ self.w).float()

    def explained(self, h_from: Float[Tensor, "n d_from"], h_to: Float[Tensor, "m d_to"]) -> float:
        """R² of the map on the same n items read with both models: 1 - ‖s·A W - B‖² / ‖B‖², A and B centred.

        The best scale s is taken, since directions are rescaled anyway, so it is the squared cosine of A W and B, 0
        where they point apart. UserError below two items, or where one side does not vary.
        """
        a, b = _centred(h_from, h_to)
        mapped = a @ self.w
        spread = float(mapped.norm() * b.norm())
        if not spread > 0:
            raise UserError("the activations do not vary over the items, so no map can be judged; read more items")
        return max(0.0, float((mapped * b).sum()) / spread) ** 2


def raw(d_from: int, d_to: int, layer_from: int, layer_to: int) -> SpaceMap:
    """The identity; UserError where the widths differ."""
    if d_from != d_to:
        raise UserError(f"widths {d_from} and {d_to} differ, so no vector fits as it is; map it by procrustes")
    return SpaceMap(torch.eye(d_from, dtype=torch.float64), "raw", layer_from, layer_to)


def procrustes(
    h_from: Float[Tensor, "n d_from"], h_to: Float[Tensor, "m d_to"], layer_from: int, layer_to: int
) -> SpaceMap:
    """W = U Vᵀ of the thin SVD U S Vᵀ = Aᵀ B, with A and B the centred activations of the same n items.

    It maximises tr(Wᵀ Aᵀ B) over semi-orthogonal W; for d_from ≤ d_to this is argmin ‖A W - B‖_F too. No label of the
    items plays a part. Directions in which A does not vary are sent to some that B does not, so read more items than
    the spaces are wide. Raises UserError for unlike or fewer than two items.
    Source: Schönemann 1966.
    """
    a, b = _centred(h_from, h_to)
    u, _, vt = torch.linalg.svd(a.T @ b, full_matrices=False)
    return SpaceMap(u @ vt, "procrustes", layer_from, layer_to)


def mapped(vector: SteeringVector, maps: Iterable[SpaceMap], lm: LanguageModel) -> SteeringVector:
    """The vector as one of `lm`, a layer for each map; its card names the maps and the parent.

    Raises UserError for a layer that the vector lacks, one that two maps write, and (as `check`) a width or depth that
    `lm` has not.
    """
    directions: dict[int, Tensor] = {}
    told: list[dict[str, object]] = []
    for one in maps:
        if one.layer_to in directions:
            raise UserError(f"two maps write layer {one.layer_to}; give one for each layer")
        v = vector.at(one.layer_from)
        if len(v) != len(one.w):
            raise UserError(f"a map of width {len(one.w)} got a vector of width {len(v)}; fit it on the vector's model")
        directions[one.layer_to] = one(v)
        told.append({"how": one.how, "layer_from": one.layer_from, "layer_to": one.layer_to})
    card = {"operation": "mapped", "maps": told, "parents": [vector.record()]}
    whose = {"fingerprint": lm.fingerprint, "template": lm.template.name, "ref": lm.ref}
    out = SteeringVector(directions, vector.method, vector.site, vector.span, **whose, card=card)
    out.check(lm)
    return out


def _centred(h_from: Tensor, h_to: Tensor) -> tuple[Tensor, Tensor]:
    if len(h_from) != len(h_to) or len(h_from) < 2:
        raise UserError(f"a map of {len(h_from)} to {len(h_to)} items; read the same items, two at least, with both")
    a, b = h_from.double(), h_to.double()
    return a - a.mean(0), b - b.mean(0)
