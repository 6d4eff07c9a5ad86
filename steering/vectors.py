"""Steering vectors: a direction per layer in natural units, saved as safetensors with a card in the header."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from corrector.errors import UserError
from corrector.models import LanguageModel

FORMAT = "corrector-lab steering vector 1"


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """`directions[layer]` [d], float32, in natural units: coef 1 adds the classes' mean difference.

    `site` and `span` say where it was read, `fingerprint`, `template` and `ref` of which model; `card` is its record
    (data hash, n, explained variance, held-out AUROC and mean ‖h‖ per layer, versions), JSON values only.
    """

    directions: dict[int, Float[Tensor, " d"]]
    method: str
    site: str
    span: str
    fingerprint: str
    template: str
    ref: str
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.directions:
            raise UserError("a steering vector needs a direction of at least one layer")
        for layer, v in self.directions.items():
            if v.ndim != 1 or v.shape != next(iter(self.directions.values())).shape:
                raise UserError(f"layer {layer} of the steering vector has shape {tuple(v.shape)}, not (d,) as others")
            if not torch.isfinite(v).all():
                raise UserError(f"layer {layer} of the steering vector holds a NaN or infinity; extract it anew")

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted(self.directions))

    @property
    def d(self) -> int:
        return len(self.directions[self.layers[0]])

    def at(self, layer: int) -> Float[Tensor, " d"]:
        """The direction of a layer; UserError names the layers there are."""
        if layer not in self.directions:
            raise UserError(f"layer={layer} not in {_ranges(self.layers)}; choose --layers in that range")
        return self.directions[layer]

    def check(self, lm: LanguageModel, force: bool = False) -> None:
        """Raise UserError unless the vector was read from this very model.

        `force` lets another model of the same width and depth pass; no force makes a wrong width or depth fit.
        """
        d = int(lm.model.config.hidden_size)
        if self.d != d or self.layers[-1] >= lm.n_layers:
            raise UserError(
                f"vector of {self.ref!r} ({self.fingerprint}) has d={self.d} and layers {_ranges(self.layers)}, model "
                f"{lm.ref!r} ({lm.fingerprint}) d={d} and layers 0..{lm.n_layers - 1}; extract one from this model"
            )
        if self.fingerprint != lm.fingerprint and not force:
            raise UserError(
                f"vector was read from {self.ref!r} (fingerprint {self.fingerprint}), the model is {lm.ref!r} "
                f"(fingerprint {lm.fingerprint}); extract one from this model, or --force"
            )

    def save(self, path: str | Path) -> Path:
        """Write safetensors with all else as JSON in the header; the same vector gives the same bytes."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {k: getattr(self, k) for k in ("method", "site", "span", "fingerprint", "template", "ref", "card")}
        tensors = {f"layer.{k}": self.directions[k].detach().to("cpu", torch.float32).contiguous() for k in self.layers}
        # One key only, because the header's metadata has no fixed order of keys.
        header = {"card": json.dumps({"format": FORMAT, **record}, sort_keys=True, allow_nan=False)}
        save_file({k: v.clone() for k, v in tensors.items()}, path, metadata=header)
        return path

    @classmethod
    def load(cls, path: str | Path) -> SteeringVector:
        """Read what `save` wrote; UserError where the file is missing or no steering vector."""
        if not Path(path).is_file():
            raise UserError(f"steering vector {str(path)!r} is no file; make one with python -m steering.extract")
        try:
            with safe_open(path, framework="pt") as file:
                record = json.loads((file.metadata() or {}).get("card", "{}"))
                directions = {int(k.removeprefix("layer.")): file.get_tensor(k) for k in file.keys()}
        except (SafetensorError, ValueError) as error:
            raise UserError(
                f"{str(path)!r} is not a steering vector ({error}); give a file of steering.extract"
            ) from error
        if record.pop("format", None) != FORMAT:
            raise UserError(f"{str(path)!r} has no card of format {FORMAT!r}; give a file of steering.extract")
        return cls(directions, **record)


def _ranges(layers: tuple[int, ...]) -> str:
    """`0..5` where nothing is missing between, else the list."""
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}..{layers[-1]}" if whole else ", ".join(map(str, layers))
