"""Memory: what a run will need, what is free, and the refusal where the one is more than the other."""

from corrector.memory.check import check_fits, check_weights, ignoring, line
from corrector.memory.free import free, gigabytes
from corrector.memory.needs import LOGITS_HELD, Memory, Share, added, capturing, decoding, estimate, held

__all__ = [
    "LOGITS_HELD",
    "Memory",
    "Share",
    "added",
    "capturing",
    "check_fits",
    "check_weights",
    "decoding",
    "estimate",
    "free",
    "gigabytes",
    "held",
    "ignoring",
    "line",
]
