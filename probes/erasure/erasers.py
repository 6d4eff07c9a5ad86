"""Affine maps that erase a binary concept or, as their nulls, something else. Fit, then freeze."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from concept_erasure import LeaceFitter
from jaxtyping import Bool, Float
from torch import Tensor

from corrector.errors import UserError

TOLERANCE = 1e-9
"""Whitened cross-covariance (between 0 and .5 for a binary concept) below which nothing is there to erase."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """The affine map h - c·L Rᵀ(h - μ), with L and R `[d, r]` and RᵀL = 1: it keeps the mean μ; at c = 1 idempotent.

    Rank r is 1 for a binary concept; rank 0 is the identity. `method` names the fit, and `scale` is c: 1 but for a null
    that is fitted to a size. Where it was fitted, `moved` is its size, E‖Δh‖² / tr cov(h), as equal rank is not equal
    size, and `removed` the share of the variance that is gone after it, 1 - tr cov(h') / tr cov(h). `wanted` is the
    size that such a null was to have.
    """

    left: Float[Tensor, "d r"]
    right: Float[Tensor, "d r"]
    mean: Float[Tensor, " d"]
    method: str
    moved: float = 0.0
    removed: float = 0.0
    scale: float = 1.0
    wanted: float | None = None

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    @property
    def d(self) -> int:
        return self.left.shape[0]

    def __call__(self, h: Float[Tensor, "*batch d"], coef: float = 1.0) -> Float[Tensor, "*batch d"]:
        """The erased states, a new tensor of h's dtype, computed in float32 at least; `coef` is the share erased."""
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        left, right, mean = (t.to(wide) for t in (self.left, self.right, self.mean))
        return (wide - coef * self.scale * ((wide - mean) @ right) @ left.T).to(h.dtype)


def leace(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], shrinkage: bool = True) -> Eraser:
    """Least-squares concept erasure: of all affine maps after which cov(h, labels) = 0, the one that moves h least.

    L = Σ^½ u and R = Σ^-½ u, with u the unit vector of Σ^-½ cov(h, labels). No linear classifier fitted to the erased
    states then beats the best constant. `shrinkage` takes Σ from the optimal linear shrinkage of the sample covariance,
    so that a fit on few states holds on new ones; cov is 0 either way, least change in the sample needs False.
    Fitted in float64. Rank 0 where the classes have one mean. Raises UserError for no states, states that are not
    finite, and labels of one class. Source: 2306.03819, theorem 4.2; 1308.2608 for the shrinkage.
    """
    x, z = checked(h, labels)
    # The trace constraint would mix in a projection that leaves the concept, so it is off: the map must be exact.
    fitted = LeaceFitter.fit(x, z, shrinkage=shrinkage, constrain_cov_trace=False, svd_tol=TOLERANCE).eraser
    kept = fitted.proj_left.norm(dim=0) > 0
    return made(fitted.proj_left[:, kept], fitted.proj_right.T[:, kept], x, "leace")


def shuffled_labels(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], generator: torch.Generator) -> Eraser:
    """LEACE of the labels in random order: equal to LEACE in form and rank, fitted to chance. Raises as `leace`."""
    order = torch.randperm(len(labels), generator=generator)
    return dataclasses.replace(leace(h, labels.cpu()[order].to(labels.device)), method="shuffled_labels")


def mean_projection(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"]) -> Eraser:
    """Orthogonal projection that removes u, the unit difference of the class means: h - u uᵀ(h - μ).

    It makes cov(h, labels) = 0 as LEACE does, and moves h more. Raises UserError as `leace`, and for equal means.
    """
    x, z = checked(h, labels)
    delta = x[z > 0].mean(0) - x[z == 0].mean(0)
    if float(delta.norm()) == 0:
        raise UserError("both classes have the same mean, so there is no direction to project out; read another --span")
    u = (delta / delta.norm())[:, None]
    return made(u, u, x, "mean_projection")


def random_eraser(h: Float[Tensor, "n d"], rank: int, generator: torch.Generator) -> Eraser:
    """Orthogonal projection that removes a uniformly random subspace of a rank: h - Q Qᵀ(h - μ), QᵀQ = 1."""
    x, d = finite(h), h.shape[1]
    if not 0 <= rank <= d:
        raise UserError(f"rank={rank} not in 0..{d}, the width of the states; choose one in that range")
    q = torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64))[0].to(x.device)
    return made(q, q, x, "random")


def made(left: Tensor, right: Tensor, x: Tensor, method: str, scale: float = 1.0) -> Eraser:
    """The eraser of these factors about the mean of states x, with its size on them."""
    centred = x - x.mean(0)
    total = float(centred.square().sum())
    change = scale * (centred @ right @ left.T)
    moved, kept = (float(t.square().sum()) / total if total else 0.0 for t in (change, centred - change))
    return Eraser(left, right, x.mean(0), method, moved, 1 - kept if total else 0.0, scale)


def checked(h: Tensor, labels: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """States and labels in float64; UserError unless both classes are there, and as `finite`."""
    x = finite(h)
    if len(labels) != len(h):
        raise UserError(f"{len(labels)} labels for {len(h)} states; give one a state")
    if bool((labels == labels[0]).all()):
        raise UserError(f"all {len(h)} labels are {bool(labels[0])}; an eraser and a probe need states of both classes")
    return x, labels.to(x)


def finite(h: Tensor) -> Float[Tensor, "n d"]:
    """States in float64; UserError where there are none, or not all are finite."""
    if len(h) == 0:
        raise UserError("no states to fit on; give some of both classes")
    if not torch.isfinite(h).all():
        raise UserError(f"states hold a NaN or infinity in row {int((~torch.isfinite(h)).any(1).nonzero()[0])}")
    return h.double()
