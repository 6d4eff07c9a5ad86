"""How much memory a model takes, estimated from its configuration before any weight is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

PER_WEIGHT = {"": 0.0, "8bit": 1.0, "4bit": 0.5}
"""Bytes of a quantised weight; what is kept in full (embeddings, norms) makes this a low estimate."""


@dataclass(frozen=True)
class Memory:
    """Bytes of weights, of the keys and values of a batch, and of its logits: an estimate, activations left out."""

    parameters: int
    weights: int
    cache: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.logits


def estimate(config: Any, dtype: torch.dtype, batch: int, length: int, quantize: str = "") -> Memory:
    """Memory of decoding `batch` rows of `length` tokens, question to correction.

    weights = parameters x bytes; cache = 2 x layers x key-value heads x head size x batch x length x bytes, for sliding
    layers too, whose keys the lab keeps whole; logits = batch x vocabulary x 4.
    """
    import transformers

    auto: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):  # shapes without memory
        model = auto.from_config(config)
    n = sum(w.numel() for w in model.parameters())
    size = dtype.itemsize
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * heads * head * batch * length * size
    return Memory(n, int(n * (PER_WEIGHT[quantize] or size)), cache, batch * text.vocab_size * 4)


def free(device: str) -> int:
    """Bytes that the device has free now: of a GPU by its driver, else of this machine by its kernel."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def gigabytes(n: int) -> str:
    """Bytes as text, in GB or MB."""
    return f"{n / 1e9:.1f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
