"""The oracle that steered decoding is held against: no cache, no padding, one row, plain hooks."""

from collections.abc import Callable

import torch
from torch import Tensor

from corrector.models import LanguageModel, blocks
from corrector.prompts import Prompt
from steering.interventions.positions import resolve


def decode_uncached(
    lm: LanguageModel, prompt: Prompt, n: int, span: str, changes: dict[int, Callable[[Tensor], Tensor]]
) -> tuple[int, ...]:
    """Up to n greedy tokens; behind each layer of `changes` its function is put on h[:, p] of every p in the span."""
    ids = list(prompt.ids)
    places = [p for start, end in resolve(span, prompt.spans) for p in range(start, min(end, 600))]
    handles = []
    for layer, change in changes.items():

        def hook(module, args, h, change=change):
            h = h.clone()
            for p in (p for p in places if p < h.shape[1]):
                h[:, p] = change(h[:, p])
            return h

        handles.append(blocks(lm.model)[layer].register_forward_hook(hook))
    try:
        with torch.no_grad():
            for _ in range(n):
                token = lm.model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
                if token == lm.eos_id:
                    break
                ids.append(token)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(ids[len(prompt) :])
