"""Plain decoding, with no trick: what the fast decoder is measured against, and used where that one cannot serve."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext

import torch

from corrector.decoding.jobs import Job
from corrector.decoding.request import Output, Steering, checked_applied, draw, greedy, left_pad
from corrector.errors import UserError
from corrector.models import LanguageModel


class PlainDecoder:
    """What `Decoder` does, batch after batch; drafts and sessions are not used."""

    def __init__(
        self, lm: LanguageModel, steering: Steering | None = None, temperature: float = 0.0, batch_size: int = 64
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is below 1; choose --batch-size 1 or more")
        self.lm, self.steering, self.temperature, self.batch_size = lm, steering, temperature, batch_size
        self._waiting: list[Job] = []

    @contextmanager
    def running(self) -> Generator[PlainDecoder]:
        """Nothing is held between the steps."""
        yield self

    @property
    def load(self) -> int:
        """Rows waiting."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn."""
        if job.on_draft is not None:
            raise RuntimeError("on_draft needs the fast decoder: plain decoding verifies no drafts")
        self._waiting.append(job)

    def forget(self, session: object) -> None:
        """Nothing is remembered."""

    def step(self) -> list[tuple[Job, Output]]:
        """Decode one batch: of the waiting jobs the first ones, and of those that are alike in being steered."""
        first = self._waiting[0].row >= 0
        jobs = [job for job in self._waiting if (job.row >= 0) == first][: self.batch_size]
        taken = set(map(id, jobs))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return list(
            zip(jobs, decode_batch(self.lm, jobs, self.steering if first else None, self.temperature), strict=True)
        )


@torch.inference_mode()
def decode_batch(
    lm: LanguageModel, jobs: Sequence[Job], steering: Steering | None = None, temperature: float = 0.0
) -> list[Output]:
    """Continue one left-padded batch, token by token, on the library's own cache."""
    from transformers import DynamicCache

    prompts, rows = [job.prompt for job in jobs], [job.row for job in jobs]
    ids, mask, positions = left_pad([p.ids for p in prompts], lm)
    cache = DynamicCache(config=lm.model.config)
    draws = [torch.Generator().manual_seed(job.seed or 0) for job in jobs] if temperature > 0 else []
    written: list[list[int]] = [[] for _ in jobs]
    outputs: dict[int, Output] = {}
    live = list(range(len(jobs)))
    with steering.attach(lm.model) if steering else nullcontext():
        if steering:
            steering.begin(rows, prompts)
        while live:
            if steering:
                steering.forward(positions, mask[:, -positions.shape[1] :])
            logits = lm.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens: list[int] = greedy(logits).tolist()
            if draws:
                tokens = [draw(logits[j], temperature, draws[i]) for j, i in enumerate(live)]
            kept: list[int] = []
            for j, (i, token) in enumerate(zip(live, tokens, strict=True)):
                job, ended = jobs[i], token == lm.eos_id
                if not ended:
                    written[i].append(token)
                full = len(written[i]) == job.max_new_tokens
                if ended or full or (job.stop is not None and job.stop(written[i])):
                    n_fed = len(prompts[i]) + len(written[i]) - (not ended)
                    applied = checked_applied(steering, j, rows[i], n_fed) if steering else 0
                    outputs[i] = Output(tuple(written[i]), ended, applied)
                else:
                    kept.append(j)
            if len(kept) < len(live):
                index = torch.tensor(kept, dtype=torch.long)  # on the CPU, which serves caches of every device
                live, mask, positions = [live[j] for j in kept], mask[index], positions[index]
                if live:
                    cache.batch_select_indices(index)
                    if steering:
                        steering.keep(index)
            ids = torch.tensor([[tokens[j]] for j in kept], dtype=torch.long, device=lm.device)
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
    return [outputs[i] for i in range(len(jobs))]
