"""Gates of a sweep: it steers only where a condition direction fires, the steered vector's own or a saved one's."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from steering.interventions import Gate
from steering.vectors import SteeringVector
from steering.vectors.origins import of_card

When = Literal["", "prompt_last", "token"]
Side = Literal["above", "below"]


@dataclass(frozen=True)
class Gating:
    """Open where h·u is on one `side` of the card's threshold, u of `condition` (None: of the steered vector itself).

    `when` as in `interventions.Gate`; empty: no gate. `layer` is where h is read; None: the first steered one.
    """

    when: When = ""
    side: Side = "above"
    layer: int | None = None
    condition: SteeringVector | None = None

    def check(self, layers: Sequence[int]) -> None:
        """Raise UserError for words about a gate where there is none, and for one read behind some of `layers`."""
        if not self.when and (self.side != "above" or self.layer is not None or self.condition):
            raise UserError("--gate-side, --gate-layer and --gate-vector are of a gate; choose --gate prompt_last too")
        if self.layer is not None and layers and min(layers) < self.layer:
            raise UserError(
                f"gate_layer={self.layer} is behind layer {min(layers)}, which it is to open; choose --gate-layer "
                f"{min(layers)} or less"
            )

    def reads(self, span: str) -> bool:
        """Whether a vector read at this span has its threshold where the gate decides."""
        return self.when != "prompt_last" or self.condition is not None or span == "prompt_last"

    def gate(self, vector: SteeringVector, layers: Sequence[int]) -> Gate | None:
        """What opens `vector` at `layers`; None without a gate.

        Raises UserError where the card has no threshold, where a gate that decides at prompt_last has one of another
        span, and where it would be read behind a steered layer.
        """
        if not self.when:
            return None
        self.check(layers)
        of, layer = self.condition or vector, min(layers) if self.layer is None else self.layer
        if self.when == "prompt_last" != of.span:
            raise UserError(
                f"the gate decides at prompt_last and its vector was read at {of.span!r}, where thresholds are others; "
                "choose --gate token, or a vector read at prompt_last"
            )
        sign = 1.0 if self.side == "above" else -1.0
        gate = Gate(sign * of.at(layer), layer, sign * of_card(of, layer, "threshold"), self.when, of.site)
        gate.check_before("resid_post", tuple(layers))
        return gate

    def record(self, vector: SteeringVector, layers: Sequence[int]) -> dict[str, Any]:
        """What selection.json says of it, as `condition`; empty without a gate."""
        if not (gate := self.gate(vector, layers)):
            return {}
        of = self.condition or vector
        threshold = of_card(of, gate.layer, "threshold")
        about = {"when": self.when, "side": self.side, "layer": gate.layer, "site": gate.site, "threshold": threshold}
        return {"condition": {**about, "direction": "own" if of is vector else of.digest}}

    def save(self, path: Path) -> None:
        """Keep a saved condition with the run; nothing without one."""
        if self.condition:
            self.condition.save(path)

    def kept(self, path: Path) -> Gating:
        """The same with the condition that `save` kept."""
        return replace(self, condition=SteeringVector.load(path)) if self.condition else self


def gating(when: When, side: Side, layer: int | None, vector: Path | None, lm: LanguageModel) -> Gating:
    """From the words of a command line; UserError for layers and saved vectors that are not of this model."""
    if layer is not None and not 0 <= layer < lm.n_layers:
        raise UserError(f"gate_layer={layer} not in 0..{lm.n_layers - 1}; choose --gate-layer in that range")
    if vector is None:
        return Gating(when, side, layer)
    condition = SteeringVector.load(vector)
    condition.check(lm)
    return Gating(when, side, layer, condition)


def tell_opened(rows: Iterable[Mapping[str, Any]], task: str) -> None:
    """Say on stderr how many rows of a task the gate opened in each cell; UserError where it opened none in all."""
    opened: Counter[tuple[str, float]] = Counter()
    n: Counter[tuple[str, float]] = Counter()
    for row in rows:
        if row["task"] == task and row.get("opened") is not None:
            cell = (row["direction"], row["coef"])
            n[cell], opened[cell] = n[cell] + 1, opened[cell] + row["opened"]
    if n and not any(opened.values()):
        raise UserError(
            f"{task}: the gate opened none of the {n.total()} rows of {len(n)} cells, so nothing was steered; choose "
            "the other --gate-side, another --gate-layer, or no --gate"
        )
    shares = {f"{opened[cell]} of {n[cell]}" for cell in n}
    told = [f"{d} {c:+g}: {opened[d, c]} of {n[d, c]}" for d, c in n]
    text = f"{shares.pop()} rows in each of {len(n)} cells" if len(shares) == 1 else "; ".join(told)
    tqdm.write(f"{task}: the gate opened {text}", file=sys.stderr)
