"""The methods by name, and a fit of every captured layer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Literal

from torch import Tensor

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions.consistency import ccs
from probes.directions.direction import Direction
from probes.directions.supervised import diff_means, lda, logistic, rda
from probes.directions.unsupervised import cluster_mean, lat, lat_repe, random

Method = Literal["diff_means", "lat", "lat_repe", "cluster_mean", "logistic", "lda", "rda", "ccs", "random"]

METHODS: dict[str, Callable[[Tensor, Tensor, int], Direction]] = {
    "diff_means": lambda pos, neg, seed: diff_means(pos, neg),
    "lat": lambda pos, neg, seed: lat(pos, neg),
    "lat_repe": lat_repe,
    "cluster_mean": cluster_mean,
    "logistic": lambda pos, neg, seed: logistic(pos, neg),
    "lda": lambda pos, neg, seed: lda(pos, neg),
    "rda": lambda pos, neg, seed: rda(pos, neg),
    "ccs": ccs,
    "random": random,
}
"""Methods that need no more than the two classes: (positives, negatives, seed) to a direction."""

PAIRED = ("lat", "lat_repe", "cluster_mean", "ccs")
"""Methods that read row i of the positives against row i of the negatives."""


def fit(method: str, pos: Activations, neg: Activations, seed: int = 0) -> dict[int, Direction]:
    """A direction of every captured layer, by the name of its method; what it draws depends on (seed, method, layer).

    Raises UserError for an unknown method, activations of unlike layers, sites or spans, pairs of unlike problems where
    the method reads pairs, and as the method does.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r} is not one of {', '.join(METHODS)}; choose --method among them")
    if (pos.layers, pos.site, pos.span) != (neg.layers, neg.site, neg.span):
        raise UserError(
            f"positives were read at {pos.site}, {pos.span}, {pos.layers}, "
            f"negatives at {neg.site}, {neg.span}, {neg.layers}; capture both alike"
        )
    if method in PAIRED and len(pos.ids) == len(neg.ids) and pos.ids != neg.ids:
        raise UserError(f"{method} needs pairs, and positives and negatives name unlike problems; match them by row")
    out: dict[int, Direction] = {}
    for layer in pos.layers:
        try:
            fitted = METHODS[method](pos.at(layer), neg.at(layer), derived_seed(seed, method, layer))
        except UserError as error:
            raise UserError(f"layer {layer}, {pos.site} at {pos.span}: {error}") from error
        out[layer] = dataclasses.replace(fitted, layer=layer, site=pos.site, span=pos.span)
    return out


def derived_seed(seed: int, method: str, layer: int) -> int:
    """A seed below 2³² from the identity of a fit, so that no fit depends on which others ran before it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{method}/{layer}".encode()).digest()[:4])
