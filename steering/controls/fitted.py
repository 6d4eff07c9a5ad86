"""Controls fitted on the vector's own training contrast: shuffled labels, and the length of the suffix."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from probes.capture import Activations
from probes.directions import Direction, fit, length_direction, without
from steering.controls.drawn import Directions, seeded
from steering.vectors import SteeringVector


def shuffled_controls(
    vector: SteeringVector, pos: Activations, neg: Activations, layers: Sequence[int], n: int, seed: int
) -> Directions:
    """`shuffled-00`, ...: the vector's method on labels shuffled within each matched pair, at the vector's norm.

    A coin for each pair, drawn from (seed, model, name) and the same at every layer, says which side is called
    positive. Where the classes are the strongest axis of the activations, what is left of their difference, rescaled,
    is still near ±v: these are no nulls of chance alone and are reported apart, with their cosine to v.
    """
    out: Directions = {}
    for i in range(n):
        name = f"shuffled-{i:02d}"
        coins = torch.rand(len(pos.h), generator=seeded(seed, vector.fingerprint, name, "labels")) < 0.5
        turned = coins[:, None, None]
        called_pos = dataclasses.replace(pos, h=torch.where(turned, neg.h, pos.h))
        called_neg = dataclasses.replace(neg, h=torch.where(turned, pos.h, neg.h))
        directions = fit(vector.method, called_pos, called_neg, seed)
        out[name] = {k: directions[k].unit * float(vector.at(k).norm()) for k in layers}
    return out


def length_controls(
    vector: SteeringVector, pos: Activations, neg: Activations, lengths: Sequence[int], layers: Sequence[int]
) -> Directions:
    """`length`: the direction of suffix length at the vector's norm; `without-length`: the vector with it taken out.

    `lengths` are of the positives, then of the negatives. What is left in `without-length` keeps its units, so its
    norm tells how much of the vector was length. Raises UserError as `length_direction` and `without` do.
    """
    out: Directions = {"length": {}, "without-length": {}}
    for layer in layers:
        v = vector.at(layer)
        length = length_direction(torch.cat([pos.at(layer), neg.at(layer)]), lengths)
        out["length"][layer] = length.unit * float(v.norm())
        out["without-length"][layer] = without(Direction(v, vector.method), length).vector
    return out
