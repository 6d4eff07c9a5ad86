"""Where projections are counted from: numbers that a vector's card keeps of every layer, for `clamp` and for gates.

`origin` is m·u, m midway between the class means of the training contrast, u = v / ‖v‖: what coefficient 0 of `clamp`
sets. `threshold` is the h·u above which h is called positive: the method's own where it has one, else m·u.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError
from probes.capture import Activations
from steering.vectors import SteeringVector

Origins = Mapping[str, Mapping[int, float]]
"""Of every direction by name, the projection at each layer that coefficient 0 of `clamp` sets."""
NEEDED_BY = {"origin": "--operator clamp", "threshold": "--gate"}


def middle(pos: Activations, neg: Activations, layer: int) -> Float[Tensor, " d"]:
    """Midway between the class means at a layer, float64."""
    return (pos.at(layer).double().mean(0) + neg.at(layer).double().mean(0)) / 2


def along(point: Float[Tensor, " d"], v: Float[Tensor, " d"]) -> float:
    """point·u, u = v / ‖v‖, in float64."""
    wide = v.double()
    return float(point.double() @ wide / torch.linalg.vector_norm(wide))


def of_card(vector: SteeringVector, layer: int, name: Literal["origin", "threshold"]) -> float:
    """One of the numbers of a layer; UserError where the card has none, as those of older or combined vectors."""
    value = vector.card.get("layers", {}).get(str(layer), {}).get(name)
    if value is None:
        raise UserError(
            f"the vector's card has no {name} of layer {layer}, which {NEEDED_BY[name]} needs; extract the vector anew "
            "with python -m steering.extract, or leave --vector out"
        )
    return float(value)


def own_origins(vector: SteeringVector, layers: Sequence[int]) -> dict[int, float]:
    """The vector's own origin at each of some layers; UserError where its card lacks one."""
    return {k: of_card(vector, k, "origin") for k in layers}
