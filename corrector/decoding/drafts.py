"""Drafts: tokens that a row will probably write, verified by one forward instead of one each.

A corrector mostly copies, so the suffix itself is the draft. Where a row departs from it, the draft is taken up again
behind the nearest place that reads like what the row wrote last; where there is none, what other rows wrote behind the
same tokens is the draft (as in 2311.08252, with the run's own text for a store). How many tokens are worth drafting
depends on how many rows share the forward and on how often drafts were right so far; both are counts, so that the same
work takes the same course on every run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

LENGTHS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Draft lengths that are considered."""
STEP_FLOPS = {"cpu": 4e7}
"""What a forward costs beside its tokens, in parameter reads: about 3 ms of a core. Other devices: see GPU_STEP."""
GPU_STEP = 256.0
"""On an accelerator a forward of few tokens costs as much as one of so many."""
TRUSTED, GUESSED, HABIT = 0, 1, 2
"""Kinds of drafts: from the row's own source, with and without a sign that it is the right place; from other rows."""
CONTEXTS = (3, 2)
"""Tokens by which a place in other rows' text is found, the longer ones first."""
REMEMBERED = 2**16
"""Tokens of other rows' text that are kept."""
Ids = tuple[int, ...]


class Draft:
    """A text that the output will probably repeat, and the place in it that comes next."""

    def __init__(self, source: Sequence[int]) -> None:
        self.source, self.at = tuple(source), 0
        self.kind = TRUSTED
        """Whether the last token written stood in the source where it was awaited or found again."""

    def next(self, n: int) -> tuple[int, ...]:
        """The n tokens that come next, fewer at the end."""
        return self.source[self.at : self.at + n]

    def follow(self, before: int | None, token: int) -> None:
        """The row has written `token` behind `before`: go on at the nearest place that reads like that."""
        source = self.source
        if self.at < len(source) and source[self.at] == token:
            self.at, self.kind = self.at + 1, TRUSTED
            return
        singles = [i for i, t in enumerate(source) if t == token]
        pairs = [i for i in singles if i > 0 and source[i - 1] == before]
        if found := pairs or singles:
            self.at, self.kind = min(found, key=lambda i: abs(i - self.at)) + 1, TRUSTED if pairs else GUESSED
        else:
            self.at, self.kind = self.at + 1, GUESSED  # one token in the place of another


class Habit:
    """What rows wrote behind the same tokens; of several places the latest."""

    def __init__(self) -> None:
        self._texts: list[Ids] = []
        self._places: dict[Ids, tuple[int, int]] = {}
        self._n = 0

    def learn(self, before: Sequence[int], written: Sequence[int]) -> None:
        """A row wrote this, end token included, behind `before`."""
        if self._n > REMEMBERED:
            self._texts, self._places, self._n = [], {}, 0
        context = tuple(before[-max(CONTEXTS) :])
        text = (*context, *written)
        for i in range(len(context), len(text)):
            for n in CONTEXTS:
                if i >= n:
                    self._places[text[i - n : i]] = len(self._texts), i
        self._texts.append(text)
        self._n += len(text)

    def next(self, before: Sequence[int], n: int) -> Ids:
        """Up to n tokens that followed the end of `before` elsewhere; empty where nothing did."""
        for size in CONTEXTS:
            if len(before) >= size and (found := self._places.get(tuple(before[-size:]))):
                text, at = found
                return self._texts[text][at : at + n]
        return ()


@dataclass
class Policy:
    """Draft length by the number of rows and the acceptance measured so far.

    A forward of n rows and k draft tokens each costs `step` + n (1 + k) tokens' worth; a row whose draft of length d
    is accepted token by token with probability a gains Σ_{j=1..min(k, d)} a^j tokens beside its own. The k with most
    tokens for the cost is taken.
    """

    step: float
    accepted: list[float] = field(default_factory=lambda: [4.0, 1.0, 2.0])
    offered: list[float] = field(default_factory=lambda: [5.0, 3.0, 4.0])
    """Tokens by kind of draft; the starting values are the prior."""

    @classmethod
    def of(cls, n_parameters: int, device: str) -> Policy:
        """For a model of this size."""
        return cls(STEP_FLOPS[device] / n_parameters if device in STEP_FLOPS else GPU_STEP)

    def length(self, drafts: Sequence[tuple[int, int]]) -> int:
        """Best length for rows with drafts of these (kind, length)."""
        n, best, merit = len(drafts), 0, 0.0
        rates = [a / o for a, o in zip(self.accepted, self.offered, strict=True)]
        counts, longest = Counter(drafts), max((d for _, d in drafts), default=0)
        for k in LENGTHS:
            gained = sum(c * _geometric(rates[kind], min(k, d)) for (kind, d), c in counts.items())
            if (now := (n + gained) / (self.step + n * (1 + k))) > merit:
                best, merit = k, now
            if k >= longest:
                break
        return best

    def note(self, kind: int, offered: int, accepted: int) -> None:
        """A draft of `offered` tokens of which the first `accepted` were right."""
        self.accepted[kind] += accepted
        self.offered[kind] += min(offered, accepted + 1)


def _geometric(a: float, n: int) -> float:
    """Σ_{j=1..n} a^j."""
    return n if a >= 1 else a * (1 - a**n) / (1 - a)
