"""Steering vectors: a direction per layer in natural units, saved as safetensors with a card in the header.

Vectors of one model, site and template form a vector space: `a + b`, `a - b`, `0.5 * a`, `-a`, and what follows from
them. Every result says in its card how it was made (`operation`) and of what (`parents`, cards and all); numbers that
were measured with a parent, such as its AUROC, stay with that parent.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
PARALLEL = 1e-6
"""A rest shorter than this share of the vector is rounding, not a direction."""
_CURES = {
    "fingerprint": "extract both from one model, or map one with steering.transfers.spaces",
    "site": "extract both at one site",
    "template": "extract both with one template",
    "layers": "take the layers that both have with only()",
    "d": "extract both from one model",
}
SHARED = ("contrast", "task")
"""What the card of a combined vector keeps where all parents agree on it."""


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

    def __repr__(self) -> str:
        where = f"{self.site}, {self.span}, layers {_ranges(self.layers)}"
        return f"SteeringVector({self.method} of {self.ref!r}: {where}, d={self.d})"

    def _repr_html_(self) -> str:
        from steering.vectors.cards import card_of

        return card_of(self)

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

    def only(self, layers: Iterable[int]) -> SteeringVector:
        """The same vector at some of its layers, card unchanged; UserError names the layers there are."""
        return replace(self, directions={k: self.at(k) for k in layers})

    @property
    def digest(self) -> str:
        """16 hex digits over layers and float32 numbers: what a card calls a parent by."""
        h = hashlib.sha256()
        for k in self.layers:
            h.update(f"layer.{k}".encode() + self.directions[k].detach().to("cpu", torch.float32).numpy().tobytes())
        return h.hexdigest()[:16]

    def __add__(self, other: SteeringVector) -> SteeringVector:
        self._check_shared(other)
        return self._made("a + b", {k: v + other.directions[k] for k, v in self.directions.items()}, other)

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        self._check_shared(other)
        return self._made("a - b", {k: v - other.directions[k] for k, v in self.directions.items()}, other)

    def __mul__(self, coef: float | int) -> SteeringVector:
        c = _finite(coef, "coef")
        return self._made(f"{c:g} a", {k: c * v for k, v in self.directions.items()})

    __rmul__ = __mul__

    def __neg__(self) -> SteeringVector:
        return self._made("-a", {k: -v for k, v in self.directions.items()})

    def normalised(self, norm: float | int = 1.0) -> SteeringVector:
        """norm·v/‖v‖ at every layer; UserError where v is 0 or `norm` is not above 0."""
        if not _finite(norm, "norm") > 0:
            raise UserError(f"norm={norm} is not above 0; choose a positive one, and negate the vector to turn it")
        return self._made(f"a at norm {norm:g}", {k: norm * _unit(v, k) for k, v in self.directions.items()})

    def without(self, other: SteeringVector) -> SteeringVector:
        """Project the other's direction w out at every layer:  v - (v·u)u,  u = w/‖w‖.

        Orthogonal to w and idempotent. UserError where w is 0 or runs along v, so that only rounding would be left.
        """
        self._check_shared(other)
        rest: dict[int, Tensor] = {}
        for k, v in self.directions.items():
            wide, u = v.double(), _unit(other.directions[k].double(), k)
            rest[k] = (wide - (wide @ u) * u).float()
            if rest[k].norm() <= PARALLEL * v.norm():
                raise UserError(f"nothing of layer {k} is left without the other vector: they are parallel there")
        return self._made("a without b", rest, other)

    def interpolate(self, other: SteeringVector, t: float | int) -> SteeringVector:
        """(1 - t)·v + t·w: v at t = 0, w at t = 1; beyond, the line goes on."""
        self._check_shared(other)
        c = _finite(t, "t")
        at = {k: (1 - c) * v + c * other.directions[k] for k, v in self.directions.items()}
        return self._made(f"{1 - c:g} a + {c:g} b", at, other)

    def to_gguf(self, path: str | Path, model_hint: str = "llama") -> Path:
        """Write llama.cpp's control-vector format (see `steering.gguf`)."""
        from steering.gguf import write

        return write(self, path, model_hint)

    @classmethod
    def from_gguf(cls, path: str | Path, lm: LanguageModel | None = None) -> SteeringVector:
        """Read a control vector of llama.cpp, repeng or `to_gguf` (see `steering.gguf`)."""
        from steering.gguf import read

        return read(path, lm)

    def _check_shared(self, other: SteeringVector) -> None:
        """Raise UserError unless both are of one model, site and template, and have the same layers."""
        for name, cure in _CURES.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise UserError(f"vectors of {name}={mine!r} and {name}={theirs!r} do not share a space; {cure}")
        if not self.fingerprint:
            raise UserError("vectors of unknown models share no space; import both with an explicit --corrector")

    def _made(self, operation: str, directions: Mapping[int, Tensor], *others: SteeringVector) -> SteeringVector:
        """The result of an operation on this vector and others, with its card."""
        parents = (self, *others)
        shared = {k: v for k, v in self.card.items() if k in SHARED and all(o.card.get(k) == v for o in others)}
        card = {**shared, "operation": operation, "parents": [p.record() for p in parents]}
        method = self.method if all(o.method == self.method for o in others) else "combined"
        return replace(self, directions=dict(directions), method=method, card=card)

    def record(self) -> dict[str, Any]:
        """What a card says of a parent: what it was, its digest, and its own card."""
        return {k: getattr(self, k) for k in ("digest", "method", "span", "fingerprint", "ref", "card")}

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


def _finite(value: float | int, name: str) -> float:
    if not math.isfinite(value):
        raise UserError(f"{name}={value} is not finite; choose a finite number")
    return float(value)


def _unit(v: Float[Tensor, " d"], layer: int) -> Float[Tensor, " d"]:
    if not (norm := float(v.norm())) > 0:
        raise UserError(f"layer {layer} of the vector is 0, which has no direction; leave that layer out with only()")
    return v / norm


def _ranges(layers: tuple[int, ...]) -> str:
    """`0..5` where nothing is missing between, else the list."""
    whole = layers == tuple(range(layers[0], layers[-1] + 1))
    return f"{layers[0]}..{layers[-1]}" if whole else ", ".join(map(str, layers))
