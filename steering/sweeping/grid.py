"""The cells of a sweep in their fixed order: the unsteered one, the vector at every coefficient, then the controls."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Pair, Task
from steering.controls import Battery
from steering.operators import IDENTITY_AT_ZERO
from steering.sweeping.cells import Cell, Setting
from steering.sweeping.doses import Calibration, Unit, dose, in_norms, mean_norms
from steering.vectors import SteeringVector
from steering.vectors.origins import Origins, own_origins

CORRECTION = "correction"
Factors = Mapping[str, Mapping[float, float]]


@dataclass(frozen=True)
class Grid:
    """What a task is swept over: a vector, where it is written, its controls, the coefficients and their unit.

    `factors[direction][coef]` multiply the vectors where the unit is kl; a control's coefficient without one is left
    out. `origins[direction]` are the controls' where the operator is clamp; one without is left out. `vector` is
    natural: see `written`.
    """

    vector: SteeringVector
    setting: Setting
    coefs: tuple[float, ...]
    battery: Battery = field(default_factory=Battery)
    unit: Unit = "natural"
    factors: Factors = field(default_factory=dict)
    origins: Origins = field(default_factory=dict)

    @property
    def written(self) -> SteeringVector:
        """The vector that coefficients multiply, which is the natural one but for the unit norm."""
        return written(self.vector, self.unit)

    def correction(self) -> list[Cell]:
        """The unsteered cell, then the vector at every coefficient (0 only where the operator acts there)."""
        vector, layers = self.written, self.setting.layers
        origin = own_origins(vector, layers) if self.clamps else None
        return [Cell("none", 0.0), *self._cells(CORRECTION, {k: vector.at(k) for k in layers}, origin)]

    def controls(self) -> list[Cell]:
        """Every control direction at the vector's coefficients, then the prompt baselines, once each."""
        known = {k: v for k, v in self.battery.directions.items() if not self.clamps or k in self.origins}
        steered = [cell for k, v in known.items() for cell in self._cells(k, v, self.origins.get(k))]
        return steered + [Cell(name, 0.0, instruction=text) for name, text in self.battery.prompts.items()]

    @property
    def clamps(self) -> bool:
        """Whether the operator needs origins."""
        return self.setting.operator == "clamp"

    def _cells(self, name: str, vector: Mapping[int, Any], origins: Mapping[int, float] | None) -> list[Cell]:
        layers, norms, out = tuple(vector), mean_norms(self.vector.card), []
        origin = None if origins is None else tuple(origins[k] for k in layers)
        # 0, the reference, is measured always: where it is no steering by the unsteered cell, else by its own too.
        zero = set[float]() if self.setting.operator in IDENTITY_AT_ZERO else {0.0}
        for coef in sorted({c for c in self.coefs if c != 0} | zero):
            factor = self.factors.get(name, {}).get(coef) if self.unit == "kl" else None
            if self.unit == "kl" and factor is None:
                continue
            size = dose(vector, layers, coef if factor is None else factor, norms, self.setting.operator)
            out.append(Cell(name, coef, dict(vector), layers, factor, size, origin=origin))
        return out


def written(vector: SteeringVector, unit: Unit) -> SteeringVector:
    """The vector that a coefficient of this unit multiplies."""
    return in_norms(vector) if unit == "norm" else vector


def calibrated(grid: Grid, lm: LanguageModel, task: Task, pairs: Sequence[Pair]) -> tuple[Grid, dict[str, Any]]:
    """The grid with the factors of unit kl, found on validation pairs, and what selection.json says of them.

    A control that does not reach a coefficient's divergence is left out there, with a line and the reason in
    `unreached`; UserError where the vector itself does not.
    """
    if grid.unit != "kl":
        return grid, {}
    calibration = Calibration(lm, task, pairs)
    found: dict[str, dict[float, float]] = {}
    unreached: dict[str, str] = {}
    own = {CORRECTION: {k: grid.vector.at(k) for k in grid.setting.layers}}
    targets = sorted({c for c in grid.coefs if c != 0})
    for name, vector in tqdm([*own.items(), *grid.battery.directions.items()], desc=f"{task.name}: calibrate"):
        setting = dataclasses.replace(grid.setting, layers=tuple(vector))
        found[name] = {}
        for target in targets:
            try:
                found[name][target] = calibration.coef(vector, setting, target)
            except UserError as error:
                if name == CORRECTION:
                    raise
                unreached[f"{name} {target:+g}"] = str(error)
                tqdm.write(f"{task.name}: {name} at {target:+g} is left out: {error}", file=sys.stderr)
    record = {name: {repr(c): f for c, f in by_coef.items()} for name, by_coef in found.items()}
    return dataclasses.replace(grid, factors=found), {"factors": record, "unreached": unreached}


def read_origins(record: Mapping[str, Any]) -> Origins:
    """The controls' origins that selection.json keeps of a task."""
    return {name: {int(k): x for k, x in by_layer.items()} for name, by_layer in record.get("origins", {}).items()}


def read_factors(record: Mapping[str, Any]) -> Factors:
    """The factors that selection.json keeps of a task."""
    return {name: {float(c): f for c, f in by_coef.items()} for name, by_coef in record.get("factors", {}).items()}
