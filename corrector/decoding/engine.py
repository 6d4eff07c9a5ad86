"""The fast decoder: rows come and go, drafts are verified, prompts are shared; the tokens are plain decoding's."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Hashable
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.decoding.below import recorded, replaced_below
from corrector.decoding.drafts import Draft, Habit, Policy
from corrector.decoding.jobs import Job, Live, Tricks
from corrector.decoding.prefixes import Ids, Known, Prefixes
from corrector.decoding.request import LiveSteering, Output, checked_applied, greedy
from corrector.decoding.slots import Slots
from corrector.decoding.windows import Stretch, Window, runs, window
from corrector.errors import UserError
from corrector.models import LanguageModel

NOTHING = (None, 0)
Have = tuple[Known | None, int]
"""What is known of a row's prompt, and how many of its tokens need not be fed again."""


class Decoder:
    """Continues jobs, `batch_size` rows at a time. Within `running()`: submit jobs, step until `load` is 0.

    Rows depend on each other in nothing but the last bits of their sums. What is done when depends on the jobs alone,
    so the same jobs give the same bits.
    """

    def __init__(
        self,
        lm: LanguageModel,
        steering: LiveSteering | None = None,
        temperature: float = 0.0,
        batch_size: int = 64,
        tricks: Tricks | None = None,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is below 1; choose --batch-size 1 or more")
        self.lm, self.steering, self.temperature = lm, steering, temperature
        self.batch_size, self.tricks = batch_size, tricks or Tricks()
        self.prefixes = Prefixes()
        self.forwards, self.fed = 0, 0
        """Forwards so far, and tokens fed in them, padding included."""
        self._eos_id, self._slots = lm.eos_id, Slots(lm)
        self._policy = Policy.of(sum(p.numel() for p in lm.model.parameters()), lm.device.type)
        self._habit = Habit() if self.tricks.draft else None
        self._n_below = steering.n_below if steering else 0
        self._waiting: deque[Job] = deque()
        self._live: list[Live] = []
        self._keys: dict[Job, Ids] = {}

    @contextmanager
    def running(self) -> Generator[Decoder]:
        """The steering's hooks are on the model while the context lasts."""
        with self.steering.attach(self.lm.model) if self.steering else nullcontext():
            if self.steering:
                self.steering.begin([], [])
            yield self

    @property
    def load(self) -> int:
        """Rows live and waiting."""
        return len(self._live) + len(self._waiting)

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn; jobs start in the order in which they were submitted."""
        if self.tricks.shared and job.session is None:
            whole = job.on_draft is not None and self._n_below > 0
            self._keys[job] = (*job.prompt.ids, *job.draft[:-1]) if whole else job.prompt.ids[: self._reach(job)]
            self.prefixes.want(self._keys[job])
        self._waiting.append(job)

    @torch.inference_mode()
    def step(self) -> list[tuple[Job, Output]]:
        """One round of work: let waiting rows in, or write on; gives what was finished by it."""
        free = min(self.batch_size - len(self._live), len(self._waiting))
        # a few at a time would cost a forward each
        enough = min(max(1, self.batch_size // 4), len(self._waiting))
        if free and (not self._live or (self.tricks.continuous and free >= enough)):
            self._admit([self._waiting.popleft() for _ in range(free)])
        elif self._live:
            self._advance()
        return self._leave()

    def forget(self, session: Hashable) -> None:
        """A session that has no more jobs."""
        self.prefixes.forget(session)

    def _reach(self, job: Job) -> int:
        """How many of the prompt's tokens are as unsteered and need give no logits."""
        n = len(job.prompt) - 1
        return min(n, self.steering.reach(job.row, job.prompt)) if self.steering and job.row >= 0 else n

    def _admit(self, jobs: list[Job]) -> None:
        longest = max(len(j.prompt) + max(j.max_new_tokens, len(j.draft)) for j in jobs)
        first = len(self._live)
        self._slots.reserve(first + len(jobs), longest)
        shared = self._share(jobs, first)
        have = {job: shared.get(job) or self._session(job) for job in jobs}
        # rows that are fed from the middle of the model apart from those fed from its bottom, each by length
        size = {job: len(job.prompt) - n + len(job.draft) for job, (_, n) in have.items()}
        jobs = sorted(jobs, key=lambda job: (_hidden(have[job]) is None, size[job]))
        n_above = sum(_hidden(have[job]) is not None for job in jobs)
        if self.steering:
            self.steering.admit([job.row for job in jobs], [job.prompt for job in jobs])
        for job in jobs:
            seeded = self.temperature > 0 and job.seed is not None
            generator = torch.Generator().manual_seed(job.seed or 0) if seeded else None
            draft = Draft(job.draft if self.tricks.draft else ())
            self._live.append(Live(job, draft, self._eos_id, self.temperature, generator=generator))
        self._restore([have[job] for job in jobs], first)
        offers = [row.offer(self._habit) for row in self._live[first:]]
        k = self._policy.length([(kind, len(tokens)) for kind, tokens in offers])
        for start, end in ((0, n_above), (n_above, len(jobs))):
            for a, b in self._runs([size[job] for job in jobs[start:end]], max(len(job.draft) for job in jobs)):
                rows = slice(start + a, start + b)
                self._feed(first + rows.start, k, offers[rows], [have[job] for job in jobs[rows]])

    def _session(self, job: Job) -> Have:
        return self.prefixes.session(job.session, job.prompt.ids, self._reach(job)) if self.tricks.prefix else NOTHING

    def _share(self, jobs: list[Job], first: int) -> dict[Job, Have]:
        """Feed what several rows need, once each; what every such row then has."""
        keys = {job: key for job in jobs if (key := self._keys.pop(job, ())) and self.prefixes.is_shared(key)}
        whole = {keys[job]: len(job.prompt) for job in keys if job.on_draft is not None and self._n_below > 0}
        new = sorted({k for k in keys.values() if self.prefixes.shared(k) is None}, key=lambda k: (len(k), k))
        for start, end in self._runs([len(k) for k in new], 1):
            part = new[start:end]
            w = window([Stretch(0, key, len(key) - 1) for key in part], self._eos_id, self.lm.device)
            with recorded(self.lm.model, self._n_below) if whole else nullcontext([]) as outputs:
                self._forward(first, w, steered=False)
            for i, key in enumerate(part):
                hidden = outputs[0][i, w.left[i] :].clone() if key in whole else None
                self.prefixes.share(Known(key, self._slots.read(first + i, len(key)), hidden))
        have = {job: (self.prefixes.shared(key), self._reach(job)) for job, key in keys.items()}
        for key in keys.values():
            self.prefixes.release(key)
        return have

    def _restore(self, have: list[Have], first: int) -> None:
        """What is known of rows first, first + 1, ... into their slots; neighbours that know the same at once."""
        start = 0
        for end in range(1, len(have) + 1):
            if end == len(have) or have[end][0] is not have[start][0] or have[end][1] != have[start][1]:
                known, n = have[start]
                if known is not None:
                    below = 0 if known.hidden is None else self._n_below
                    self._slots.write(first + start, end - start, known.stored, n, below)
                start = end

    def _runs(self, lengths: list[int], n_logits: int) -> list[tuple[int, int]]:
        return runs(lengths, n_logits, self.lm.model.config.vocab_size, self._policy.step)

    def _advance(self) -> None:
        offers = [row.offer(self._habit) for row in self._live]
        k = self._policy.length([(kind, len(tokens)) for kind, tokens in offers])
        for start, end in self._runs([1] * len(self._live), k + 1):
            self._feed(start, k, offers[start:end], [NOTHING] * (end - start))

    def _feed(self, first: int, k: int, offers: list[tuple[int, Ids]], have: list[Have]) -> None:
        """Feed rows first, first + 1, ... what they were not fed, with up to k tokens of their drafts, and read on."""
        rows = self._live[first : first + len(offers)]
        whole = [row.fresh and row.job.on_draft is not None for row in rows]
        drafts = [tokens if all_ else tokens[:k] for (_, tokens), all_ in zip(offers, whole, strict=True)]
        stretches: list[Stretch] = []
        for row, draft, (_, n) in zip(rows, drafts, have, strict=True):
            start, own = (n, row.job.prompt.ids[n:]) if row.fresh else (row.n_fed, (row.written[-1],))
            stretches.append(Stretch(start, (*own, *draft), len(own) - 1))
        w = window(stretches, self._eos_id, self.lm.device)
        known = [k for k, _ in have if k is not None and k.hidden is not None]
        hidden = [k.hidden[s.start :] for k, s in zip(known, stretches, strict=False) if k.hidden is not None]
        above = replaced_below(self.lm.model, self._n_below, w.align(hidden)) if hidden else nullcontext()
        with above:
            logits = self._forward(first, w)
        best: list[list[int]] | None = greedy(logits).tolist() if self.temperature == 0 else None
        for i, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
            if row.job.on_draft and row.fresh:
                row.job.on_draft(logits[i, : len(row.job.draft)])
            accepted = row.read(logits[i], best[i] if best else None, draft)
            self._policy.note(offers[i][0], len(draft), accepted)
        if self.steering:
            self.steering.retract(torch.tensor([row.n_fed for row in rows], device=self.lm.device))

    def _forward(self, first: int, w: Window, steered: bool = True) -> Float[Tensor, "fed logits vocab"]:
        if self.steering and steered:
            self.steering.forward(w.positions, w.real, first)
        elif self.steering:
            self.steering.pass_by(w.positions)
        self.forwards, self.fed = self.forwards + 1, self.fed + w.ids.numel()
        return self._slots.forward(first, w)

    def _leave(self) -> list[tuple[Job, Output]]:
        """Let finished rows go; the last rows take their places."""
        done = [i for i, row in enumerate(self._live) if row.done]
        if not done:
            return []
        finished: list[tuple[Job, Output]] = []
        for i in done:
            row, job = self._live[i], self._live[i].job
            steered = self.steering if job.row >= 0 else None
            applied = checked_applied(steered, i, job.row, row.n_fed) if steered else 0
            finished.append((job, row.output(applied)))
            if self._habit is not None:
                self._habit.learn(job.prompt.ids, (*row.written, *[self._eos_id] * row.ended))
            if job.session is not None and self.tricks.prefix:
                n = min(row.n_fed, steered.reach(job.row, job.prompt)) if steered else row.n_fed
                known = Known((*job.prompt.ids, *row.written)[:n], self._slots.read(i, n))
                self.prefixes.remember(job.session, known)
        n_left = len(self._live) - len(done)
        holes = [i for i in done if i < n_left]
        movers = [i for i in range(n_left, len(self._live)) if not self._live[i].done]
        self._slots.move(movers, holes, max((self._live[i].n_fed + 1 for i in movers), default=0))
        order = list(range(n_left))
        for hole, mover in zip(holes, movers, strict=True):
            order[hole] = mover
        self._live = [self._live[i] for i in order]
        if self.steering:
            self.steering.keep(torch.tensor(order, dtype=torch.long, device=self.lm.device))
        return finished


def _hidden(have: Have) -> Tensor | None:
    return have[0].hidden if have[0] is not None else None
