"""How far a training is, and its state on disk: whole safetensors, however many processes write or read it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from corrector.training.distributed import Ranks, like, whole

STATE = "state.safetensors"


@dataclass
class Progress:
    """How far a run is: of all processes, and since its first step."""

    step: int = 0
    minutes: float = 0.0
    tokens: int = 0
    recent: list[float] = field(default_factory=list)
    """Losses of the last 50 steps, nats a token."""
    rows: int = 0
    """Rows that the model has read."""
    bare: float = 0.0
    """Rows among them without a token to train on; nan where a state from before did not count them."""

    @property
    def loss(self) -> float:
        """Mean of the recent losses; nan before the first step."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan


def _named(model: Any, optimizer: Any) -> Iterator[tuple[str, Tensor]]:
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        yield f"model.{name}", p.data
        for key in ("exp_avg", "exp_avg_sq", "step"):
            if key in optimizer.state.get(p, {}):
                yield f"{key}.{name}", optimizer.state[p][key]


def save_state(path: Path, model: Any, optimizer: Any, progress: Progress, ranks: Ranks) -> None:
    """Write the state, whole; every process must take part, the first one writes."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in _named(model, optimizer):
        gathered = whole(tensor)
        if ranks.first:
            tensors[name] = gathered.cpu().contiguous()
    if not ranks.first:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    save_file(tensors, half, {key: json.dumps(value) for key, value in asdict(progress).items()})
    half.replace(path)


def resume_state(path: Path, model: Any, optimizer: Any, batch: int) -> Progress:
    """Take weights and optimiser state from a state of any number of processes, of each tensor what belongs here."""
    if not path.is_file():
        return Progress()
    with safe_open(path, "pt") as f, torch.no_grad():
        told = {key: json.loads(value) for key, value in f.metadata().items()}
        for name, p in model.named_parameters():
            if p.requires_grad:
                p.copy_(like(f.get_tensor(f"model.{name}"), p))
                moments = {key: like(f.get_tensor(f"{key}.{name}"), p).clone() for key in ("exp_avg", "exp_avg_sq")}
                optimizer.state[p] = {"step": f.get_tensor(f"step.{name}").clone(), **moments}
    # A state from before rows were counted: every step read its whole batch.
    before: dict[str, Any] = {"rows": told["step"] * batch, "bare": math.nan}
    return Progress(**(before | told))


def fill(target: Any, trained: Any, ranks: Ranks) -> None:
    """Copy what was trained in shards into the whole model of the first process; every process must take part."""
    target.eval()
    for name, p in trained.named_parameters():
        if p.requires_grad:
            full = whole(p.data)
            if ranks.first:
                target.get_parameter(name).data.copy_(full)
