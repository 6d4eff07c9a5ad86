"""Run the layer x coefficient map: single layers at every coefficient, and the layer bands chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector import tasks
from corrector.decoding import check_request
from corrector.errors import UserError
from corrector.models import LanguageModel, load
from corrector.records import RunFolder, default_name
from corrector.tasks.base import Pair, Split, Task, check_disjoint
from probes.directions import Method
from steering.controls import random_controls
from steering.extract import extract_vectors, with_standard
from steering.interventions import Vector, make_bank
from steering.interventions.positions import check_span
from steering.maps.bands import Row, bands, choose, dose, means
from steering.maps.conditions import Name, contrast_under, pairs_under
from steering.operators import operator as operator_named
from steering.sweeping.cells import Cell, Setting
from steering.sweeping.crossing import Unsteered, cross, unsteered
from steering.vectors import SteeringVector

TOGETHER = 16
"""Cells that are measured at once."""


@dataclass(frozen=True)
class Map:
    """Map what steering does by layer and coefficient, and search for the band of layers that steers best.

    The vector is fitted on the train split, bands are chosen on validation, the map and the chosen bands are of the
    test split. The same command again resumes a stopped run.
    """

    corrector: str = "dialogue-0"
    """Shipped reference, local folder or hub id of the corrector."""
    task: str = "dialogue"
    """dialogue, arithmetic, gsm8k or jsonl."""
    coef: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """Coefficients; positive = more correction. 0, the reference, is always measured."""
    layers: tuple[int, ...] = ()
    """Layers mapped; empty: every layer."""
    band: int = 3
    """Longest band of neighbouring layers that is searched; 1: single layers only."""
    controls: int = 2
    """Random directions of equal norm at every layer and chosen band, at the two end coefficients."""
    method: Method = "diff_means"
    """How the direction is fitted (probes.directions defines each)."""
    read: str = "prompt_last"
    """Tokens that the vector is read at."""
    span: str = "prompt_last"
    """Tokens that are steered (prompt_last, output, last, prompt_last+output, ...)."""
    operator: Literal["add", "ablate"] = "add"
    """What is done to the residual stream."""
    items: int = 40
    """Test pairs a cell."""
    validation: int = 24
    """Validation pairs that each band is tried on, at both end coefficients."""
    pairs: int = 120
    """Contrast pairs that the vector is fitted on (train split)."""
    fit_on: Name = "any"
    """Pairs that the vector is fitted and bands are chosen on (steering.maps.conditions names them)."""
    measure_on: Name = "any"
    """Test pairs; other ones than fit_on show what the vector does out of distribution."""
    vector: Path | None = None
    """A saved vector to map instead of fitting one."""
    seed: int = 0
    """Seed of pairs, controls and intervals."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the corrector."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/map-<hash of this configuration>."""

    @property
    def ends(self) -> tuple[float, ...]:
        """The lowest and the highest coefficient, each where it is not 0; of one-sided ones the outer end alone."""
        both = (*self.coef, 0.0)
        return tuple(sorted({min(both), max(both)} - {0.0}))


@dataclass(frozen=True)
class Spot:
    """One cell of the map: where, in which direction, and how much is written."""

    layers: tuple[int, ...]
    direction: str
    coef: float
    vector: Vector | None = None


@dataclass(frozen=True)
class Work:
    """What the cells share, made before anything is written, so that a mistake costs no run."""

    lm: LanguageModel
    task: Task
    layers: tuple[int, ...]
    validation: list[Pair]
    test: list[Pair]


def run(config: Map) -> Path:
    """Run or resume; returns the run folder with edits.jsonl (a row an item), map.jsonl (a row a cell) and bands.json.

    Raises UserError for all that can be seen to fail before anything is written.
    """
    check(config)
    out = Path("runs") / default_name("map", config) if config.out == Path() else config.out
    work = None if (out / "DONE").exists() else prepare(config)
    with RunFolder(out, config, config.device) as folder:
        if work is not None:
            vector = _vector(config, work, folder)
            done = _measure(config, work, folder, "validation", tries(config, work, vector), 0)
            chosen = choose(folder.rows("edits")[:done], vector, config.operator)
            folder.write_once("bands", _about(work, vector, chosen))
            _measure(config, work, folder, "test", spots(config, work, vector, chosen), done)
            _append_means(config, folder, vector)
            folder.finish()
    return out


def check(config: Map) -> None:
    """Raise UserError for a configuration that cannot run, whatever the model."""
    for name, least in (("band", 1), ("controls", 0), ("items", 2), ("validation", 2), ("pairs", 2)):
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    if bad := [c for c in config.coef if not math.isfinite(c)]:
        raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
    if len({*config.coef, 0.0}) < 2:
        raise UserError(f"coef={list(config.coef)} is no range; give a --coef other than 0")
    for span in (config.read, config.span):
        check_span(span)
    operator_named(config.operator)


def prepare(config: Map) -> Work:
    """Load the model and draw the pairs; UserError where they do not fit the configuration."""
    task = tasks.get(config.task, config.data)
    lm = load(config.corrector, config.template, config.device, config.dtype)
    layers = tuple(sorted(config.layers)) or tuple(range(lm.n_layers))
    if len({*layers}) < len(layers) or not 0 <= layers[0] <= layers[-1] < lm.n_layers:
        raise UserError(f"layers={list(config.layers)} not in 0..{lm.n_layers - 1}, each once; choose --layers so")
    if config.vector:
        vector = SteeringVector.load(config.vector)
        vector.check(lm)
        make_bank([vector], layers)
    drawn: dict[Split, list[Pair]] = {
        "validation": pairs_under(task, "validation", config.validation, config.seed, config.fit_on),
        "test": pairs_under(task, "test", config.items, config.seed, config.measure_on),
    }
    check_disjoint({split: [p.question for p in pairs] for split, pairs in drawn.items()})
    for pairs in drawn.values():
        prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
        check_request(lm, prompts, task.max_sentence_tokens, 0.0, None)
    return Work(lm, task, layers, drawn["validation"], drawn["test"])


def tries(config: Map, work: Work, vector: SteeringVector) -> list[Spot]:
    """Validation: unsteered, then every band at both ends.

    The last block of the model is left out unless named: its output is one norm away from the logits, where any
    direction moves tokens.
    """
    layers = work.layers if config.layers else work.layers[:-1] or work.layers
    return [
        Spot((), "none", 0.0),
        *(Spot(band, "correction", c, vector) for band in bands(layers, config.band) for c in config.ends),
    ]


def spots(config: Map, work: Work, vector: SteeringVector, chosen: Sequence[Row]) -> list[Spot]:
    """Test: unsteered, then every layer and chosen band at every coefficient, then their controls at both ends."""
    wide = [tuple(b["layers"]) for b in chosen if b["chosen"] and len(b["layers"]) > 1]
    places = [*((k,) for k in work.layers), *wide]
    coefs = sorted({c for c in config.coef if c})
    nulls = random_controls(vector, work.layers, config.controls, config.seed)
    return [
        Spot((), "none", 0.0),
        *(Spot(place, "correction", c, vector) for place in places for c in coefs),
        *(Spot(place, name, c, null) for place in places for name, null in nulls.items() for c in config.ends),
    ]


def _vector(config: Map, work: Work, folder: RunFolder) -> SteeringVector:
    """The vector of the train split; a resumed run reads back the one that its rows were made with."""
    file = folder.path / "vector.safetensors"
    if config.vector:
        return SteeringVector.load(config.vector)
    if not file.exists():
        drawn: list[tuple[Split, int]] = [("train", config.pairs), ("validation", max(config.pairs // 4, 2))]
        train, held = (contrast_under(work.lm, work.task, s, n, config.seed, config.fit_on) for s, n in drawn)
        found = extract_vectors(
            work.lm, train, held, with_standard(config.method), (config.read,), seed=config.seed, n_resamples=200
        )
        # A kill while the file is written must not leave half of one under its name.
        found[config.method, config.read].save(file.with_suffix(".tmp")).replace(file)
    return SteeringVector.load(file)


def _measure(config: Map, work: Work, folder: RunFolder, split: Split, cells: Sequence[Spot], before: int) -> int:
    """Append the cells' rows of edits.jsonl, `before` rows in; returns the rows there are after them.

    KL is of the test split only.
    """
    lm, task = work.lm, work.task
    pairs = work.test if split == "test" else work.validation
    plain: Unsteered | None = None
    for first in tqdm(range(0, len(cells), TOGETHER), desc=f"{task.name}: {split}", unit=f"{TOGETHER} cells"):
        part = cells[first : first + TOGETHER]
        start = before + first * len(pairs)
        missing = start + len(part) * len(pairs) - max(folder.count("edits"), start)
        if missing <= 0:
            continue
        plain = plain or unsteered(lm, task, pairs)
        crossed = [Cell(spot.direction, spot.coef, spot.vector, layers=spot.layers) for spot in part]
        by_cell = cross(lm, task, pairs, crossed, Setting((), config.span, config.operator), plain)
        rows = [
            {"split": split, **row, **({} if split == "test" else {"kl": None})} for rows in by_cell for row in rows
        ]
        folder.append("edits", rows[-missing:])
    return before + len(cells) * len(pairs)


def _append_means(config: Map, folder: RunFolder, vector: SteeringVector) -> None:
    """Append what map.jsonl still lacks: a row for each cell of edits.jsonl, in its order."""
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in folder.rows("edits"):
        cells.setdefault((row["split"], tuple(row["layers"]), row["direction"], row["coef"]), []).append(row)
    out: list[Row] = []
    for (split, layers, direction, coef), rows in [*cells.items()][folder.count("map") :]:
        about = {"split": split, "layer": layers[0] if len(layers) == 1 else None, "layers": layers}
        about |= {"direction": direction, "coef": coef, "dose": dose(vector, layers, coef, config.operator)}
        out.append({**about, **means(rows, config.seed)})
    folder.append("map", out)


def _about(work: Work, vector: SteeringVector, chosen: Sequence[Row]) -> Row:
    return {
        **{"corrector": work.lm.ref, "fingerprint": work.lm.fingerprint, "n_layers": work.lm.n_layers},
        **{"model_organism": bool(work.lm.card.get("model_organism", False)), "layers": list(work.layers)},
        **{"vector": vector.card, "bands": [*chosen]},
    }
