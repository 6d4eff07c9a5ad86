"""Extract a steering vector: contrast, capture, a direction per layer, and how well it separates held-out questions.

python -m steering.extract --corrector arithmetic --task arithmetic --out vector.safetensors
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from corrector import tasks
from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel, load
from corrector.tasks.base import Split, Task, data_hash
from probes.backends import BackendName
from probes.capture import Activations, capture_all
from probes.contrasts import (
    Contrast,
    as_corrected,
    check_leak,
    contrast_pairs,
    copy_rewrite,
    instruction,
    is_copy,
    minimal,
    teacher_forced,
)
from probes.directions import Direction, Method, fit
from probes.separability import separability
from probes.sites import Site
from steering.interventions import Gate
from steering.vectors import SteeringVector
from steering.vectors.cards import layer_table
from steering.vectors.origins import along, middle

ContrastKind = Literal["copy_rewrite", "annotated", "teacher_forced", "minimal", "instruction"]


STANDARD: tuple[Method, ...] = ("diff_means", "lat")
"""Always extracted, so that every vector's cosine to both is known."""


@dataclass(frozen=True)
class Extract:
    """Read a correction vector out of a corrector and save it as safetensors with its card."""

    corrector: str = "arithmetic"
    """Shipped reference, local folder or hub id of the corrector."""
    task: str = "arithmetic"
    """Task whose pairs are contrasted."""
    data: str = ""
    """Local path or hub id of the task's data, where the task needs some."""
    contrast: ContrastKind = "copy_rewrite"
    """What is contrasted: a suffix that the corrector rewrites with one that it copies (copy_rewrite), the same by the
    annotator's labels (annotated), two teacher-forced outputs, minimal pairs, or an instruction to rewrite with one to
    copy (instruction, for chat correctors)."""
    method: Method = "diff_means"
    """How a direction is fitted; its cosine to diff_means and lat is always reported."""
    span: str = "prompt_last"
    """Where it is read: prompt_last, last, question, prefix, output[0:4], first_divergence, ..."""
    site: Site = "resid_post"
    """What is read in every block."""
    backend: BackendName = "torch"
    """What runs the model and reads it; all give the same numbers within 2e-5."""
    pairs: int = 400
    """Matched pairs of the train split that the directions are fitted on."""
    validation: int = 200
    """Matched pairs of the validation split that they are tested on."""
    seed: int = 0
    """Seed of the problems drawn and of the bootstrap."""
    out: Path = Path("vector.safetensors")
    """File to write."""


def contrast_of(kind: ContrastKind, lm: LanguageModel, task: Task, split: Split, n: int, seed: int) -> Contrast:
    """Draw n matched pairs of a task's split as one kind of contrast.

    `copy_rewrite` goes by what the corrector itself copies and rewrites, so pairs that it treats alike are dropped
    (and counted).
    """
    if kind == "minimal":
        return minimal(lm, task.minimal_pairs(split, n, seed))
    pairs = contrast_pairs(task, split, n, seed)
    if kind == "copy_rewrite":
        return copy_rewrite(as_corrected(lm, task, pairs))
    if kind == "instruction":
        return instruction(pairs[::2])  # one of the two suffixes of every problem
    if kind == "annotated":
        return copy_rewrite(pairs)
    return teacher_forced(p for p in pairs if not is_copy(p))


def with_standard(method: Method) -> tuple[Method, ...]:
    """A method and the standard ones, each once."""
    return tuple(dict.fromkeys((*STANDARD, method)))


def extract_vectors(
    lm: LanguageModel,
    contrast_train: Contrast,
    contrast_validation: Contrast,
    methods: tuple[Method, ...] = STANDARD,
    spans: tuple[str, ...] = ("prompt_last",),
    site: Site = "resid_post",
    seed: int = 0,
    n_resamples: int = 1000,
    backend: BackendName = "torch",
) -> dict[tuple[str, str], SteeringVector]:
    """A vector for every (method, span), all from one pass over each contrast.

    Directions are fitted on `contrast_train` alone; AUROC with its interval is of `contrast_validation`. Raises
    UserError where the two share a question.
    """
    check_leak(contrast_train, contrast_validation)
    train, validation = (
        [capture_all(lm, sequences, (site,), spans=spans, backend=backend) for sequences in contrast.sequences(lm)]
        for contrast in (contrast_train, contrast_validation)
    )
    out: dict[tuple[str, str], SteeringVector] = {}
    for span in spans:
        pos, neg = (side[site, span] for side in train)
        held_pos, held_neg = (side[site, span] for side in validation)
        fitted = {method: fit(method, pos, neg) for method in methods}
        for method, directions in fitted.items():
            rng = np.random.default_rng([seed, *f"{method}/{span}".encode()])
            rows = separability(directions, held_pos, held_neg, rng, n_resamples)
            card: dict[str, Any] = {
                "contrast": contrast_train.kind,
                "data_hash": data_hash(contrast_train.pairs),
                "n": len(contrast_train),
                "dropped": contrast_train.dropped,
                "n_validation": len(contrast_validation),
                "layers": _layers(
                    directions, rows_by_layer={r.layer: (r.auroc, r.low, r.high) for r in rows}, acts=(pos, neg)
                ),
                "cosine": {
                    other: {str(k): _cosine(directions[k], fitted[other][k]) for k in directions}
                    for other in methods
                    if other != method
                },
                "seed": seed,
                "backend": backend,
                "versions": {name: _version(name) for name in ("corrector-lab", "torch", "transformers")},
            }
            vectors = {k: direction.vector for k, direction in directions.items()}
            out[method, span] = SteeringVector(
                vectors, method, site, span, lm.fingerprint, lm.template.name, lm.ref, card
            )
    return out


def extract(config: Extract) -> SteeringVector:
    """Run one extraction and save the vector to `config.out`."""
    lm = load(config.corrector)
    task = tasks.get(config.task, data=config.data)
    train = contrast_of(config.contrast, lm, task, "train", config.pairs, config.seed)
    validation = contrast_of(config.contrast, lm, task, "validation", config.validation, config.seed)
    methods = with_standard(config.method)
    vectors = extract_vectors(
        lm, train, validation, methods, (config.span,), config.site, config.seed, backend=config.backend
    )
    vector = vectors[config.method, config.span]
    vector.card["task"] = config.task
    vector.save(config.out)
    return vector


def main(config: Extract) -> None:
    """Extract, save, and print layer, AUROC, norm and dose."""
    from rich.console import Console

    if config.out.is_dir():
        raise UserError(f"out={str(config.out)!r} is a folder; give a file such as vector.safetensors")
    vector = extract(config)
    console = Console()
    console.print(layer_table(vector))
    console.print(f"wrote {config.out}", soft_wrap=True)


def _layers(
    directions: dict[int, Direction],
    rows_by_layer: dict[int, tuple[float, float, float]],
    acts: tuple[Activations, Activations],
) -> dict[str, dict[str, float | None]]:
    """What the card says of every layer; dose = ‖v‖ / mean‖h‖ over both classes of the training contrast.

    `origin` and `threshold` are projections h·u (`steering.vectors.origins`), so that the vector can clamp and gate.
    """
    out: dict[str, dict[str, float | None]] = {}
    for k, direction in directions.items():
        mean_norm = float(torch.cat([a.at(k) for a in acts]).norm(dim=-1).mean())
        area, low, high = rows_by_layer[k]
        out[str(k)] = {
            "auroc": area,
            "low": low,
            "high": high,
            "norm": direction.norm,
            "mean_norm": mean_norm,
            "dose": direction.norm / mean_norm,
            "explained_variance": direction.explained_variance,
            "origin": along(middle(*acts, k), direction.vector),
            "threshold": Gate.of(direction).threshold,
        }
    return out


def _cosine(a: Direction, b: Direction) -> float:
    return float(a.unit @ b.unit)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    run_cli(Extract, main, "steering.extract")
