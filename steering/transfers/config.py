"""What a transfer is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corrector.errors import UserError
from corrector.tasks.base import Split
from probes.directions import Method
from steering.extract import ContrastKind
from steering.interventions.positions import check_span

How = Literal["raw", "procrustes", "shuffled"]


@dataclass(frozen=True)
class Transfer:
    """Steer every corrector with the others' vectors, and with its own from other tasks.

    Vectors and maps are fitted on the train split, all numbers are of the test split, and each mapped vector stands
    beside random directions that were mapped the same way. The same command again resumes a stopped run.
    """

    corrector: tuple[str, ...] = ("dialogue-0", "dialogue-1", "dialogue-2")
    """Correctors (references, folders or hub ids): seeds, sizes, or one alone with several --task."""
    task: tuple[str, ...] = ("dialogue",)
    """dialogue, arithmetic, gsm8k, jsonl: one or several; a corrector that lacks a task's words goes without it."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    layers: tuple[int, ...] = (4,)
    """Layer that is read and steered: one for all correctors, or one for each."""
    span: str = "prompt_last"
    """Tokens that vectors are read at (prompt_last, last, ...)."""
    write: str = ""
    """Tokens that are steered (prompt_last+output, ...); empty: those that vectors are read at."""
    how: tuple[How, ...] = ("raw", "procrustes")
    """How a vector comes to another corrector: as it is (raw, equal widths), turned by a map of the two spaces
    (procrustes), or, as a control, by one that was fitted with the source's stimuli in another order (shuffled)."""
    scale: Literal["own", "kept"] = "own"
    """Norm of a mapped vector: that of the target's own vector, so that directions alone are compared, or as it was."""
    coef: tuple[float, ...] = (-1.0, 0.0, 1.0)
    """Coefficients that the slope is fitted over; 0, the reference, is always measured."""
    method: Method = "diff_means"
    """How the directions are fitted."""
    contrast: ContrastKind = "copy_rewrite"
    """What is contrasted."""
    controls: int = 3
    """Random directions of each source, mapped like its vector."""
    items: int = 100
    """Test pairs a cell."""
    pairs: int = 240
    """Contrast pairs that vectors and maps are fitted on (train split); maps see both sides, unlabelled."""
    validation: int = 60
    """Contrast pairs that vectors and maps are judged on (validation split)."""
    seed: int = 0
    """Seed of pairs, items, controls and intervals."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/transfer-<hash of this configuration>."""

    @property
    def fitted(self) -> dict[Split, int]:
        """How many contrast pairs of each split vectors and maps are fitted and judged on."""
        return {"train": self.pairs, "validation": self.validation}


def check(config: Transfer) -> None:
    """Raise UserError for a configuration that cannot run, before anything is loaded or written."""
    for name, least in (("controls", 3), ("items", 2), ("pairs", 2), ("validation", 2)):
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    for name in ("corrector", "task", "how"):
        given: tuple[str, ...] = getattr(config, name)
        if not given or len(set(given)) < len(given):
            raise UserError(f"{name}={list(given)} is empty or names one twice; name each of --{name} once")
    if len(config.corrector) * len(config.task) < 2:
        raise UserError("one corrector on one task has nothing to transfer to; give several --corrector, or --task")
    if len(config.layers) not in (1, len(config.corrector)):
        raise UserError(
            f"layers={list(config.layers)}: give one of --layers for all, or one for each of "
            f"{len(config.corrector)} correctors"
        )
    if bad := [c for c in config.coef if not math.isfinite(c)]:
        raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
    if not set(config.coef) - {0}:
        raise UserError(f"coef={list(config.coef)} has no slope; give a --coef other than 0")
    for span in (config.span, config.write or config.span):
        check_span(span)
