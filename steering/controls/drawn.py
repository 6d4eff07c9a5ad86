"""Controls that need no data: random directions, alone and orthogonal to the vector, and the vector elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from corrector.errors import UserError
from probes.directions import random_direction
from steering.vectors import SteeringVector

Directions = dict[str, dict[int, torch.Tensor]]
"""A vector for each layer that it is written at, by the control's name."""


def seeded(seed: int, fingerprint: str, name: str, place: int | str) -> torch.Generator:
    """A generator of a control's own identity, so that it depends on no other control and no order."""
    digest = hashlib.sha256(f"{seed}/{fingerprint}/{name}/{place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)


def random_controls(vector: SteeringVector, layers: Sequence[int], n: int, seed: int) -> Directions:
    """Isotropic directions `random-00`, ... (n of them) with the norm of `vector` at each layer.

    Each is drawn from (seed, model, name, layer), so it depends on no other control and no order.
    """
    out: Directions = {}
    for i in range(n):
        name = f"random-{i:02d}"
        out[name] = {}
        for layer in layers:
            v = vector.at(layer)
            generator = seeded(seed, vector.fingerprint, name, layer)
            out[name][layer] = random_direction(len(v), float(v.norm()), generator).vector
    return out


def orthogonal_controls(vector: SteeringVector, layers: Sequence[int], n: int, seed: int) -> Directions:
    """Directions `orthogonal-00`, ... uniform among those orthogonal to `vector` at each layer, with its norm."""
    out: Directions = {}
    for i in range(n):
        name = f"orthogonal-{i:02d}"
        out[name] = {}
        for layer in layers:
            v = vector.at(layer).double()
            drawn = torch.randn(len(v), generator=seeded(seed, vector.fingerprint, name, layer), dtype=torch.float64)
            rest = drawn - (drawn @ v) / (v @ v) * v
            out[name][layer] = (rest * (v.norm() / rest.norm())).float()
    return out


def other_layers(vector: SteeringVector, layers: Sequence[int], n_layers: int) -> Directions:
    """`wrong-layer`: the vector of a steered layer written at another; `other-layer`: another's written where it is.

    With one steered layer the other is the farthest block (the lower of two), the last one aside as in the sweep's
    own choice; `other-layer` is rescaled to the norm at the steered layer, and absent where the vector lacks that
    layer. With several, `wrong-layer` moves each layer's vector on to the next of them. UserError where no other is.
    """
    if len(layers) > 1:
        return {"wrong-layer": {layer: vector.at(layers[i - 1]) for i, layer in enumerate(layers)}}
    (layer,) = layers
    others = [k for k in range(n_layers - 1) if k != layer]
    if not others:
        raise UserError(f"of {n_layers} layers none but the last is left beside layer {layer}")
    far = max(others, key=lambda k: (abs(k - layer), -k))
    v = vector.at(layer)
    out: Directions = {"wrong-layer": {far: v}}
    if far in vector.layers:
        w = vector.at(far)
        out["other-layer"] = {layer: w * (float(v.norm()) / float(w.norm()))}
    return out
