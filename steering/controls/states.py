"""Activations of a vector's own training contrast: what controls are fitted on, and where their projections lie."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Task
from probes.capture import Activations, capture_all
from probes.sites import Site
from steering.controls.drawn import Directions
from steering.extract import ContrastKind, contrast_of
from steering.vectors import SteeringVector
from steering.vectors.origins import along, middle

States = tuple[Activations, Activations, list[int]]
"""Positives, negatives, and the length of every suffix, those of the positives first."""


def train_states(
    lm: LanguageModel,
    task: Task,
    vector: SteeringVector,
    layers: Sequence[int],
    contrast: ContrastKind,
    n: int,
    seed: int,
) -> States:
    """Read n matched pairs of the train split where `vector` was read; UserError where the contrast has none."""
    drawn = contrast_of(contrast, lm, task, "train", n, seed)
    site: Site = vector.site  # pyright: ignore[reportAssignmentType] (a vector's site is one that was captured)
    pos, neg = (
        capture_all(lm, sequences, (site,), sorted(layers), (vector.span,))[site, vector.span]
        for sequences in drawn.sequences(lm)
    )
    return pos, neg, [len(s.pair.last) for s in (*drawn.positives, *drawn.negatives)]


def control_origins(
    lm: LanguageModel,
    task: Task,
    vector: SteeringVector,
    directions: Directions,
    contrast: ContrastKind,
    n: int,
    seed: int,
) -> dict[str, Any]:
    """What selection.json says of controls under `clamp`: `origins`, by name and layer, and why there are none.

    The origin of a control w is m·w/‖w‖, m midway between the class means of the vector's own training contrast. The
    vector's origin is that same m along v, so that coefficient 0 takes every direction to what is usual along it.
    Where the contrast cannot be made, no control has one, `origins_absent` is the reason, and a line says so.
    """
    layers = sorted({k for by_layer in directions.values() for k in by_layer})
    if not layers:
        return {"origins": {}}
    try:
        pos, neg, _ = train_states(lm, task, vector, layers, contrast, n, seed)
    except UserError as error:
        tqdm.write(f"{task.name}: controls are left out, for want of origins: {error}", file=sys.stderr)
        return {"origins": {}, "origins_absent": str(error)}
    at = {k: middle(pos, neg, k) for k in layers}
    return {
        "origins": {
            name: {str(k): along(at[k], w) for k, w in by_layer.items()} for name, by_layer in directions.items()
        }
    }
