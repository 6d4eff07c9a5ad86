"""How many earlier tokens change when a prefix grows by a sentence, which a cache of keys and values must follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corrector.prompts.encoding import encode
from corrector.prompts.templates import Template
from corrector.training.packing import common_prefix


@dataclass(frozen=True)
class Growth:
    """Steps of growth, how many of them changed earlier tokens, and the most that one of them changed."""

    steps: int
    changed: int
    most: int
    example: str = ""
    """The sentence that changed the most."""


def growth(tokenizer: Any, template: Template, question: str, sentences: Sequence[str]) -> Growth:
    """Grow an answer sentence by sentence in the upstream's prompt and count the tokens of each shorter prompt that
    the longer one does not begin with. The lab's caches keep the common prefix only, so a change costs time, no truth.
    """
    lost: list[int] = []
    before = encode(tokenizer, template.render_upstream(question, "")).ids
    for n in range(1, len(sentences) + 1):
        after = encode(tokenizer, template.render_upstream(question, "".join(sentences[:n]))).ids
        lost.append(len(before) - common_prefix(before, after))
        before = after
    most = max(lost, default=0)
    return Growth(len(lost), sum(n > 0 for n in lost), most, sentences[lost.index(most)] if most else "")
