"""Directions of paired differences found without labels, which set only the sign; and a random one."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from torch import Tensor

from corrector.errors import UserError
from probes.directions.direction import Direction, mean_difference, oriented, paired_differences

RESTARTS, MAX_ITERATIONS = 10, 1000
"""Of the clustering; each step raises Σ |dᵢ·u|, so it ends."""


def lat(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"]) -> Direction:
    """Linear artificial tomography: v = (Δ·u) u, u the first component of the paired differences ±(h⁺ - h⁻), uncentred.

    Taking each difference with both signs makes their mean zero, so that nothing is subtracted: u is the first right
    singular vector of the differences. (Centring differences of one fixed order subtracts the very signal.) The sign
    is set by Δ = mean(h⁺) - mean(h⁻) of the training data, and the length is Δ's projection, so a coefficient means
    what it means for diff_means. Raises UserError as diff_means does, and where Δ·u = 0. Source: 2310.01405, changed.
    """
    mean_difference(pos, neg)
    _, _, rows = torch.linalg.svd(paired_differences(pos, neg, "lat"), full_matrices=False)
    return oriented(rows[0], pos, neg, "lat", sign_identified=False)


def pair_order(n: int, seed: int) -> Int[Tensor, " n"]:
    """The shuffle of lat_repe: +1 where a pair keeps its order (h⁺, h⁻), -1 where it is turned round; coin by coin."""
    return 2 * torch.randint(0, 2, (n,), generator=torch.Generator().manual_seed(seed)) - 1


def lat_repe(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], seed: int = 0) -> Direction:
    """LAT as published: u = PCA(1) of dᵢ - d̄, dᵢ = ±(h⁺ᵢ - h⁻ᵢ) in the order that a coin gave the pair.

    The sign is a vote of the training pairs, +1 where h⁺ projects higher in as many as it projects lower (a tie of
    one pair counts for both), so it can differ from the sign of Δ·u; ‖v‖ = |Δ·u|. `scores` are the published
    (h - d̄)·v / ‖v‖, with d̄ the mean of the shuffled differences as `origin`. d̄ is near Δ/√n, so what centring takes
    away depends on the shuffle; `lat` does without. Full SVD in place of scikit-learn's choice, which at this size
    may be a randomised one. Raises UserError as lat does, and below two pairs. Source: 2310.01405 and its code.
    """
    mean_difference(pos, neg)
    differences = paired_differences(pos, neg, "lat_repe")
    if len(differences) < 2:
        raise UserError("lat_repe subtracts the mean of the differences and got one pair; give two pairs at least")
    shuffled = pair_order(len(differences), seed)[:, None] * differences
    centre = shuffled.mean(0)
    (first,) = np.asarray(PCA(1, svd_solver="full").fit((shuffled - centre).numpy()).components_)
    u = torch.from_numpy(first)
    high, low = ((h.double() - centre) @ u for h in (pos, neg))
    vote = float((high >= low).double().mean() - (high <= low).double().mean())
    return oriented(u, pos, neg, "lat_repe", -1 if vote < 0 else 1, sign_identified=False, origin=centre)


def cluster_mean(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], seed: int = 0) -> Direction:
    """Centroid of 2-means on the paired differences, each taken with both signs:  u ∝ Σ sign(dᵢ·u) dᵢ.

    The unlabelled clustering of the paper (K-means on differences). (What the paper's code calls cluster_mean has the
    labels and is diff_means.) Both signs, since differences of one fixed order form one cluster; then the centroids
    are mirror images, and are kept so, since a few long differences could else have a cluster to themselves. It is
    lat with every pair counted by its length, not its square: the u with the largest Σ |dᵢ·u|. The best of ten starts
    at seeded differences; sign by Δ. Raises UserError as lat does. Source: 2310.01405, section 3.1; Kwak 2008.
    """
    mean_difference(pos, neg)
    differences = paired_differences(pos, neg, "cluster_mean")
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, len(differences), (RESTARTS,), generator=generator)
    side = _sides(differences @ differences[starts].T)
    for _ in range(MAX_ITERATIONS):
        centroids = differences.T @ side
        moved = _sides(differences @ centroids)
        if torch.equal(moved, side):
            break
        side = moved
    else:
        raise UserError(f"cluster_mean did not settle in {MAX_ITERATIONS} steps; use lat")
    return oriented(centroids[:, centroids.norm(dim=0).argmax()], pos, neg, "cluster_mean", sign_identified=False)


def random_direction(d: int, norm: float, generator: torch.Generator) -> Direction:
    """A direction uniform on the sphere of radius `norm` in d dimensions: a null direction."""
    v = torch.randn(d, generator=generator, dtype=torch.float64)
    return Direction((v * (norm / v.norm())).float(), "random")


def random(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], seed: int = 0) -> Direction:
    """A random axis, with unit and sign from the data as every method has them: the null of a comparison of methods.

    Its norm is the little mean difference that lies along it; for a null of a given norm take `random_direction`.
    """
    axis = random_direction(pos.shape[1], 1.0, torch.Generator().manual_seed(seed)).vector
    return oriented(axis, pos, neg, "random", sign_identified=False)


def _sides(projections: Float[Tensor, "n start"]) -> Float[Tensor, "n start"]:
    """The cluster of every difference, +1 or -1; on the border +1."""
    return torch.where(projections < 0, -1.0, 1.0).to(projections.dtype)
