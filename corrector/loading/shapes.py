"""Sizes that a model's configuration implies without naming them."""

from __future__ import annotations

from typing import Any


def head_size(config: Any) -> int:
    """Numbers of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
