"""Keys and values that more than one prompt can use: those of a session's last prompt, and of prompts that are shared.

Only what is the same with and without steering is kept: the positions before the first one that is written to or read.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from corrector.decoding.slots import Stored

Ids = tuple[int, ...]
KEPT = 8
"""Sequences that a session keeps: its rows may part, as the cells of a sweep do."""


@dataclass(frozen=True)
class Known:
    """A sequence of tokens with its keys and values."""

    ids: Ids
    stored: Stored
    hidden: Tensor | None = None
    """[n, d]: what the blocks below the steering give for every token, where a draft is among them."""


class Prefixes:
    """What is known of sessions, and of shared prompts as long as a waiting row needs them."""

    def __init__(self) -> None:
        self._sessions: dict[Hashable, deque[Known]] = {}
        self._shared: dict[Ids, Known] = {}
        self._wanted: Counter[Ids] = Counter()

    def want(self, ids: Ids) -> None:
        """A waiting row will need this prefix."""
        self._wanted[ids] += 1

    def is_shared(self, ids: Ids) -> bool:
        """Whether it is known already, or more than one waiting row needs it."""
        return bool(ids) and (ids in self._shared or self._wanted[ids] > 1)

    def shared(self, ids: Ids) -> Known | None:
        """A prefix that was shared with the rows before."""
        return self._shared.get(ids)

    def share(self, known: Known) -> None:
        """Keep a prefix for the rows that wait for it."""
        self._shared[known.ids] = known

    def release(self, ids: Ids) -> None:
        """One row that wanted it has it; the last one lets it go."""
        self._wanted[ids] -= 1
        if self._wanted[ids] <= 0:
            del self._wanted[ids]
            self._shared.pop(ids, None)

    def session(self, key: Hashable, ids: Ids, limit: int) -> tuple[Known | None, int]:
        """What a session knows that agrees longest with these ids, and how many of the first `limit` tokens that is."""
        every = [(known, common(known.ids, ids[:limit])) for known in self._sessions.get(key, ())]
        return max(every, key=lambda found: found[1], default=(None, 0))

    def remember(self, key: Hashable, known: Known) -> None:
        """What a row of the session was fed; the last KEPT are kept."""
        self._sessions.setdefault(key, deque(maxlen=KEPT)).append(known)

    def forget(self, key: Hashable) -> None:
        """A session that is over."""
        self._sessions.pop(key, None)


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix of tokens."""
    low, high = 0, min(len(a), len(b)) + 1
    while high - low > 1:  # whole slices are compared much faster than single tokens
        middle = (low + high) // 2
        low, high = (middle, high) if list(a[low:middle]) == list(b[low:middle]) else (low, middle)
    return low
