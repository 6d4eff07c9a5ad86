"""What a scan is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corrector import tasks
from corrector.errors import UserError
from corrector.models import ALIASES, references
from probes.directions import Method


@dataclass(frozen=True)
class Scan:
    """Scan correctors along their correction direction: scores over layers and output tokens, and onset layers.

    Directions are fitted on the train split, scores are z-scored on neutral tokens of the validation split, and what
    is scanned is the corrector's own greedy correction of test items. The same command again resumes a stopped run.
    """

    corrector: tuple[str, ...] = ()
    """Correctors (references, folders or hub ids), a panel each; empty: the task's reference."""
    task: str = "dialogue"
    """Task whose pairs are corrected: dialogue, arithmetic, gsm8k, jsonl."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    method: Method = "diff_means"
    """How the directions are fitted. The band of chance is always of diff_means, which is cheap to refit."""
    span: str = "prompt_last"
    """Where they are read: prompt_last, last, output[0:1], ..."""
    tokens: int = 20
    """Output tokens that are scanned, behind the prompt's last position (column 0)."""
    pairs: int = 200
    """Problems of the train split, a copied and a rewritten suffix each, that the directions are fitted on."""
    items: int = 100
    """Problems of the test split that are scanned, two suffixes each."""
    neutral: int = 60
    """Problems of the validation split whose question and prefix tokens give the mean and deviation of a z-score."""
    shuffles: int = 200
    """Fits on shuffled labels that the band of chance is made of."""
    resamples: int = 1000
    """Bootstrap resamples of problems for AUROC and onset layers."""
    bound: float = 3.0
    """Published variant: scores are clipped to -bound..bound (the paper's colours end at 3, the notebook's at 2.3)."""
    examples: int = 4
    """Copied and rewritten items each whose scores are kept token by token."""
    seed: int = 0
    """Seed of items, shuffles and resamples."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/scan-<hash of this configuration>."""


LEAST = {"tokens": 1, "pairs": 5, "items": 5, "neutral": 2, "shuffles": 100, "resamples": 100, "examples": 0}
"""Smallest value of each count; fewer than 100 shuffles give no 95 % band."""


def check(config: Scan) -> None:
    """Raise UserError for a configuration that cannot run, before anything is loaded or written."""
    for name, least in LEAST.items():
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    if not (math.isfinite(config.bound) and config.bound > 0):
        raise UserError(f"bound={config.bound} is no positive number; choose --bound such as 3")
    if len(set(config.corrector)) < len(config.corrector):
        raise UserError(f"corrector={list(config.corrector)} names one twice; give each of --corrector once")
    if not config.corrector and config.task in tasks.NAMES:
        if ALIASES.get(config.task, config.task) not in references():
            raise UserError(f"task {config.task!r} has no reference corrector here; give --corrector a folder")
