"""Null directions: what a steering curve must be told apart from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch

from probes.directions import random_direction
from steering.vectors import SteeringVector


def random_controls(
    vector: SteeringVector, layers: Sequence[int], n: int, seed: int
) -> dict[str, dict[int, torch.Tensor]]:
    """Isotropic directions `random-00`, ... (n of them) with the norm of `vector` at each layer.

    Each is drawn from (seed, model, name, layer), so it depends on no other control and no order.
    """
    out: dict[str, dict[int, torch.Tensor]] = {}
    for i in range(n):
        name = f"random-{i:02d}"
        out[name] = {}
        for layer in layers:
            identity = f"{seed}/{vector.fingerprint}/{name}/{layer}"
            digest = hashlib.sha256(identity.encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
            v = vector.at(layer)
            out[name][layer] = random_direction(len(v), float(v.norm()), generator).vector
    return out
