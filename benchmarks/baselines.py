"""What a sweep's rows cost without the lab: generate and a forward hook, as a researcher writes them down."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from corrector.decoding import batches, left_pad
from corrector.models import LanguageModel, blocks
from corrector.prompts import Encoded

Ids = tuple[int, ...]


@contextmanager
def added(lm: LanguageModel, layer: int, v: Float[Tensor, " d"], columns: Int[Tensor, " batch"]) -> Generator[None]:
    """Add v behind a block at one column of every row, in forwards of more than one token."""

    def hook(_: Any, __: Any, h: Tensor) -> Tensor | None:
        if h.shape[1] == 1:  # a token that was generated
            return None
        h = h.clone()
        h[torch.arange(len(h), device=h.device), columns] += v
        return h

    handle = blocks(lm.model)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def generate(lm: LanguageModel, prompts: Sequence[Encoded], new: int, **options: Any) -> list[list[int]]:
    """One left-padded batch through HF generate, greedy unless asked otherwise; tokens before the end token."""
    ids, mask, _ = left_pad([p.ids for p in prompts], lm)
    settings = {"do_sample": False, "eos_token_id": lm.eos_id, "pad_token_id": lm.eos_id} | options
    tokens = lm.model.generate(input_ids=ids, attention_mask=mask.long(), max_new_tokens=new, **settings)
    return [cut(row, lm.eos_id) for row in tokens[:, ids.shape[1] :].tolist()]


def cut(ids: list[int], eos_id: int) -> list[int]:
    """Tokens before the end token."""
    return ids[: ids.index(eos_id)] if eos_id in ids else ids


def edits(
    lm: LanguageModel, prompts: Sequence[Encoded], layer: int, v: Tensor, new: int, batch_size: int
) -> list[list[int]]:
    """One cell of a sweep: v added at the last token of every prompt, then generate, batch after batch."""
    out: dict[int, list[int]] = {}
    for rows in batches(prompts, batch_size):
        longest = max(len(prompts[r]) for r in rows)
        last = torch.full((len(rows),), longest - 1, device=lm.device)
        with added(lm, layer, v, last):
            out |= dict(zip(rows, generate(lm, [prompts[r] for r in rows], new), strict=True))
    return [out[i] for i in range(len(prompts))]


@torch.no_grad()
def divergences(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    targets: Sequence[Ids],
    layer: int,
    v: Tensor,
    batch_size: int,
) -> list[float]:
    """One cell's KL(unsteered ‖ steered) a token: both sides teacher-forced on the unsteered tokens."""
    out: dict[int, float] = {}
    for rows in batches(prompts, batch_size):
        fed = [(*prompts[r].ids, *targets[r][:-1]) for r in rows]
        ids, mask, positions = left_pad(fed, lm)
        inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions, "use_cache": False}
        last = torch.tensor([-len(targets[r]) for r in rows], device=lm.device)
        plain = lm.model(**inputs).logits
        with added(lm, layer, v, last):
            steered = lm.model(**inputs).logits
        log_p, log_q = plain.log_softmax(-1), steered.log_softmax(-1)
        kl = (log_p.exp() * (log_p - log_q)).sum(-1)
        for j, r in enumerate(rows):
            out[r] = float(kl[j, -len(targets[r]) :].mean())
    return [out[i] for i in range(len(prompts))]


@torch.no_grad()
def bare(lm: LanguageModel, sequences: Sequence[Ids], batch_size: int) -> None:
    """All tokens in one forward a batch, rows of like length together: no cache, no hook, nothing kept."""
    order = sorted(sequences, key=len)
    for at in range(0, len(order), batch_size):
        ids, mask, positions = left_pad(order[at : at + batch_size], lm)
        lm.model(input_ids=ids, attention_mask=mask.long(), position_ids=positions, use_cache=False)


def fastest(sizes: Sequence[int], run: Callable[[int], Any], tries: int = 2) -> int:
    """The batch size that costs least, tried in another order each time; the least of its times counts."""
    if len(sizes) == 1:
        return sizes[0]
    took: dict[int, list[float]] = {size: [] for size in sizes}
    for t in range(tries):
        for size in random.Random(t).sample(list(sizes), len(sizes)):
            start = time.process_time()
            run(size)
            took[size].append(time.process_time() - start)
    return min(sizes, key=lambda size: min(took[size]))
