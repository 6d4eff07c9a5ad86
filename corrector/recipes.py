"""How every reference checkpoint is made: one frozen config, shared by `python -m corrector.train` and the card."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from corrector.errors import UserError


@dataclass(frozen=True)
class Train:
    """Train a corrector (or an upstream) from scratch or from a checkpoint, and write its card.

    Resumes by itself: the same command again goes on from the last checkpoint and ends with the same weights.
    """

    recipe: str = ""
    """A reference to retrain (dialogue-0, arithmetic-m, ...); other flags then change that recipe."""
    task: str = "dialogue"
    """dialogue, arithmetic, gsm8k or jsonl."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    role: Literal["corrector", "upstream"] = "corrector"
    """A corrector learns corrections of given sentences; an upstream learns to write answers."""
    init: str = ""
    """Checkpoint to start from (reference, folder or hub id); empty: from scratch with the sizes below."""
    d: int = 128
    """Width of the residual stream."""
    layers: int = 6
    """Number of blocks."""
    heads: int = 4
    """Attention heads."""
    ff: int = 352
    """Width of the SwiGLU."""
    vocabulary: int = 0
    """Size of a byte-level BPE vocabulary; 0: whole words, for the generated tasks."""
    opener: str = ""
    """arithmetic only: a word that opens every rewrite of a wrong sentence; empty: repaired in place."""
    steps: int = 5000
    """Optimiser steps."""
    batch: int = 4
    """Problems a step."""
    pool: int = 4000
    """Training questions that rows are drawn from, fewer where the split holds fewer."""
    branches: int = 4
    """Upstream sentences of a problem that one row trains on, drawn anew each time (short rows train faster)."""
    lr: float = 1.5e-3
    """Peak learning rate; 100 steps of warm-up, then cosine to a tenth."""
    trunk_weight: float = 0.3
    """Loss weight of the corrected answer as plain text, during the auxiliary steps."""
    last_weight: float = 0.3
    """Loss weight of right sentences where they stand as `last`, during the auxiliary steps."""
    auxiliary: float = 0.6
    """Share of the steps with auxiliary losses; after them the loss is on the correction only."""
    first_weight: float = 1.0
    """Loss weight of a correction's first token, where copy or rewrite is often decided."""
    seed: int = 0
    """Seed of weights and data order."""
    out: Path = Path()
    """Folder of the finished checkpoint; default runs/train-<recipe or task>."""
    compile: bool = False
    """Compile the blocks (needs a C++ compiler): 1.4 times as fast here after a minute and a half of compiling."""
    save_every: int = 500
    """Steps between checkpoints that a killed run resumes from."""
    evaluate: int = 1000
    """Held-out pairs for the card's scores; 0: none."""


_DIALOGUE = Train(task="dialogue", steps=4000, first_weight=3.0, last_weight=0.15, compile=True)
_ARITHMETIC = Train(task="arithmetic", steps=8000, last_weight=0.5, trunk_weight=1.0, auxiliary=0.7, compile=True)
_UPSTREAM = Train(role="upstream", layers=4, batch=16, seed=10)

RECIPES: dict[str, Train] = {
    "dialogue-upstream": replace(_UPSTREAM, task="dialogue", steps=2000),
    "dialogue-0": _DIALOGUE,
    "dialogue-1": replace(_DIALOGUE, seed=1),
    "dialogue-2": replace(_DIALOGUE, seed=2),
    "arithmetic-upstream": replace(_UPSTREAM, task="arithmetic", steps=4000),
    "arithmetic-s": replace(_ARITHMETIC, d=64, layers=4, ff=176),
    "arithmetic-m": replace(_ARITHMETIC, d=96, layers=5, ff=256),
    "arithmetic-base": replace(_ARITHMETIC, steps=6000, trunk_weight=0.3, auxiliary=0.6),
    "arithmetic-l": replace(_ARITHMETIC, init="runs/train-arithmetic-base", batch=6, seed=1),
    "gsm8k": Train(task="gsm8k", vocabulary=2048, pool=8000, steps=12000, compile=True),
}
"""In the order in which they are trained."""
STARTS = ("arithmetic-base",)
"""Only the start of another recipe: trained, not shipped."""


def recipe(name: str) -> Train:
    """A recipe by the name of the reference it makes; UserError names the ones there are."""
    if name not in RECIPES:
        raise UserError(f"recipe={name!r} is not one of {', '.join(RECIPES)}; choose --recipe among them")
    return RECIPES[name]
