"""Whether a model can be decoded fast: its config says so, and its logits through slots are those of a bare forward."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

from corrector.decoding.slots import Slots, supported
from corrector.decoding.windows import Stretch, Window, window
from corrector.errors import UserError
from corrector.models import LanguageModel

LENGTHS = (5, 9)
"""Tokens of the two rows that are tried, the last two of each fed as a draft."""
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_TOLERANCE = 0.1
"""Largest difference of log-probabilities that counts as rounding, in nats; half precision rounds more."""
_found: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def unfit(lm: LanguageModel) -> str:
    """Why the model cannot be decoded fast; empty where it can. Tried once a model, in three small forwards."""
    if lm.model not in _found:
        _found[lm.model] = _try(lm)
    return _found[lm.model]


@torch.inference_mode()
def _try(lm: LanguageModel) -> str:
    if not supported(lm.model.config):
        return "its layers or attention take other masks"
    draw = torch.Generator().manual_seed(0)
    rows = [tuple(torch.randint(lm.model.config.vocab_size, (n,), generator=draw).tolist()) for n in LENGTHS]
    try:
        slots = Slots(lm)
        slots.reserve(len(rows), max(LENGTHS))
        # both rows up to the shorter one's draft, the longer one up to its own, then both drafts at once
        n = min(LENGTHS) - 2
        slots.forward(0, _stretch(lm, rows, [0, 0], [n, n]))
        slots.forward(1, _stretch(lm, rows[1:], [n], [LENGTHS[1] - 2]))
        got = slots.forward(0, _stretch(lm, rows, [k - 2 for k in LENGTHS], [*LENGTHS]))
    except (UserError, TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        return f"its forward refuses masks over slots ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
    whole = [torch.tensor([row], device=lm.device) for row in rows]
    wanted = torch.stack([lm.model(input_ids=ids, use_cache=False).logits[0, -2:] for ids in whole])
    apart = float((got.double().log_softmax(-1) - wanted.double().log_softmax(-1)).abs().max())
    if not apart <= TOLERANCE.get(lm.model.dtype, HALF_TOLERANCE):
        return f"its log-probabilities through slots are off by {apart:.2g}"
    return ""


def _stretch(lm: LanguageModel, rows: list[tuple[int, ...]], starts: list[int], ends: list[int]) -> Window:
    parts = [Stretch(a, row[a:b], 0) for row, a, b in zip(rows, starts, ends, strict=True)]
    return window(parts, 0, lm.device)
