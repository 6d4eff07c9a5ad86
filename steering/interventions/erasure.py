"""Erasers as an intervention: the decoder runs an affine map where it otherwise runs an operator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from corrector.errors import UserError
from probes.erasure import Eraser
from steering.interventions.intervention import Intervention


class Erasure(Intervention):
    """Erase at a span after some blocks, alike in every row: h ← (1 - coef)·h + coef·eraser(h), an eraser a layer.

    Positions, counts and errors are those of `Intervention`. Where coef or an eraser's rank is 0, h keeps its very bits
    and nothing counts.
    """

    def __init__(self, erasers: Mapping[int, Eraser], span: str = "prompt_last", coef: float = 1.0) -> None:
        if not erasers:
            raise UserError("nothing to erase: there is no eraser of any layer; give at least one")
        acting = {k: e for k, e in sorted(erasers.items()) if e.rank and coef}
        self.erasers, self.share = acting or dict(sorted(erasers.items())), coef if acting else 0.0
        # The bank only tells width and layers; what is written is the eraser's.
        bank = torch.stack([e.left[:, 0] if acting else torch.zeros(e.d) for e in self.erasers.values()])
        super().__init__(bank[None], tuple(self.erasers), [0], self.share, "ablate", span)

    def _steer(self, place: int, h: Tensor, s: dict[str, Tensor]) -> Tensor:
        return self.erasers[self.layers[place]](h, self.share)
