"""The training loop: streamed packed batches, AdamW with cosine decay, exact resume.

Own loop instead of transformers.Trainer: rows are drawn fresh by (seed, step) so that a resumed run sees the very
batches of a clean one, masks are four-dimensional, and checkpoints are safetensors where Trainer pickles.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from corrector.draws import Draw, draws_at, problems_at
from corrector.errors import UserError
from corrector.models import LanguageModel, blocks, head_logits
from corrector.packing import IGNORE, Batch, Packed, collate
from corrector.recipes import Train
from corrector.rows import corrector_row, written_row
from corrector.tasks.base import Problem, Task

WARM_UP = 100
STATE = "state.safetensors"


def batch_at(step: int, pool: list[Problem], task: Task, lm: LanguageModel, config: Train) -> Batch:
    """The batch of a step, a function of (seed, step) alone."""
    if config.method == "stream" and config.role == "upstream":
        problems, rng = problems_at(step, pool, config)
        rows = [written_row(lm, p.question, task.upstream_spans(p, rng)) for p in problems]
    else:
        auxiliary = step < config.auxiliary * config.steps
        rows = [row_of(lm, draw, task, config, auxiliary) for draw in draws_at(step, pool, task, config)]
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
            raise ValueError("dpo is trained by corrector.preference, not by this loop")


def loss_of(model: Any, batch: Batch) -> torch.Tensor:
    """Weighted mean cross-entropy (nats a token) over the trained tokens."""
    # A mask wider than the scores would turn eager attention's scores to float32 and halve its speed.
    mask = batch.mask.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else batch.mask
    hidden = model.base_model(input_ids=batch.ids, attention_mask=mask, position_ids=batch.positions, use_cache=False)
    chosen = batch.targets != IGNORE
    logits = head_logits(model, hidden.last_hidden_state[chosen])
    nll = cross_entropy(logits.float(), batch.targets[chosen], reduction="none")
    weights = batch.weights[chosen]
    return (nll * weights).sum() / weights.sum()


def learning_rate(step: int, config: Train) -> float:
    """Linear warm-up, then cosine to a tenth of the peak."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return config.lr * warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / config.steps)))


def train(lm: LanguageModel, task: Task, pool: list[Problem], config: Train, folder: Path) -> dict[str, float]:
    """Train `lm.model` in place; state goes to `folder` every `save_every` steps and is resumed from there.

    Returns the trained token count, the last loss (nats, mean of the final 50 steps) and minutes of this machine.
    """
    model = lm.model.train()
    if config.compile:
        for block in blocks(model):
            block.forward = torch.compile(block.forward, dynamic=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.05)
    state = folder / STATE
    start, minutes, tokens, recent = _resume(state, model, optimizer)
    began = time.monotonic()
    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="train", mininterval=5)
    for step in bar:
        batch = batch_at(step, pool, task, lm, config)
        n_trained = int((batch.targets != IGNORE).sum())
        if n_trained == 0:
            raise UserError(f"step {step} draws no token to train on; raise batch (now {config.batch})")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        with torch.autocast(lm.device.type, dtype=torch.bfloat16):
            loss = loss_of(model, batch)
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {step}; lower lr (now {config.lr})")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        tokens += n_trained
        recent = [*recent[-49:], loss.item()]
        if step % 50 == 0:
            bar.set_postfix(loss=f"{sum(recent) / len(recent):.3f}")
        if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
            spent = minutes + (time.monotonic() - began) / 60
            _save(state, model, optimizer, {"step": step + 1, "minutes": spent, "tokens": tokens, "recent": recent})
    if config.compile:
        for block in blocks(model):
            del block.forward
    model.eval()
    spent = minutes + (time.monotonic() - began) / 60
    last = sum(recent) / len(recent) if recent else float("nan")
    return {"minutes": spent, "trained_tokens": float(tokens), "loss": last}


def _named(model: Any, optimizer: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name, p in model.named_parameters():
        yield f"model.{name}", p.data
        for key in ("exp_avg", "exp_avg_sq", "step"):
            if key in optimizer.state.get(p, {}):
                yield f"{key}.{name}", optimizer.state[p][key]


def _save(path: Path, model: Any, optimizer: Any, progress: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    metadata = {key: json.dumps(value) for key, value in progress.items()}
    save_file({k: v.contiguous() for k, v in _named(model, optimizer)}, half, metadata)
    half.replace(path)


def _resume(path: Path, model: Any, optimizer: Any) -> tuple[int, float, int, list[float]]:
    if not path.is_file():
        return 0, 0.0, 0, []
    with safe_open(path, "pt") as f:
        saved = {k: f.get_tensor(k) for k in f.keys()}
        progress = {key: json.loads(value) for key, value in f.metadata().items()}
    for name, p in model.named_parameters():
        p.data.copy_(saved[f"model.{name}"])
        optimizer.state[p] = {key: saved[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
    return progress["step"], progress["minutes"], progress["tokens"], progress.get("recent", [])
