"""Choose what to steer with, where: vectors from the train split, layer and position by the validation split."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Pair, Task
from probes.directions import Method
from steering.extract import ContrastKind, contrast_of, extract_vectors, with_standard
from steering.operators import IDENTITY_AT_ZERO
from steering.sweeping.cells import Cell, Setting, correct, mean
from steering.sweeping.collapse import WELL_FORMED, usable_range
from steering.sweeping.crossing import cross, unsteered
from steering.sweeping.gating import Gating
from steering.vectors import SteeringVector
from steering.vectors.origins import own_origins

Factor = Callable[[SteeringVector, Setting, float], float]
"""What multiplies a vector at a coefficient, where that is not the coefficient itself; UserError where nothing can."""
TIE = 0.1
"""Candidates whose reach is this much shorter than the longest, as a share of it, still count as equal."""


@dataclass(frozen=True)
class Source:
    """Which contrast is read at which span, and at which span the direction is written."""

    contrast: ContrastKind
    read: str
    write: str


SOURCES = (
    Source("copy_rewrite", "prompt_last", "prompt_last"),
    Source("copy_rewrite", "prompt_last", "prompt_last+output"),
    Source("copy_rewrite", "last", "last"),
    Source("minimal", "first_divergence", "output"),
)


@dataclass(frozen=True)
class Candidate:
    """One way to steer, tried on the validation split at the lowest and the highest coefficient.

    `reach` is the weaker of the two ends: min over coef ≠ 0 of sign(coef) · (edit_ratio - unsteered). A direction
    that says how much to correct must move the edit ratio both ways. `auroc` is the card's, None where it has none.
    """

    source: Source
    layers: tuple[int, ...]
    auroc: float | None
    edit_ratio: tuple[float, float]
    well_formed: tuple[float, float]
    reach: float

    @property
    def usable(self) -> bool:
        return min(self.well_formed) >= WELL_FORMED

    @property
    def span(self) -> float:
        """How far the ends lie apart: edit_ratio[1] - edit_ratio[0]."""
        return self.edit_ratio[1] - self.edit_ratio[0]


@dataclass(frozen=True)
class Selection:
    """The vector, where it is written, and the candidates that it was chosen from."""

    vector: SteeringVector
    setting: Setting
    candidates: tuple[Candidate, ...]
    chosen: int
    well_formed: Mapping[float, float]
    """Share of well-formed validation corrections by coefficient: at both ends, and at 0 where that is no steering."""
    left_out: tuple[str, ...] = ()
    """Why each candidate that could not be steered at both ends was none."""

    @property
    def source(self) -> Source:
        """Where the chosen vector was read and is written."""
        return self.candidates[self.chosen].source

    def record(self) -> dict[str, Any]:
        """What selection.json says of a task."""
        best = self.candidates[self.chosen]
        return {
            "layers": list(self.setting.layers),
            "span": self.setting.span,
            "operator": self.setting.operator,
            "method": self.vector.method,
            "source": asdict(best.source),
            "usable_on_validation": best.usable,
            "dose": largest(self.vector, self.setting.layers, "dose"),
            "auroc": best.auroc,
            "vector": self.vector.card,
            "candidates": [asdict(c) for c in self.candidates],
            "left_out": list(self.left_out),
        }


def vectors(
    lm: LanguageModel, task: Task, sources: Sequence[Source], method: Method, n: int, n_validation: int, seed: int
) -> dict[tuple[str, str], SteeringVector]:
    """A vector for each (contrast, read span) of the sources, fitted on train; held-out AUROC is of validation.

    A contrast that the task cannot make is left out, and a line says so; UserError when that leaves none.
    """
    out: dict[tuple[str, str], SteeringVector] = {}
    refusals: list[UserError] = []
    kinds: list[ContrastKind] = [*dict.fromkeys([s.contrast for s in sources])]
    for kind in kinds:
        try:
            train = contrast_of(kind, lm, task, "train", n, seed)
            validation = contrast_of(kind, lm, task, "validation", n_validation, seed)
        except UserError as error:
            refusals.append(error)
            tqdm.write(f"{task.name}: contrast {kind} is left out: {error}", file=sys.stderr)
            continue
        spans = tuple(dict.fromkeys(s.read for s in sources if s.contrast == kind))
        found = extract_vectors(lm, train, validation, with_standard(method), spans, seed=seed)
        out |= {(kind, span): found[method, span] for span in spans}
    if not out:
        raise refusals[0]
    return out


def select(
    lm: LanguageModel,
    task: Task,
    found: dict[tuple[str, str], SteeringVector],
    sources: Sequence[Source],
    layers: Sequence[Sequence[int]],
    pairs: Sequence[Pair],
    coefs: tuple[float, float],
    operator: str = "add",
    factor: Factor | None = None,
    gating: Gating | None = None,
) -> Selection:
    """Steer validation pairs at both ends of the coefficients with every source and layer; take the longest reach.

    Copying ends every reach at the unsteered ratio, so many tie: of those within TIE of the longest, the one that
    spans most, edit_ratio[1] - edit_ratio[0], is taken; where that ties too, as when nothing moves, the one that
    separates best (AUROC). Usable candidates go first: at least WELL_FORMED of their
    corrections stay well-formed at both ends. Where none is usable, the one that keeps most well-formed is taken, and
    `usable_on_validation` says so. With `factor`, candidates for which it raises UserError are left out with a line,
    and so are those whose gate opens for no pair; the first error is raised where that leaves none.
    """
    tries = [(s, tuple(k)) for s in sources if (s.contrast, s.read) in found for k in layers]
    alone = unsteered(lm, task, pairs)
    (plain,) = cross(lm, task, pairs, [Cell("none", 0.0)], Setting((0,), "prompt_last"), alone)
    at_zero = mean(plain, "edit_ratio")
    candidates: list[Candidate] = []
    refusals: list[UserError] = []
    for source, chosen in tqdm(tries, desc=f"{task.name}: choose layer", unit="candidate"):
        vector = found[source.contrast, source.read]
        setting = Setting(chosen, source.write, operator, gating.gate(vector, chosen) if gating else None)
        origin = tuple(own_origins(vector, chosen).values()) if operator == "clamp" else None
        try:
            factors = [factor(vector, setting, c) if factor and c else None for c in coefs]
        except UserError as error:
            refusals.append(_left_out(task, setting, error))
            continue
        scaled = zip(coefs, factors, strict=True)
        cells = [Cell("correction", c, vector, factor=f, origin=origin) for c, f in scaled]
        ends = cross(lm, task, pairs, cells, setting, alone)
        if setting.gate is not None and not any(row["applied"] for rows in ends for row in rows):
            refusals.append(_left_out(task, setting, _shut(setting.gate.layer, len(pairs))))
            continue
        low, high = (mean(rows, "edit_ratio") for rows in ends)
        formed = [mean(rows, "well_formed") for rows in ends]
        auroc = largest(vector, chosen, "auroc")
        # An end at coefficient 0 is on neither side, so a one-sided sweep goes by its other end.
        reach = min(math.copysign(1, c) * (x - at_zero) for c, x in zip(coefs, (low, high), strict=True) if c != 0)
        candidates.append(Candidate(source, chosen, auroc, (low, high), (formed[0], formed[1]), reach))
    if not candidates:
        raise refusals[0]
    usable = [i for i, c in enumerate(candidates) if c.usable]
    if usable:
        longest = max(candidates[i].reach for i in usable)
        tied = [i for i in usable if candidates[i].reach >= longest - TIE * abs(longest)]
        best = max(tied, key=lambda i: (candidates[i].span, candidates[i].auroc or 0.0))
    else:
        best = max(range(len(candidates)), key=lambda i: min(candidates[i].well_formed))
    winner = candidates[best]
    vector = found[winner.source.contrast, winner.source.read]
    gate = gating.gate(vector, winner.layers) if gating else None
    setting = Setting(winner.layers, winner.source.write, operator, gate)
    shares = dict(zip(coefs, winner.well_formed, strict=True))
    if operator in IDENTITY_AT_ZERO:
        shares[0.0] = mean(plain, "well_formed")
    return Selection(vector, setting, tuple(candidates), best, shares, tuple(map(str, refusals)))


def usable_on(
    lm: LanguageModel,
    task: Task,
    pairs: Sequence[Pair],
    cells: Sequence[Cell],
    setting: Setting,
    known: Mapping[float, float],
) -> dict[str, Any]:
    """What selection.json says of the coefficients on validation pairs; `known` shares are not measured again.

    `validation`: the share of well-formed corrections by coefficient; `usable`: the contiguous coefficients around 0
    that keep WELL_FORMED of them.
    """
    shares = dict(known)
    # Where coefficient 0 steers too, its share is that of its own cell, not that of the unsteered one.
    steered = [cell for cell in cells if cell.vector is not None]
    for cell in steered if any(cell.coef == 0 for cell in steered) else cells:
        if cell.coef not in shares:
            shares[cell.coef] = mean(correct(lm, task, pairs, cell, setting), "well_formed")
    coefs = sorted(shares)
    return {
        "validation": [{"coef": c, "well_formed": shares[c]} for c in coefs],
        "usable": usable_range(coefs, [shares[c] for c in coefs]),
    }


def _left_out(task: Task, setting: Setting, error: UserError) -> UserError:
    layers, span = list(setting.layers), setting.span
    tqdm.write(f"{task.name}: layers {layers} at {span} are left out: {error}", file=sys.stderr)
    return error


def _shut(layer: int, n: int) -> UserError:
    return UserError(
        f"the gate at layer {layer} opens for none of {n} validation pairs; choose the other --gate-side, another "
        "--gate-layer, or no --gate"
    )


def largest(vector: SteeringVector, layers: Sequence[int], name: str) -> float | None:
    """The largest of a number that the vector's card gives for every layer; None where it gives none."""
    known = vector.card.get("layers", {})
    return max((float(known[str(k)][name]) for k in layers if name in known.get(str(k), {})), default=None)
