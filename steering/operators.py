"""How a direction acts on hidden states: functions (h, v, coef) that return a new tensor.

v is in natural units (its norm is the classes' mean difference) and u = v / ‖v‖. Operators broadcast: h `[batch, seq,
d]`, v `[batch, 1, d]`, coef `[batch, 1, 1]`, and are differentiable in all three. Coefficient 0 is the identity to the
bit of those in IDENTITY_AT_ZERO; of `clamp` 0 is a target like any other, and its identity is no coefficient (None).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError

Operator = Callable[..., Tensor]
"""(h, v, coef) -> h'; `clamp` also takes `origin`."""


def add(
    h: Float[Tensor, "*batch d"], v: Float[Tensor, "*#batch d"], coef: Float[Tensor, "*#batch 1"] | float = 1.0
) -> Float[Tensor, "*batch d"]:
    """Move h along v:  h + coef·v.  The dose is coef·‖v‖ in the units of h.  Source: 2308.10248, 2312.06681."""
    return h + coef * v


def ablate(
    h: Float[Tensor, "*batch d"], v: Float[Tensor, "*#batch d"], coef: Float[Tensor, "*#batch 1"] | float = 1.0
) -> Float[Tensor, "*batch d"]:
    """Remove u from h:  h - coef·(h·u)u.  At coef 1 idempotent and orthogonal to u.

    Only the direction of v counts, and coef is the fraction removed.  Source: 2406.11717, eq. 4.
    """
    u = _unit(v)
    return h - coef * _project(h, u) * u


def clamp(
    h: Float[Tensor, "*batch d"],
    v: Float[Tensor, "*#batch d"],
    coef: Float[Tensor, "*#batch 1"] | float = 1.0,
    origin: Float[Tensor, "*#batch 1"] | float = 0.0,
) -> Float[Tensor, "*batch d"]:
    """Set the projection on u to a target:  h + (t - h·u)u,  t = origin + coef·‖v‖.  Idempotent.

    coef has the units of `add`: one more moves the projection by the classes' mean difference ‖v‖. `origin` is the
    projection that coef 0 sets, in the units of h: midway between the class means (`Direction.threshold` of
    diff_means) coef -0.5 and +0.5 are the class means; at the negatives' mean they are 0 and 1; at 0 (the default) t
    counts from the origin of the residual stream.  Source: feature clamping (Templeton et al. 2024, Scaling
    Monosemanticity), for one direction.
    """
    u = _unit(v)
    return h + (origin + coef * v.norm(dim=-1, keepdim=True) - _project(h, u)) * u


def rotate(
    h: Float[Tensor, "*batch d"], v: Float[Tensor, "*#batch d"], coef: Float[Tensor, "*#batch 1"] | float = 1.0
) -> Float[Tensor, "*batch d"]:
    """Turn h in the plane of h and u by coef radians toward +u, keeping ‖h‖.

    With p = h·u and w = h - pu:  h' = (p cos c + ‖w‖ sin c)u + (‖w‖ cos c - p sin c)w/‖w‖.  Only the direction of v
    counts. A negative angle turns away from u; one beyond the angle between h and u passes it. Where h is 0 or parallel
    to u no plane is defined, and h keeps its very bits.  Source: after angular steering (2510.26243), whose plane is
    one for all h.
    """
    u = _unit(v)
    c = torch.as_tensor(coef, dtype=h.dtype, device=h.device)
    p = _project(h, u)
    w = h - p * u
    w = w - _project(w, u) * u  # once more, or rounding tilts w toward u where h is nearly parallel to it
    r = w.norm(dim=-1, keepdim=True)
    flat = r <= 4 * torch.finfo(h.dtype).eps * h.norm(dim=-1, keepdim=True)
    e = w / torch.where(flat, 1.0, r)
    # cos c - 1, without cancelling at small angles; all terms are 0 at angle 0
    less = -2 * (c / 2).sin().square()
    turned = h + (p * less + r * c.sin()) * u + (r * less - p * c.sin()) * e
    return torch.where(flat, h, turned)


def _unit(v: Tensor) -> Tensor:
    # A row that is not steered may hold a zero vector; its 0/0 would pass through torch.where into gradients.
    return v / v.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)


def _project(h: Tensor, u: Tensor) -> Tensor:
    return (h * u).sum(dim=-1, keepdim=True)


OPERATORS: Mapping[str, Operator] = MappingProxyType({"add": add, "ablate": ablate, "clamp": clamp, "rotate": rotate})
IDENTITY_AT_ZERO = frozenset({"add", "ablate", "rotate"})
"""Operators of which coefficient 0 is no steering. Sweeps run the coefficient 0 of others as well, beside the
unsteered model."""


def operator(name: str) -> Operator:
    """An operator by name; UserError names the ones there are."""
    if name not in OPERATORS:
        raise UserError(f"operator={name!r} is not one of {', '.join(OPERATORS)}; choose --operator among them")
    return OPERATORS[name]
