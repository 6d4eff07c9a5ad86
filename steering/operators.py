"""How a direction acts on hidden states: functions (h, v, coef) that return a new tensor.

Every operator is the identity at coef 0, and broadcasts: h `[batch, seq, d]`, v `[batch, 1, d]`, coef `[batch, 1, 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError

Operator = Callable[[Tensor, Tensor, Tensor | float], Tensor]


def add(
    h: Float[Tensor, "*batch d"], v: Float[Tensor, "*#batch d"], coef: Float[Tensor, "*#batch 1"] | float = 1.0
) -> Float[Tensor, "*batch d"]:
    """Move h along v:  h + coef·v.  The dose is coef·‖v‖ in the units of h.  Source: 2308.10248, 2312.06681."""
    return h + coef * v


def ablate(
    h: Float[Tensor, "*batch d"], v: Float[Tensor, "*#batch d"], coef: Float[Tensor, "*#batch 1"] | float = 1.0
) -> Float[Tensor, "*batch d"]:
    """Remove u = v/‖v‖ from h:  h - coef·(h·u)u.  At coef 1 idempotent and orthogonal to u.

    Only the direction of v counts, and coef is the fraction removed.  Source: 2406.11717, eq. 4.
    """
    u = v / v.norm(dim=-1, keepdim=True)
    return h - coef * (h * u).sum(dim=-1, keepdim=True) * u


OPERATORS: Mapping[str, Operator] = MappingProxyType({"add": add, "ablate": ablate})


def operator(name: str) -> Operator:
    """An operator by name; UserError names the ones there are."""
    if name not in OPERATORS:
        raise UserError(f"operator={name!r} is not one of {', '.join(OPERATORS)}; choose --operator among them")
    return OPERATORS[name]
