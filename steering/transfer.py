"""Transfer: whether a correction vector steers another seed, another size, another task.

python -m steering.transfer --corrector dialogue-0 dialogue-1 dialogue-2 --task dialogue --layers 4
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from corrector import tasks
from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel, load
from corrector.records import RunFolder, default_name, read_json
from corrector.tasks.base import Pair, Split, Task, check_disjoint
from probes.capture import capture
from probes.contrasts import contrast_pairs
from probes.directions import Method
from probes.spans import sequence
from steering.controls import random_controls
from steering.extract import ContrastKind, contrast_of, extract_vectors
from steering.interventions.positions import check_span
from steering.sweeping.cells import Cell, Setting, correct
from steering.transfers.slopes import show
from steering.transfers.spaces import SpaceMap, procrustes, raw
from steering.vectors import SteeringVector

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


@dataclass(frozen=True)
class Place:
    """One corrector on one task: where vectors come from and go to."""

    lm: LanguageModel
    task: Task
    layer: int
    pairs: list[Pair]

    @property
    def name(self) -> str:
        return f"{self.lm.ref}/{self.task.name}"


@dataclass(frozen=True)
class Reading:
    """A place's own vector, and what it is like at that layer on the stimuli of train and validation."""

    vector: SteeringVector
    train: Float[Tensor, "n_train d"]
    validation: Float[Tensor, "n_validation d"]


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


def prepare(config: Transfer) -> tuple[list[Place], list[str]]:
    """Every corrector on every task whose words it knows, and a line for each that it does not.

    Raises UserError for layers that a corrector has not, and where fewer than two places are left.
    """
    given = [tasks.get(name, config.data if name in tasks.READ else "") for name in config.task]
    drawn: list[list[Pair]] = []
    for task in given:
        drawn.append(task.pairs("test", config.items, config.seed))
        texts = {str(split): [p.question for p in _stimuli(config, task, split)] for split in _sizes(config)}
        check_disjoint({**texts, "test": [p.question for p in drawn[-1]]})
    places, absent = list[Place](), list[str]()
    layers = config.layers * len(config.corrector) if len(config.layers) == 1 else config.layers
    for ref, layer in zip(config.corrector, layers, strict=True):
        lm = load(ref, config.template)
        if not 0 <= layer < lm.n_layers:
            raise UserError(f"layer={layer} of {ref!r} not in 0..{lm.n_layers - 1}; choose --layers in that range")
        for task, pairs in zip(given, drawn, strict=True):
            try:
                for pair in (*pairs, *_stimuli(config, task, "train"), *_stimuli(config, task, "validation")):
                    sequence(lm, pair, pair.correction)  # a word it lacks raises
            except UserError as error:
                absent.append(f"{ref} on {task.name}: {error}")
                continue
            places.append(Place(lm, task, layer, pairs))
    if len(places) < 2:
        raise UserError(f"{len(places)} of the correctors know the words of their task ({'; '.join(absent)})")
    return places, absent


def run(config: Transfer) -> Path:
    """Run or resume; returns the run folder with transfer.jsonl, transfer.json, directions.safetensors, summary.csv."""
    check(config)
    out = Path("runs") / default_name("transfer", config) if config.out == Path() else config.out
    prepared = None if (out / "DONE").exists() else prepare(config)
    with RunFolder(out, config) as folder:
        if prepared is not None:
            routes, directions = _routes(config, *prepared, folder)
            cells = list(_cells(config, prepared[0], routes, directions))
            for i, (about, place, cell) in enumerate(tqdm(cells, desc="transfer", unit="cell")):
                missing = (i + 1) * config.items - max(folder.count("transfer"), i * config.items)
                if missing > 0:
                    where = Setting((place.layer,), config.write or config.span)
                    rows = correct(place.lm, place.task, place.pairs, cell, where)
                    folder.append("transfer", [{**about, **row} for row in rows][-missing:])
            folder.finish()
    show(out, config.seed)
    return out


def _routes(
    config: Transfer, places: list[Place], absent: list[str], folder: RunFolder
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Every way a vector goes, with the directions to steer with; a resumed run reads back those of the first."""
    file = folder.path / "directions.safetensors"
    if not read_json(folder.path, "transfer"):
        routes, directions, absent = plan(config, places, absent)
        save_file(directions, file)
        organisms = sorted({p.lm.ref for p in places if p.lm.card.get("model_organism", False)})
        folder.write_once("transfer", {"routes": routes, "absent": absent, "organisms": organisms})
    return read_json(folder.path, "transfer")["routes"], load_file(file)


def plan(
    config: Transfer, places: list[Place], absent: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Tensor], list[str]]:
    """Extract, fit the maps, and map: `directions[str(i)]` [1 + controls, d] are the i-th route's vector and nulls."""
    readings = [read(config, place) for place in tqdm(places, desc="extract", unit="corrector")]
    routes, said = list[dict[str, Any]](), [*absent]
    directions: dict[str, Tensor] = {}
    for t, target in enumerate(places):
        own = readings[t].vector.at(target.layer)
        for s, source in enumerate(places):
            vector = readings[s].vector
            nulls = random_controls(vector, (source.layer,), config.controls, config.seed)
            before = torch.stack([vector.at(source.layer), *(null[source.layer] for null in nulls.values())])
            for how, space in _ways(config, source, target, readings[s], readings[t], said):
                after = space(before) if space is not None else before
                norms = after.norm(dim=-1, keepdim=True)
                cosines = (after @ own / norms[:, 0] / own.norm()).tolist()
                explained = None
                if space is not None:
                    explained = space.explained(readings[s].validation, readings[t].validation)
                directions[str(len(routes))] = after * own.norm() / norms if config.scale == "own" else after
                routes.append(
                    {
                        "target": target.lm.ref,
                        "task": target.task.name,
                        "source": source.lm.ref,
                        "source_task": source.task.name,
                        "how": how,
                        "layer": target.layer,
                        "source_layer": source.layer,
                        "cosine": cosines[0],
                        "cosine_random": cosines[1:],
                        "norm_ratio": float(norms[0] / own.norm()),
                        "explained": explained,
                    }
                )
    return routes, directions, said


def read(config: Transfer, place: Place) -> Reading:
    """Extract the place's own vector, and capture both sides of the contrast's stimuli at its layer."""
    lm, task, layer, sizes = place.lm, place.task, place.layer, _sizes(config)
    train, validation = (contrast_of(config.contrast, lm, task, split, n, config.seed) for split, n in sizes.items())
    found = extract_vectors(lm, train, validation, (config.method,), (config.span,), seed=config.seed)
    sequences = [[sequence(lm, p, p.correction) for p in _stimuli(config, task, split)] for split in sizes]
    h = [capture(lm, of_split, layers=[layer], span=config.span).at(layer) for of_split in sequences]
    return Reading(found[config.method, config.span].only([layer]), *h)


def _sizes(config: Transfer) -> dict[Split, int]:
    return {"train": config.pairs, "validation": config.validation}


def _stimuli(config: Transfer, task: Task, split: Split) -> list[Pair]:
    """The task's pairs that every corrector reads, whatever it makes of them: what a map is fitted or judged on."""
    return contrast_pairs(task, split, _sizes(config)[split], config.seed)


def _ways(
    config: Transfer, source: Place, target: Place, of: Reading, to: Reading, said: list[str]
) -> Iterator[tuple[str, SpaceMap | None]]:
    """How a vector gets from one place to another; nothing where both corrector and task differ.

    A way that the widths forbid goes to `said`. Without a map: the target's own vector, and one of another task.
    """
    if source is target:
        yield "own", None
    elif source.lm is target.lm:
        yield "task", None
    elif source.task is target.task:
        ends = (source.layer, target.layer)
        for how in config.how:
            if how != "raw":
                n, g = len(of.train), torch.Generator().manual_seed(config.seed)
                order = torch.randperm(n, generator=g) if how == "shuffled" else torch.arange(n)
                yield how, replace(procrustes(of.train[order], to.train, *ends), how=how)
                continue
            try:
                yield how, raw(of.train.shape[1], to.train.shape[1], *ends)
            except UserError as error:
                said.append(f"{source.name} to {target.name}, raw: {error}")


def _cells(
    config: Transfer, places: list[Place], routes: Sequence[dict[str, Any]], directions: dict[str, Tensor]
) -> Iterator[tuple[dict[str, Any], Place, Cell]]:
    """Each target unsteered, then by every direction of every route at every coefficient but 0, in a fixed order."""
    coefs = sorted({c for c in config.coef if c != 0})
    for place in places:
        ends = {"target": place.lm.ref, "task": place.task.name}
        yield {**ends, "route": None}, place, Cell("none", 0.0)
        for i, route in enumerate(routes):
            if {k: route[k] for k in ends} != ends:
                continue
            for j, v in enumerate(directions[str(i)]):
                name = "correction" if j == 0 else f"random-{j - 1:02d}"
                for coef in coefs:
                    yield {**ends, "route": i}, place, Cell(name, coef, {place.layer: v})


if __name__ == "__main__":
    run_cli(Transfer, run, "steering.transfer")
