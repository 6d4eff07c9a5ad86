"""Vectors for some layers, stacked to banks from which every row of a batch takes one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError
from probes.sites import by_head


@runtime_checkable
class LayerVectors(Protocol):
    """A vector for each of some layers, in natural units (`steering.vectors.SteeringVector`)."""

    @property
    def directions(self) -> Mapping[int, Any]: ...

    def at(self, layer: int) -> Tensor: ...


Vector = LayerVectors | Mapping[int, Tensor]
Coef = float | Sequence[float | None] | Tensor
"""One coefficient for all rows (a number or a tensor []), or one a row (None: the row is left alone)."""


def layers_of(vector: Vector) -> list[int]:
    """The layers that a vector has, in order."""
    return sorted(vector.directions if isinstance(vector, LayerVectors) else vector)


def make_bank(
    vectors: Sequence[Vector], layers: Sequence[int], site: str = "resid_post"
) -> Float[Tensor, "n layers d"]:
    """Stack the vectors at `layers`, float32, differentiable where they are.

    Raises UserError for a layer that a vector lacks, and for one read at another site than `site`, where it is written.
    """
    rows: list[Tensor] = []
    for vector in vectors:
        if (read := getattr(vector, "site", site)) != site:
            raise UserError(f"the vector was read at site={read!r}; read it where it is written, at {site}")
        have = layers_of(vector)
        if missing := [layer for layer in layers if layer not in have]:
            raise UserError(f"layer={missing[0]} is not in the vector, which has {have}; choose --layers among them")
        at = vector.at if isinstance(vector, LayerVectors) else vector.__getitem__
        rows.append(torch.stack([at(layer).float() for layer in layers]))
    return torch.stack(rows)


def of_head(vector: Vector, head: int, n_heads: int) -> dict[int, Float[Tensor, " d_head"]]:
    """One head's part of a vector read at site `z`, whose heads lie side by side.

    Raises UserError for a vector of another site, a head that is not there, and a width that n_heads does not divide.
    """
    if (site := getattr(vector, "site", "z")) != "z":
        raise UserError(f"the vector was read at site={site!r}, where heads are not apart; read it at site z")
    if not 0 <= head < n_heads:
        raise UserError(f"head={head} not in 0..{n_heads - 1}; choose --head in that range")
    bank = make_bank([vector], layers_of(vector), "z")[0]
    return dict(zip(layers_of(vector), by_head(bank, n_heads)[:, head], strict=True))


def coefficients(coef: Coef) -> tuple[Tensor, tuple[float | None, ...]]:
    """As a tensor ([] or [rows], 0 for None), and one a row as numbers (a single one where all share it)."""
    if isinstance(coef, Tensor):
        if coef.ndim > 1:
            raise UserError(f"coef of shape {tuple(coef.shape)} is neither one number nor one a row")
        values, given = coef, tuple(coef.detach().reshape(-1).tolist())
    else:
        given = (coef,) if isinstance(coef, float | int) else tuple(coef)
        filled = [0.0 if c is None else c for c in given]
        values = torch.tensor(filled[0] if isinstance(coef, float | int) else filled, dtype=torch.float64)
    if bad := [c for c in given if c is not None and not math.isfinite(c)]:
        raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
    return values, given


def check_norms(bank: Tensor, layers: Sequence[int], used: set[int]) -> None:
    """Raise UserError for a used direction that is zero or not finite at a layer."""
    norms = bank.detach().float().norm(dim=-1)
    for w in sorted(used):
        for layer, norm in zip(layers, norms[w].tolist(), strict=True):
            if not 0 < norm < math.inf:
                raise UserError(f"direction {w} has norm {norm} at layer {layer}; give one that is finite and not 0")
