"""The logit lens: what the model would write if it stopped at a layer."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from corrector.errors import UserError
from corrector.models import LanguageModel

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm")


def lens_logits(lm: LanguageModel, h: Float[Tensor, "item d"]) -> Float[Tensor, "item vocab"]:
    """Logits W_U norm(h) of the model's own final norm and head; of the last layer's h they are the model's logits.

    Raises UserError for an architecture whose final norm has no known name. Source: nostalgebraist 2020.
    """
    model: Any = lm.model
    head = model.get_output_embeddings()
    with torch.no_grad():
        logits = head(_final_norm(lm)(h.to(lm.device, head.weight.dtype))).float()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return (logits if cap is None else cap * torch.tanh(logits / cap)).cpu()


def is_written(lm: LanguageModel, h: Float[Tensor, "item layer d"], tokens: list[int]) -> Bool[Tensor, "item layer"]:
    """Whether item i's `tokens[i]`, which the model writes next, is already the lens' likeliest token at each layer."""
    likeliest = [lens_logits(lm, h[:, k]).argmax(-1) for k in range(h.shape[1])]
    return torch.stack(likeliest, 1) == torch.tensor(tokens)[:, None]


def _final_norm(lm: LanguageModel) -> nn.Module:
    parts = dict(lm.model.base_model.named_children())
    for name in FINAL_NORMS:
        if name in parts:
            return parts[name]
    raise UserError(f"{type(lm.model).__name__} has no final norm of a known name ({', '.join(FINAL_NORMS)})")
