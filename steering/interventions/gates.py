"""Conditions under which an intervention acts: a direction that fires, for a whole row or token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corrector.errors import UserError
from probes.directions import Direction
from probes.sites import SITES, check_site

WHENS = ("prompt_last", "token")


@dataclass(frozen=True, eq=False)
class Gate:
    """Open where a condition direction fires:  h·u > threshold,  u = v / ‖v‖, threshold in the units of h.

    h is read after block `layer` (or at another `site` of it), before the gated intervention writes there. With `when`
    = prompt_last it is read at the prompt's last token, once, and the row stays open or closed from then on; with
    token every token decides for itself. To gate on h·u < t, give -v and -t.  Source: CAST, 2409.05907.
    """

    vector: Float[Tensor, " d"]
    layer: int
    threshold: float = 0.0
    when: str = "prompt_last"
    site: str = "resid_post"

    def __post_init__(self) -> None:
        check_site(self.site)
        if self.when not in WHENS:
            raise UserError(f"when={self.when!r} is not one of {', '.join(WHENS)}; choose among them")
        if not math.isfinite(self.threshold):
            raise UserError(f"threshold={self.threshold} of the gate is not finite; choose a finite one")
        if not 0 < (norm := float(self.vector.detach().norm())) < math.inf:
            raise UserError(f"the gate's direction has norm {norm}; give one that is finite and not 0")

    @classmethod
    def of(cls, direction: Direction, when: str = "prompt_last") -> Gate:
        """The gate that opens where `direction.predict` says positive; UserError where it has no threshold or layer."""
        if direction.threshold is None or direction.layer < 0:
            raise UserError(
                f"a {direction.method} direction without threshold or layer gates nothing; fit one with both"
            )
        shift = 0.0 if direction.origin is None else float(direction.origin @ direction.unit)
        site = check_site(direction.site or "resid_post")
        return cls(direction.vector, direction.layer, direction.threshold + shift, when, site)

    def fires(self, h: Float[Tensor, "batch seq d"]) -> Bool[Tensor, "batch seq"]:
        """Where h·u > threshold, computed in float32 or wider; no gradient passes."""
        wide = h.detach().to(torch.promote_types(h.dtype, torch.float32))
        v = self.vector.detach().to(wide)
        return wide @ (v / v.norm()) > self.threshold

    def check_before(self, site: str, layers: tuple[int, ...]) -> None:
        """Raise UserError where something is written before the condition can be read."""
        if (min(layers), SITES.index(check_site(site))) < (self.layer, SITES.index(check_site(self.site))):
            raise UserError(
                f"the gate reads {self.site} of layer {self.layer}, behind {site} of layer {min(layers)}, which it "
                "is to open; gate at that layer or an earlier one"
            )
