"""The training loop: streamed packed batches, AdamW with cosine decay, exact resume.

Own loop instead of transformers.Trainer: rows are drawn fresh by (seed, step) so that a resumed run sees the very
batches of a clean one, masks are four-dimensional, and checkpoints are safetensors where Trainer pickles. Several
processes cut the rows of a step among them and divide by the weight of them all, so that their number changes nothing
but the rounding of sums.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel, blocks, head_logits
from corrector.recipes import Train
from corrector.tasks.base import Problem, Task
from corrector.training.distributed import ALONE, Ranks, spread, unsynced
from corrector.training.draws import Draw, draws_at, problems_at
from corrector.training.packing import IGNORE, Batch, Packed, collate
from corrector.training.rows import corrector_row, written_row
from corrector.training.states import STATE, Progress, fill, resume_state, save_state

WARM_UP = 100


def batch_at(
    step: int, pool: list[Problem], task: Task, lm: LanguageModel, config: Train, part: tuple[int, int] = (0, 1)
) -> Batch:
    """The batch of a step, a function of (seed, step) alone; `part` (k, n) is every n-th row of it from row k on."""
    k, n = part
    if config.method == "stream" and config.role == "upstream":
        problems, rng = problems_at(step, pool, config)
        answers = [(p.question, task.upstream_spans(p, rng)) for p in problems]
        rows = [written_row(lm, question, spans) for question, spans in answers[k::n]]
    else:
        auxiliary = step < config.auxiliary * config.steps
        rows = [row_of(lm, draw, task, config, auxiliary) for draw in draws_at(step, pool, task, config)[k::n]]
    return collate(rows, lm.tokenizer.pad_token_id)


def row_of(lm: LanguageModel, draw: Draw, task: Task, config: Train, auxiliary: bool) -> Packed:
    """A draw as its method trains on it; ValueError for dpo, whose rows are trl's."""
    question, answer = draw.example.problem.question, draw.example.answer
    match config.method:
        case "stream":
            return corrector_row(lm, draw.example, draw.pairs, config, auxiliary)
        case "aligner":
            return corrector_row(lm, draw.example, [draw.whole], config, auxiliary, task.sentences)
        case "sft" | "expert":
            return written_row(lm, question, [(answer, True)])
        case "antiexpert":
            return written_row(lm, question, [(draw.draft, True)])
        case "dpo":
            raise ValueError("dpo is trained by corrector.training.preference, not by this loop")


def loss_of(model: Any, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy (nats a token) over the trained tokens."""
    return nll_of(model, batch)[0] / weight_of(batch)


def weight_of(batch: Batch) -> Tensor:
    """Sum of the weights of the trained tokens."""
    return batch.weights[batch.targets != IGNORE].sum()


def nll_of(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Weighted sum of the trained tokens' cross-entropy (nats), and how many they are."""
    # A mask wider than the scores would turn eager attention's scores to float32 and halve its speed.
    kind = batch.ids.device.type
    mask = batch.mask.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else batch.mask
    hidden = model.base_model(input_ids=batch.ids, attention_mask=mask, position_ids=batch.positions, use_cache=False)
    chosen = batch.targets != IGNORE
    logits = head_logits(model, hidden.last_hidden_state[chosen])
    nll = cross_entropy(logits.float(), batch.targets[chosen], reduction="none")
    return (nll * batch.weights[chosen]).sum(), chosen.sum()


class Summed(nn.Module):
    """`nll_of` as a module, which is what replicas and shards are made of; tensors one by one, as they expect."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        return nll_of(self.model, Batch(ids, positions, mask, targets, weights))


def learning_rate(step: int, config: Train) -> float:
    """Linear warm-up, then cosine to a tenth of the peak."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return config.lr * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def train(
    lm: LanguageModel, task: Task, pool: list[Problem], config: Train, folder: Path, ranks: Ranks = ALONE
) -> dict[str, float]:
    """Train `lm.model` in place; state goes to `folder` every `save_every` steps and is resumed from there.

    Of several processes, the first has the trained model in the end, and all have what is returned: trained tokens, the
    last loss (nats, mean of the final 50 steps), minutes of this machine, rows read (all that were drawn, or
    RuntimeError) and rows without a token to train on.
    """
    agree(lm, pool, config, ranks)
    # A sharded model cannot be put together in place, so the first process keeps a whole one to fill in the end.
    model = copy.deepcopy(lm.model) if config.shard and ranks.first else lm.model
    with _in_training(model, config):
        module = spread(Summed(model), blocks(model), ranks, config.shard)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=config.lr, betas=(0.9, 0.98), weight_decay=0.05)
        state = folder / STATE
        progress = resume_state(state, model, optimizer, config.batch)
        ranks.agree(state=progress.step)
        before, began = progress.minutes, time.monotonic()
        left = range(progress.step, config.steps)
        for step in (
            bar := tqdm(left, "train", config.steps, initial=left.start, mininterval=5, disable=not ranks.first)
        ):
            n_parts = ranks.size * config.accumulate
            own = range(ranks.rank * config.accumulate, (ranks.rank + 1) * config.accumulate)
            parts = [batch_at(step, pool, task, lm, config, (k, n_parts)) for k in own]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            optimizer.zero_grad()
            loss = _gradients(module, parts, step, config, ranks, progress)
            torch.nn.utils.clip_grad_norm_(weights, 1.0, error_if_nonfinite=True)
            optimizer.step()
            progress.recent = [*progress.recent[-49:], loss]
            if step % 50 == 0:
                bar.set_postfix(loss=f"{progress.loss:.3f}")
            progress.step, progress.minutes = step + 1, before + (time.monotonic() - began) / 60
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                save_state(state, model, optimizer, progress, ranks)
    if config.shard:
        fill(lm.model, model, ranks)
    return {
        "minutes": progress.minutes,
        "trained_tokens": float(progress.tokens),
        "loss": progress.loss,
        "rows": float(progress.rows),
        "bare_rows": float(progress.bare),
    }


@contextmanager
def _in_training(model: Any, config: Train) -> Generator[None]:
    """A model as it is trained: its blocks compiled, their activations recomputed; in evaluation afterwards."""
    model.train()
    if config.checkpointing:
        # transformers renames this on its way to 6; non-reentrant is what frozen embeddings need.
        if enable := getattr(model, "activation_checkpointing_enable", None):
            enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.compile:
        for block in blocks(model):
            block.forward = torch.compile(block.forward, dynamic=True)
    yield
    if config.compile:
        for block in blocks(model):
            del block.forward
    if config.checkpointing:
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    model.eval()


def agree(lm: LanguageModel, pool: list[Problem], config: Train, ranks: Ranks) -> None:
    """Raise UserError where the processes would not train one model on one set of questions."""
    if ranks.size > 1:
        h = hashlib.sha256("\x1e".join(f"{p.id}\x1f{p.question}" for p in pool).encode())
        ranks.agree(
            configuration=asdict(config),
            questions=h.hexdigest(),
            vocabulary=lm.tokenizer.get_vocab(),
            weights=[p.detach().double().sum().item() for p in lm.model.parameters()],
        )


def _gradients(
    module: nn.Module, parts: Sequence[Batch], step: int, config: Train, ranks: Ranks, progress: Progress
) -> float:
    """Add to the gradients those of the step's loss, count into `progress`, and return the loss.

    loss = sum of weight x nll over all rows / sum of weight over all rows, of all parts of all processes. Raises
    RuntimeError where a row or token that was drawn is not trained on, and for a loss that is not finite.
    """
    weight = sum((weight_of(b) for b in parts), torch.tensor(0.0))
    rows, bare, tokens, total = ranks.sums(
        sum(len(b.ids) for b in parts),
        sum(int((b.weights <= 0).all(1).sum()) for b in parts),
        sum(int((b.weights > 0).sum()) for b in parts),
        weight.item(),
    )
    if tokens == 0:
        raise UserError(f"step {step} draws no token to train on; raise batch (now {config.batch})")
    # One process divides by the very float32 that it summed.
    total = weight.to(ranks.device) if ranks.size == 1 else torch.tensor(total, device=ranks.device)
    loss = trained = 0.0
    for k, b in enumerate(parts):
        inputs = [t.to(ranks.device) for t in (b.ids, b.positions, b.mask, b.targets, b.weights)]
        with unsynced(module, last=k == len(parts) - 1):
            with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.precision != "float32"):
                nll, n_trained = module(*inputs)
                share = nll / total
            (share if ranks.size == 1 else share * ranks.size).backward()
        loss, trained = loss + share.item(), trained + n_trained.item()
    loss, trained = ranks.sums(loss, trained)
    if (rows, trained) != (config.batch, tokens):
        raise RuntimeError(
            f"step {step} trained {rows:.0f} of {config.batch} rows and {trained:.0f} of {tokens:.0f} tokens"
        )
    if not math.isfinite(loss):
        raise RuntimeError(f"loss is {loss} at step {step}; lower lr (now {config.lr})")
    progress.rows, progress.bare = progress.rows + int(rows), progress.bare + bare
    progress.tokens += int(tokens)
    return loss
