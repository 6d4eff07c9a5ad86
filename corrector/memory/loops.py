"""What the align loop holds: the rows of its two decoders, and the rounds before whose keys and values are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corrector.decoding import Tricks, window
from corrector.decoding.drafts import LENGTHS
from corrector.decoding.prefixes import KEPT
from corrector.memory.needs import Memory, Share, added, decoding, held


def looping(
    questions: Sequence[str],
    upstream: Any,
    corrector: Any,
    *,
    rows: int,
    cells: int = 1,
    max_rounds: int = 12,
    max_tokens: int = 512,
    sentence: int,
    tricks: Tricks,
    batch_size: int = 64,
) -> Memory:
    """Memory of the loop over these questions, `rows` of them at once in `cells` cells, answers at their longest.

    `upstream` counts where it is a model in this process. A problem keeps the keys and values of its last KEPT prompts,
    which are taken to hold half of the longest answer on average.
    """
    live = min(rows, len(questions)) * cells
    needs: list[Memory] = []
    writer = getattr(upstream, "lm", None)
    models = [(corrector, "encode"), (writer, "encode_upstream")]
    for lm, encode in [(lm, encode) for lm, encode in models if lm is not None]:
        blank = ("",) if encode == "encode_upstream" else ("", "")
        prompt = max(len(getattr(lm, encode)(question, *blank)) for question in questions)
        longest = prompt + max_tokens + 2 * sentence
        share = Share(
            rows=min(batch_size, live),
            length=min(longest, window(lm) or longest),
            fed=prompt + sentence,
            logits=min(sentence, max(LENGTHS)) + 1,
            kept_tokens=_kept(lm, live // cells, cells, max_rounds, prompt + max_tokens // 2) if tricks.prefix else 0,
        )
        needs.append(decoding(lm, share) if encode == "encode_upstream" or lm is not writer else _twice(lm, share))
    return added(needs)


def _kept(lm: Any, problems: int, cells: int, max_rounds: int, length: int) -> int:
    return problems * min(KEPT, max_rounds * cells) * min(length, window(lm) or length)


def _twice(lm: Any, share: Share) -> Memory:
    """One model that is both upstream and corrector: its weights are counted with the upstream's."""
    need = decoding(lm, share)
    return Memory(0, need.weights - held(lm.model).weights, need.cache, need.logits, need.activations)
