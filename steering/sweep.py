"""The main job: steer a corrector along its correction direction and measure what that does.

python -m steering.sweep --coef -2 -1 0 1 2
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector import tasks
from corrector.decoding import check_request
from corrector.errors import UserError, run_cli
from corrector.models import ALIASES, LanguageModel, load, references
from corrector.records import RunFolder, default_name, read_json
from corrector.tasks.base import Pair, Problem, Split, Task
from corrector.upstreams import Upstream, upstream_of
from probes.directions import Method
from probes.gate import gate
from steering.cells import Setting
from steering.controls import Battery, drawn_battery, full_battery, load_battery
from steering.doses import Calibration, Unit
from steering.grid import Grid, calibrated, read_factors, written
from steering.interventions import make_bank
from steering.operators import operator as operator_named
from steering.positions import check_span
from steering.rows import edit_rows, loop_rows, parse_rounds
from steering.selection import SOURCES, Factor, Selection, Source, select, usable_on, vectors
from steering.vectors import SteeringVector

LOOPS: dict[str, Split] = {"validation": "validation", "alignments": "test"}
"""Files of loop rows in the order in which they are written, and the split of their problems."""


@dataclass(frozen=True)
class Sweep:
    """Sweep the coefficient of the correction vector: edit metrics, loop outcome and controls from one run.

    The vector is extracted on the train split, layer and position are chosen on validation, all numbers are of the
    test split. The same command again resumes a stopped run.
    """

    coef: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """Coefficients; positive = more correction. 0, the reference, is always measured."""
    coef_unit: Unit = "natural"
    """natural: multiples of the vector; norm: of the mean residual norm, along it; kl: nats of KL a token, calibrated
    on validation pairs for every direction."""
    task: tuple[str, ...] = ("dialogue", "arithmetic")
    """dialogue, arithmetic, gsm8k, jsonl: one or several."""
    corrector: str = ""
    """Corrector (reference, folder or hub id), for one task; empty: each task's reference."""
    upstream: str = ""
    """Upstream (reference, folder, hub id, or `replay` of recorded answers); empty: the task's own."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    vector: Path | None = None
    """A saved vector to steer with instead of extracting one, for one task."""
    method: Method = "diff_means"
    """How the direction is fitted (probes.directions defines each)."""
    layers: tuple[int, ...] = ()
    """Layers to steer, together; empty: one layer, chosen on validation among all but the last (its output is one norm
    away from the logits, where any direction moves tokens)."""
    span: str = ""
    """Tokens to steer (prompt_last, output, last, prompt_last+output, ...); empty: chosen on validation."""
    operator: Literal["add", "ablate", "rotate"] = "add"
    """What is done to the residual stream: move along the vector, take a fraction of it out, or turn by radians."""
    controls: int | Literal["full"] = 5
    """Random directions of equal norm, swept like the vector itself; full: 20 of them, 5 orthogonal to the vector, 5
    fits on shuffled labels, length, the vector without length, other layers, and prompts to copy or to rewrite."""
    items: int = 100
    """Test pairs a cell."""
    problems: int = 50
    """Test problems of the align loop a coefficient; 0: no loop."""
    rounds: str = ""
    """Rounds of the loop that are steered, i:j with i from 0 and j left out (1: is all but the first); empty: all."""
    improve: bool = False
    """Choose the coefficient with the best loop outcome on as many validation problems, and test it against 0."""
    pairs: int = 240
    """Contrast pairs that the vector is fitted on (train split)."""
    validation: int = 40
    """Pairs that layer and position are chosen on (validation split)."""
    temperature: float | None = None
    """The upstream's temperature; None: the task's own (dialogue 1, others greedy)."""
    seed: int = 0
    """Seed of items, controls and the upstream's draws."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/sweep-<hash of this configuration>."""


@dataclass(frozen=True)
class Work:
    """What one task is measured with, made before anything is written, so that a mistake costs no run."""

    task: Task
    lm: LanguageModel
    pairs: list[Pair]
    loops: dict[str, list[Problem]]
    upstream: Upstream | None


def run(config: Sweep) -> Path:
    """Run or resume a sweep; returns the run folder with rows, table and figure."""
    check(config)
    works = [prepare(config, name) for name in config.task]
    out = Path("runs") / default_name("sweep", config) if config.out == Path() else config.out
    with RunFolder(out, config, config.device) as folder:
        if not folder.done:
            grids = _choose(config, works, folder)
            before = 0
            for work, grid in zip(works, grids, strict=True):
                before = edit_rows(folder, work.task, work.lm, work.pairs, grid, before)
            for name in LOOPS:
                before = 0
                for work, grid in zip(works, grids, strict=True):
                    if work.upstream and (drawn := work.loops.get(name, [])):
                        args = (work.task, work.lm, drawn, work.upstream, grid, parse_rounds(config.rounds))
                        before = loop_rows(folder, name, *args, before)
            folder.finish()
    # Tables and figures are floors above this one, so they are run as programs, not imported.
    subprocess.run([sys.executable, "-m", "figures.dose", str(out)], check=True)
    return out


def check(config: Sweep) -> None:
    """Raise UserError for a configuration that cannot run, before anything is loaded or written."""
    for name, least in (("controls", 0), ("items", 2), ("problems", 0), ("pairs", 2), ("validation", 2)):
        if (value := getattr(config, name)) != "full" and value < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    if bad := [c for c in config.coef if not math.isfinite(c)]:
        raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
    if len(set(config.coef)) < 2:
        raise UserError(f"coef={list(config.coef)} is no range; give at least two different --coef")
    if not config.task or len(set(config.task)) < len(config.task):
        raise UserError(f"task={list(config.task)}: give each task once, at least one --task")
    for name in ("corrector", "upstream", "vector", "data"):
        if getattr(config, name) and len(config.task) > 1:
            raise UserError(f"--{name} goes with one task, but there are {len(config.task)}; name one with --task")
    if len(set(config.layers)) < len(config.layers):
        raise UserError(f"layers={list(config.layers)} names a layer twice; give each of --layers once")
    if config.span:
        check_span(config.span)
    operator_named(config.operator)
    if (parse_rounds(config.rounds) or config.improve) and not config.problems:
        flag = "rounds" if config.rounds else "improve"
        raise UserError(f"--{flag} is about the align loop, and --problems 0 runs none; choose --problems 2 or more")


def prepare(config: Sweep, name: str) -> Work:
    """Load a task's models and draw its test items; raises UserError for all that can be seen to fail later."""
    task = tasks.get(name, config.data)
    if not config.corrector and ALIASES.get(name, name) not in references():
        raise UserError(f"task {name!r} has no reference corrector here; give --corrector a folder or a hub id")
    lm = load(config.corrector or name, config.template, config.device, config.dtype)
    if bad := [k for k in config.layers if not 0 <= k < lm.n_layers]:
        raise UserError(f"layer={bad[0]} not in 0..{lm.n_layers - 1}; choose --layers in that range")
    if config.vector:
        vector = SteeringVector.load(config.vector)
        vector.check(lm)
        make_bank([written(vector, config.coef_unit)], config.layers or vector.layers)
        check_span(_given(config, vector).write)
    task.pairs("validation", config.validation, config.seed)
    pairs = task.pairs("test", config.items, config.seed)
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    check_request(lm, prompts, task.max_sentence_tokens, 0.0, None)
    if config.problems == 0:
        return Work(task, lm, pairs, {}, None)
    loops = {
        file: task.problems(split, config.problems, config.seed)
        for file, split in LOOPS.items()
        if split == "test" or config.improve
    }
    for problem in (problems := [p for of_split in loops.values() for p in of_split]):
        task.grade(problem, "")
    upstream = upstream_of(
        config.upstream, task, problems, config.temperature, config.seed, config.template, config.device, config.dtype
    )
    return Work(task, lm, pairs, loops, upstream)


def _choose(config: Sweep, works: list[Work], folder: RunFolder) -> list[Grid]:
    """What every task is swept over; a resumed run reads back what the first one chose."""
    if not read_json(folder.path, "selection"):
        folder.write_once("selection", {work.task.name: _record(config, work, folder.path) for work in works})
    record = read_json(folder.path, "selection")
    grids: list[Grid] = []
    for name in (work.task.name for work in works):
        mine, file = record[name], folder.path / f"controls-{name}.safetensors"
        vector = SteeringVector.load(folder.path / f"vector-{name}.safetensors")
        setting = Setting(tuple(mine["layers"]), mine["span"], mine["operator"])
        if config.controls == "full":
            battery = load_battery(file, mine["controls"])
        else:
            battery = drawn_battery(written(vector, config.coef_unit), setting.layers, config.controls, config.seed)
        grids.append(Grid(vector, setting, config.coef, battery, config.coef_unit, read_factors(mine)))
    return grids


def _record(config: Sweep, work: Work, folder: Path) -> dict[str, Any]:
    """Choose a task's vector, setting and controls, write the first and the last, and give its entry of selection."""
    task, lm = work.task, work.lm
    selection = choose(config, task, lm)
    selection.vector.save(folder / f"vector-{task.name}.safetensors")
    record: dict[str, Any] = {**selection.record(), **_about(config, task, lm), "coef_unit": config.coef_unit}
    vector, layers = written(selection.vector, config.coef_unit), selection.setting.layers
    battery = Battery()
    if config.controls == "full":
        contrast = selection.candidates[selection.chosen].source.contrast
        battery = full_battery(lm, task, vector, layers, work.pairs, contrast, config.pairs, config.seed)
        battery.save(folder / f"controls-{task.name}.safetensors")
        record["controls"] = battery.record(vector)
        for name, reason in battery.absent.items():
            tqdm.write(f"{task.name}: control {name} is absent: {reason}", file=sys.stderr)
    elif config.coef_unit == "kl":
        battery = drawn_battery(vector, layers, config.controls, config.seed)
    pairs = task.pairs("validation", config.validation, config.seed)
    grid = Grid(selection.vector, selection.setting, config.coef, battery, config.coef_unit)
    grid, factors = calibrated(grid, lm, task, pairs)
    usable = usable_on(lm, task, pairs, grid.correction(), grid.setting, selection.well_formed)
    return record | factors | usable


def _given(config: Sweep, vector: SteeringVector) -> Source:
    """Where a saved vector is written: at --span, else where vectors read at its span are, else at its span."""
    write = next((s.write for s in SOURCES if s.read == vector.span), vector.span)
    return Source(vector.card.get("contrast", "copy_rewrite"), vector.span, config.span or write)


def choose(config: Sweep, task: Task, lm: LanguageModel) -> Selection:
    """Extract on train, choose on validation."""
    if config.vector:
        vector = SteeringVector.load(config.vector)
        sources: tuple[Source, ...] = (_given(config, vector),)
        found, layers = {(sources[0].contrast, vector.span): vector}, [(k,) for k in vector.layers]
    else:
        sources = SOURCES if not config.span else tuple(s for s in SOURCES if s.write == config.span)
        sources = sources or (Source("copy_rewrite", "prompt_last", config.span),)
        found = vectors(lm, task, sources, config.method, config.pairs, max(config.pairs // 4, 2), config.seed)
        layers = [(k,) for k in range(max(lm.n_layers - 1, 1))]
    pairs = task.pairs("validation", config.validation, config.seed)
    ends = (min(config.coef), max(config.coef))
    layers = [config.layers] if config.layers else layers
    factor: Factor | None = Calibration(lm, task, pairs).coef if config.coef_unit == "kl" else None
    scaled = {key: written(vector, config.coef_unit) for key, vector in found.items()}
    selection = select(lm, task, scaled, sources, layers, pairs, ends, config.operator, factor)
    source = selection.candidates[selection.chosen].source
    return replace(selection, vector=found[source.contrast, source.read])


def _about(config: Sweep, task: Task, lm: LanguageModel) -> dict[str, Any]:
    """Whose numbers these are, and the gate of minimal pairs where the task makes some."""
    about: dict[str, Any] = {
        "corrector": lm.ref,
        "fingerprint": lm.fingerprint,
        "model_organism": bool(lm.card.get("model_organism", False)),
    }
    try:
        task.minimal_pairs("validation", 1, config.seed)
    except UserError as error:
        return about | {"gate": None, "gate_absent": str(error)}
    return about | {"gate": gate(lm, task, config.pairs, config.items, config.seed)}


if __name__ == "__main__":
    run_cli(Sweep, run, "steering.sweep")
