"""Rows of the fast decoder: what is asked for one prompt, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.decoding.drafts import CONTEXTS, HABIT, TRUSTED, Draft, Habit
from corrector.decoding.prefixes import common
from corrector.decoding.request import Output, Stop, draw
from corrector.prompts import Encoded

LONGEST = max(CONTEXTS)


@dataclass(frozen=True)
class Tricks:
    """What the decoder does beside plain decoding; each may be turned off, and the tokens stay the same."""

    draft: bool = True
    """Verify drafts (the suffix where no other is given, and what other rows wrote behind the same tokens)."""
    shared: bool = True
    """Rows with the same prompt share what steering does not touch: its first positions, and with the same draft the
    blocks below the first one written to."""
    prefix: bool = True
    """A session's next prompt keeps the cache of its last one as far as the tokens agree."""
    continuous: bool = True
    """Waiting rows take the place of finished ones at once; off: whole batches one after the other."""

    @classmethod
    def of(cls, names: Sequence[str]) -> Tricks:
        """Those named, no others."""
        return cls(**{f.name: f.name in names for f in fields(cls)})


Trick = Literal["draft", "shared", "prefix", "continuous"]
EVERY: tuple[Trick, ...] = ("draft", "shared", "prefix", "continuous")
PLAIN = Tricks(draft=False, shared=False, prefix=False, continuous=False)
"""No trick at all."""


@dataclass(frozen=True, eq=False)
class Job:
    """One prompt to continue."""

    prompt: Encoded
    max_new_tokens: int
    row: int = -1
    """Its row in the steering; below 0: unsteered."""
    draft: tuple[int, ...] = ()
    """What it will probably write, end token included."""
    on_draft: Callable[[Float[Tensor, "draft vocab"]], None] | None = None
    """Given the logits that predict each token of `draft`, teacher-forced; the whole draft is then fed at once."""
    seed: int | None = None
    stop: Stop | None = None
    session: Hashable = None
    """Jobs of one session mostly begin alike: each prompt is another one grown."""
    tag: int = 0
    """The caller's own number."""


@dataclass
class Live:
    """A job under way."""

    job: Job
    draft: Draft
    eos_id: int
    temperature: float = 0.0
    fresh: bool = True
    """The prompt's last token was not fed yet."""
    written: list[int] = field(default_factory=list)
    ended: bool = False
    done: bool = False
    generator: torch.Generator | None = None

    @property
    def n_fed(self) -> int:
        """Tokens that count as fed: all but the newest one; all, once the end token came."""
        return len(self.job.prompt) - 1 + len(self.written) + self.ended

    @property
    def room(self) -> int:
        """Draft tokens that are of use: the last token to be written need not be fed."""
        return max(0, self.job.max_new_tokens - len(self.written) - 1)

    def output(self, applied: int) -> Output:
        """What it wrote."""
        return Output(tuple(self.written), self.ended, applied)

    def offer(self, habit: Habit | None) -> tuple[int, tuple[int, ...]]:
        """Kind and tokens of the draft at hand: its own source, or where that has no trusted place, others' habit."""
        if self.fresh and self.job.on_draft:
            return TRUSTED, self.job.draft[:-1]
        kind, tokens = self.draft.kind, self.draft.next(self.room)
        if habit is not None and (kind != TRUSTED or not tokens):
            before = self.written[-LONGEST:] if len(self.written) >= LONGEST else (*self.job.prompt.ids, *self.written)
            if found := habit.next(before, self.room):
                kind, tokens = HABIT, found
        # the end token is predicted by the token before it, and nothing follows it
        return kind, tokens[:-1] if tokens and tokens[-1] == self.eos_id else tokens

    def read(self, logits: Float[Tensor, "fed vocab"], best: list[int] | None, draft: tuple[int, ...]) -> int:
        """Take the tokens that the logits give, as far as the draft was right, and one more; how many it had right.

        `best` is the argmax of each row of logits; None where tokens are drawn.
        """
        self.fresh = False
        new = self._drawn(logits, draft) if best is None else best[: common(best, draft) + 1]
        accepted = len(new) - 1
        for i, token in enumerate(new):
            if token == self.eos_id:
                self.ended = self.done = True
                break
            before = self.written[-1] if self.written else None
            self.written.append(token)
            self.draft.follow(before, token)
            stopped = self.job.stop is not None and self.job.stop(self.written)
            if stopped or len(self.written) == self.job.max_new_tokens:
                self.done, accepted = True, i
                break
        return accepted

    def _drawn(self, logits: Float[Tensor, "fed vocab"], draft: tuple[int, ...]) -> list[int]:
        assert self.generator is not None
        new: list[int] = []
        for j in range(len(draft) + 1):
            new.append(draw(logits[j], self.temperature, self.generator))
            # no draw is made that plain decoding would not make
            n, stop = len(self.written) + len(new), self.job.stop
            over = new[-1] == self.eos_id or n == self.job.max_new_tokens or (stop and stop([*self.written, *new]))
            if over or j == len(draft) or new[-1] != draft[j]:
                break
        return new
