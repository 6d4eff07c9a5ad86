"""Nulls of an erasure's size: erase what does not carry the concept, as much of it as the concept's eraser moves."""

from __future__ import annotations

import dataclasses

import torch
from concept_erasure import LeaceFitter
from jaxtyping import Bool, Float
from torch import Tensor

from probes.erasure.erasers import TOLERANCE, Eraser, checked, made

SLACK = 0.9
"""Most of what can be erased without the concept that a draw takes, so that there is chance in which part it takes."""
LIMIT = 1.5
"""Largest scale c: beyond 1 states go past the mean, and at 1.5 a quarter, (c - 1)², of the variance is back."""
MATCHED = 0.1
"""How far from the wanted size, as a share of it, a null's size may be and still count as matched."""


@dataclasses.dataclass(frozen=True)
class Whitened:
    """States x about their mean, Σ^½ and Σ^-½ of LEACE's covariance, and the concept's whitened complement `basis`.

    `half` and `inverse` are `[d, m]` in the coordinates of Σ's eigenvectors, and `basis` `[m, m - 1]` is orthonormal
    and orthogonal to u, the unit vector of Σ^-½ cov(h, labels), with its columns from the largest moved share down.
    """

    x: Float[Tensor, "n d"]
    half: Float[Tensor, "d m"]
    inverse: Float[Tensor, "d m"]
    basis: Float[Tensor, "m k"]

    def eraser(self, v: Float[Tensor, "m r"], method: str, scale: float = 1.0) -> Eraser:
        """The map h - c·Σ^½V VᵀΣ^-½(h - μ), with V orthonormal and in the complement of u."""
        return made(self.half @ v, self.inverse @ v, self.x, method, scale)

    def moved(self, v: Float[Tensor, "m r"]) -> Float[Tensor, " r"]:
        """Share of the variance that erasing the first 1, 2, ... r columns of V moves."""
        left, right = self.half @ v, self.inverse @ v
        centred = self.x - self.x.mean(0)
        both = (left.T @ left) * ((centred @ right).T @ (centred @ right))
        return both.cumsum(0).cumsum(1).diagonal() / centred.square().sum()


def whiten(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"]) -> Whitened:
    """The concept's complement in LEACE's metric. Raises UserError as `leace`."""
    x, z = checked(h, labels)
    fitter = LeaceFitter.fit(x, z, shrinkage=True)
    values, vectors = torch.linalg.eigh(fitter.sigma_xx)
    kept = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    half, inverse = (vectors[:, kept] * values[kept] ** power for power in (0.5, -0.5))
    u = inverse.T @ fitter.sigma_xz
    basis = torch.linalg.qr(u, mode="complete")[0][:, 1:] if float(u.norm()) > TOLERANCE else torch.eye(len(u)).to(u)
    order = torch.linalg.eigh(basis.T @ half.T @ half @ basis)[1].flip(1)
    return Whitened(x, half, inverse, basis @ order)


def complement(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"]) -> Eraser:
    """Erase everything but the concept: of h - μ the part L Rᵀ(h - μ) is left, with L and R of LEACE.

    cov(h, labels) and every state's score Rᵀ(h - μ), which LDA reads, stay as they are. Raises UserError as `leace`.
    """
    white = whiten(h, labels)
    return white.eraser(white.basis, "complement")


def size_matched(
    h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], size: float, generator: torch.Generator
) -> Eraser:
    """Erase random directions that do not carry the concept, so many that the moved share of the variance is `size`.

    h - c·L Rᵀ(h - μ) with L = Σ^½V, R = Σ^-½V and V orthogonal to LEACE's u: as with `complement`, cov(h, labels) and
    every state's LDA score stay as they are. V has the least rank with which the largest directions of the complement
    move enough, and lies between a uniformly random subspace of that rank and theirs, where the size is met; c is 1.

    Where the complement itself is too small (no erasure that leaves the concept can move more of the variance than
    the concept's own leaves), V takes SLACK of it and c rises above 1, up to LIMIT: states then go past the mean. A
    size beyond that is not reached; `moved` against `wanted` says so (`matched`). Raises UserError as `leace`.
    """
    white = whiten(h, labels)
    top = white.moved(white.basis)
    goal = min(size, SLACK * float(top[-1]))
    if goal <= 0:
        return dataclasses.replace(white.eraser(white.basis[:, :0], "matched"), wanted=size)
    rank = 1 + int((top < goal / SLACK**0.5).sum())
    k = white.basis.shape[1]
    start, turn = (
        torch.linalg.qr(torch.randn(n, rank, generator=generator, dtype=torch.float64))[0].to(white.x)
        for n in (k, rank)
    )

    def between(share: float, end: Float[Tensor, "m r"]) -> Float[Tensor, "m r"]:
        return torch.linalg.qr((1 - share) * (white.basis @ start) + share * (end @ turn))[0]

    def moved(v: Float[Tensor, "m r"]) -> float:
        return float(white.moved(v)[-1])

    rises = moved(between(0.0, white.basis[:, :rank])) < goal
    end = white.basis[:, :rank] if rises else white.basis[:, k - rank :]
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (moved(between(middle, end)) < goal) == rises else (low, middle)
    v = between(low, end)
    scale = (size / moved(v)) ** 0.5
    scale = 1.0 if abs(scale - 1) < 1e-6 else min(scale, LIMIT)
    return dataclasses.replace(white.eraser(v, "matched", scale), wanted=size)


def matched(moved: float, wanted: float) -> bool:
    """Whether a null has the size that it was to have, within MATCHED of it."""
    return abs(moved - wanted) <= MATCHED * wanted
