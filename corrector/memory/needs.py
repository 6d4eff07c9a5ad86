"""How much memory a model and its work take: estimates by counting the tensors that are held at one time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from corrector.loading.shapes import head_size

PER_WEIGHT = {"": 0.0, "8bit": 1.0, "4bit": 0.5}
"""Bytes of a quantised weight; what is kept in full (embeddings, norms) makes this a low estimate."""
LOGITS_HELD = 2**26
"""Logits that one forward of a decoder, or one batch that is scored, may give, so that memory does not follow the
vocabulary or the data."""
WIDE = 4
"""Bytes of a float32."""
DIVERGENCE = 5 * 8
"""Bytes a logit while a divergence is taken: two log-softmaxes, a probability, a difference, a product, in float64."""


@dataclass(frozen=True)
class Memory:
    """Bytes of weights, of keys and values, of logits, and of activations (those of a forward, and those captured)."""

    parameters: int
    weights: int
    cache: int
    logits: int
    activations: int = 0

    @property
    def beside_weights(self) -> int:
        return self.cache + self.logits + self.activations

    @property
    def total(self) -> int:
        return self.weights + self.beside_weights


@dataclass(frozen=True)
class Share:
    """What a decoder has in flight."""

    rows: int
    """Rows decoded together."""
    length: int
    """Tokens of a row at most, from its first to its last."""
    fed: int
    """Tokens of a row that the largest forward feeds: what is new of the prompt, and the draft."""
    logits: int
    """Tokens of a row whose logits one forward gives: the draft's and one more."""
    kept_tokens: int = 0
    """Tokens of all sequences whose keys and values are kept beside the rows (shared prompts, rounds before)."""
    kept_logits: int = 0
    """Tokens of all rows whose logits are kept, for a divergence."""


def estimate(config: Any, dtype: torch.dtype, batch: int, length: int, quantize: str = "") -> Memory:
    """Memory of decoding `batch` rows of `length` tokens, from a configuration alone, activations left out.

    weights = parameters x bytes; cache = 2 x layers x key-value heads x head size x batch x length x bytes, for sliding
    layers too, whose keys the lab keeps whole; logits = batch x vocabulary x 4.
    """
    n = parameters_of(config)
    cache = batch * length * token_bytes(config, dtype.itemsize)
    weights = int(n * (PER_WEIGHT[quantize] or dtype.itemsize))
    return Memory(n, weights, cache, batch * config.get_text_config().vocab_size * WIDE)


def parameters_of(config: Any) -> int:
    """How many parameters a model of this configuration has, tied ones once."""
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):  # shapes without memory
        model = auto.from_config(config)
    return sum(w.numel() for w in model.parameters())


def held(model: Any) -> Memory:
    """Weights and buffers of a loaded model in the dtypes that they really have; offloaded ones hold nothing."""
    tensors = {id(t): t for t in (*model.parameters(), *model.buffers())}.values()
    weights = sum(t.numel() * t.element_size() for t in tensors if t.device.type != "meta")
    return Memory(sum(w.numel() for w in model.parameters()), weights, 0, 0)


def decoding(lm: Any, share: Share) -> Memory:
    """A loaded model and what its decoder holds at most while it continues the rows of `share`.

    cache = (rows x (length + 1) + kept tokens) x bytes a token; activations = the widest block of the rows that one
    forward feeds (as many as give LOGITS_HELD logits, or one); logits = the kept ones, and by how much those of a
    forward, with their copies, exceed its activations, which are gone when they come.
    """
    config, size = lm.model.config.get_text_config(), next(lm.model.parameters()).element_size()
    a_row = share.logits * config.vocab_size
    together = max(1, min(share.rows, LOGITS_HELD // max(a_row, 1)))
    copies = size + (WIDE if size != WIDE else 0) + (size if getattr(config, "final_logit_softcapping", None) else 0)
    passing = together * a_row * copies + (a_row * DIVERGENCE if share.kept_logits else 0)
    activations = together * share.fed * widest(config, share.length) * size
    logits = share.kept_logits * config.vocab_size * size + max(0, passing - activations)
    tokens = share.rows * (share.length + 1) + share.kept_tokens
    return replace(held(lm.model), cache=tokens * token_bytes(config, size), logits=logits, activations=activations)


def capturing(lm: Any, items: int, stored: int, rows: int, length: int, kept: int) -> Memory:
    """A loaded model, `stored` numbers captured of each of `items`, `kept` bytes each, and a forward of one batch.

    What a batch's reduced activations take on the device before they are stored counts once more, in float32.
    """
    config, size = lm.model.config.get_text_config(), next(lm.model.parameters()).element_size()
    forward = rows * length * widest(config, length) * size + rows * stored * WIDE
    return replace(held(lm.model), activations=items * stored * kept + forward)


def added(needs: Iterable[Memory]) -> Memory:
    """What several models hold that are there at the same time."""
    each = [(n.parameters, n.weights, n.cache, n.logits, n.activations) for n in needs]
    return Memory(*map(sum, zip(*each, strict=True)))


def token_bytes(config: Any, size: int) -> int:
    """Bytes of a token's keys and values in all layers, numbers of `size` bytes."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * head_size(text) * size


def widest(text: Any, length: int) -> int:
    """Numbers a token that a block holds at its widest: in its feed-forward part, or in attention over `length` tokens.

    Eager attention holds a score for each earlier token and head, and its softmax in float32 beside it.
    """
    d, ff = text.hidden_size, getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None)
    attention = 2 * d + 4 * text.num_attention_heads * head_size(text)
    if text._attn_implementation == "eager":
        attention += 3 * text.num_attention_heads * length
    return max(2 * d + 3 * (ff or 4 * d), attention)
