"""The controls of one sweep by name, and those that cannot be made, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from corrector.decoding import check_request
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Pair, Task
from probes.contrasts import INSTRUCTIONS
from steering.controls.drawn import Directions, orthogonal_controls, other_layers, random_controls
from steering.controls.fitted import length_controls, shuffled_controls
from steering.controls.states import States, train_states
from steering.extract import ContrastKind
from steering.interventions import Gate
from steering.vectors import SteeringVector

Controls = int | Literal["full"]
RANDOM, ORTHOGONAL, SHUFFLED = 20, 5, 5
"""How many of each the full battery has."""
PROMPTS = {"prompt-copy": INSTRUCTIONS[1], "prompt-rewrite": INSTRUCTIONS[0]}
"""What stands behind the question in the prompt baselines, which steer nothing."""


@dataclass(frozen=True)
class Battery:
    """Null `directions` by name, at the layers where they are written; `prompts` by name; `absent`: name to reason."""

    directions: Directions = field(default_factory=dict)
    prompts: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the directions as safetensors; the rest is in `record`."""
        tensors = {f"{name}/{k}": v for name, by_layer in self.directions.items() for k, v in by_layer.items()}
        save_file({key: v.clone().contiguous() for key, v in tensors.items()}, path)

    def record(self, vector: SteeringVector) -> dict[str, Any]:
        """What selection.json says of them: names in order, layers, cosine to v, prompts, and what is absent and why.

        The cosine is to the vector at the layer where the control is written, the mean over layers; None where the
        vector has no such layer.
        """
        about = {
            name: {"layers": list(by_layer), "cosine": _cosine(by_layer, vector)}
            for name, by_layer in self.directions.items()
        }
        return {"names": list(self.directions), "directions": about, "prompts": self.prompts, "absent": self.absent}


def drawn_battery(vector: SteeringVector, layers: Sequence[int], n: int, seed: int) -> Battery:
    """N random directions and nothing else."""
    return Battery(random_controls(vector, layers, n, seed))


def full_battery(
    lm: LanguageModel,
    task: Task,
    vector: SteeringVector,
    layers: Sequence[int],
    pairs: Sequence[Pair],
    contrast: ContrastKind,
    n_train: int,
    seed: int,
    gate: Gate | None = None,
) -> Battery:
    """Every control of the sweep: random, orthogonal, shuffled labels, length, other layers and prompt baselines.

    Fitted ones are of n_train matched pairs of the train split under the vector's contrast. `pairs` are what is
    corrected, and only tell whether the model can read the prompt baselines. What cannot be made is in `absent`, and so
    is what would be written before the `gate` can be read.
    """

    @cache
    def train() -> States:
        return train_states(lm, task, vector, layers, contrast, n_train, seed)

    makers: dict[tuple[str, ...], Callable[[], Directions]] = {
        ("random",): lambda: random_controls(vector, layers, RANDOM, seed),
        ("orthogonal",): lambda: orthogonal_controls(vector, layers, ORTHOGONAL, seed),
        ("shuffled",): lambda: shuffled_controls(vector, *train()[:2], layers, SHUFFLED, seed),
        ("length", "without-length"): lambda: length_controls(vector, *train(), layers),
        ("wrong-layer", "other-layer"): lambda: other_layers(vector, layers, lm.n_layers),
    }
    directions: Directions = {}
    prompts: dict[str, str] = {}
    absent: dict[str, str] = {}
    for names, make in makers.items():
        try:
            directions |= make()
        except UserError as error:
            absent |= dict.fromkeys(names, str(error))
    if gate is not None:
        late = {name: min(by_layer) for name, by_layer in directions.items() if min(by_layer) < gate.layer}
        directions = {name: by_layer for name, by_layer in directions.items() if name not in late}
        absent |= {name: f"written at layer {k}, before the gate at layer {gate.layer}" for name, k in late.items()}
    for name, text in PROMPTS.items():
        try:
            encoded = [lm.encode(f"{p.question} {text}", p.prefix, p.last) for p in pairs]
            check_request(lm, encoded, task.max_sentence_tokens, 0.0, None)
            prompts[name] = text
        except UserError as error:
            absent[name] = str(error)
    return Battery(directions, prompts, absent)


def load_battery(path: Path, record: dict[str, Any]) -> Battery:
    """What `save` and `record` kept, in the same order."""
    tensors = load_file(path)
    directions = {
        name: {int(k): tensors[f"{name}/{k}"] for k in record["directions"][name]["layers"]} for name in record["names"]
    }
    return Battery(directions, {k: record["prompts"][k] for k in PROMPTS if k in record["prompts"]}, record["absent"])


def _cosine(by_layer: dict[int, torch.Tensor], vector: SteeringVector) -> float | None:
    if any(k not in vector.layers for k in by_layer):
        return None
    cosines = [float(torch.cosine_similarity(v, vector.at(k), dim=0)) for k, v in by_layer.items()]
    return sum(cosines) / len(cosines)
