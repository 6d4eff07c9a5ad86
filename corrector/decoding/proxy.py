"""Proxy-tuning: a large model written through by the difference of two small ones, none of them changed.

p = softmax(s_base + alpha (s_expert - s_antiexpert)), s being logits; the expert was tuned on what is wanted, the
antiexpert on what is not. Source: proxy-tuning 2401.08565 (alpha 1), after DExperts 2105.03023 (any alpha).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from corrector.errors import UserError
from corrector.models import LanguageModel, blocks


class ProxyModel(nn.Module):
    """Three causal models read as one: base, expert, antiexpert.

    Its blocks and its cache's layers are those of the three, one after the other, so any cache with a layer for each
    block serves: every member is given its own share of the same layers. alpha 0 is the base, to the bit.
    """

    def __init__(self, base: Any, expert: Any, antiexpert: Any, alpha: float = 1.0) -> None:
        super().__init__()
        self.members = nn.ModuleList([base, expert, antiexpert])
        self.alpha = alpha
        self.counts = [len(blocks(m)) for m in self.members]
        # where `blocks` looks for them
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([b for m in self.members for b in blocks(m)])
        self.config = _config([m.config for m in self.members], sum(self.counts))

    @property
    def dtype(self) -> torch.dtype:
        return self.members[0].dtype  # type: ignore[return-value]

    def forward(self, input_ids: Tensor, past_key_values: Cache | None = None, **given: Any) -> CausalLMOutputWithPast:
        """Logits [batch, seq or logits_to_keep, vocab] in float32; other arguments go to every member as they are."""
        logits: list[Tensor] = []
        start = 0
        for member, n in zip(self.members, self.counts, strict=True):
            share = None if past_key_values is None else Cache(layers=past_key_values.layers[start : start + n])
            logits.append(member(input_ids=input_ids, past_key_values=share, **given).logits.float())
            start += n
        base, expert, antiexpert = logits
        return CausalLMOutputWithPast(logits=base + self.alpha * (expert - antiexpert), past_key_values=past_key_values)


def proxy(base: LanguageModel, expert: LanguageModel, antiexpert: LanguageModel, alpha: float = 1.0) -> LanguageModel:
    """The base as it writes when steered by expert and antiexpert, for all that takes a language model.

    Raises UserError where the vocabularies are not the same or the attention takes other masks.
    """
    for name, lm in (("expert", expert), ("antiexpert", antiexpert)):
        if lm.tokenizer.get_vocab() != base.tokenizer.get_vocab():
            raise UserError(
                f"{name} {lm.ref!r} has another vocabulary than {base.ref!r} ({len(lm.tokenizer)} and "
                f"{len(base.tokenizer)} tokens), so their logits cannot be added; train it on the same --task"
            )
        for key in ("_attn_implementation", "sliding_window"):
            ours, theirs = (getattr(m.model.config, key, None) for m in (base, lm))
            if ours != theirs:
                raise UserError(f"{name} {lm.ref!r} has {key}={theirs!r}, {base.ref!r} {ours!r}; make them the same")
    model = ProxyModel(base.model, expert.model, antiexpert.model, alpha).eval()
    ref = f"{base.ref} + {alpha:g} ({expert.ref} - {antiexpert.ref})"
    return LanguageModel(model, base.tokenizer, base.template, ref, dict(base.card))


def _config(configs: list[Any], n_layers: int) -> Any:
    """The base's config with all layers, as caches and masks are made of it, and the shortest of the windows."""
    config = copy.deepcopy(configs[0])
    if getattr(config, "layer_types", None):
        config.layer_types = [kind for c in configs for kind in c.layer_types]
    config.num_hidden_layers = n_layers
    windows = [n for c in configs if (n := getattr(c, "max_position_embeddings", None))]
    if windows:
        config.max_position_embeddings = min(windows)
    return config
