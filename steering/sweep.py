"""The main job: steer a corrector along its correction direction and measure what that does.

python -m steering.sweep --coef -2 -1 0 1 2
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError, run_cli
from corrector.memory import check_fits
from corrector.models import LanguageModel
from corrector.records import RunFolder, default_name, read_json
from corrector.records.blocks import Blocks
from corrector.tasks.base import Task
from probes.gate import gate
from steering.controls import Battery, control_origins, drawn_battery, full_battery, load_battery
from steering.engines import Engine, engine_of, in_order
from steering.interventions.positions import check_span
from steering.operators import operator as operator_named
from steering.sweeping.cells import Setting
from steering.sweeping.doses import Calibration
from steering.sweeping.gating import tell_opened
from steering.sweeping.grid import Grid, calibrated, read_factors, read_origins, written
from steering.sweeping.needs import models_of, needs_of
from steering.sweeping.plan import Sweep
from steering.sweeping.rows import EDITS, blocks_of, parse_rounds
from steering.sweeping.selection import SOURCES, Factor, Selection, Source, select, usable_on, vectors
from steering.sweeping.work import Work, gating_of, given, prepare
from steering.vectors import SteeringVector


def run(config: Sweep) -> Path:
    """Run or resume a sweep; returns the run folder with rows, table and figure."""
    check(config)
    out = Path("runs") / default_name("sweep", config) if config.out == Path() else config.out
    # A finished run is only drawn again, which no cluster has to be there for.
    with nullcontext(in_order) if (out / "DONE").exists() else engine_of(config) as engine:
        works = {name: prepare(config, name) for name in config.task}
        if not (out / "DONE").exists():
            _tell_memory(config, works)
        with RunFolder(out, config, config.device) as folder:
            if not folder.done:
                measure(config, works, _choose(config, works, folder), folder, engine)
                folder.finish()
    # Tables and figures are floors above this one, so they are run as programs, not imported.
    subprocess.run([sys.executable, "-m", "figures.dose", str(out)], check=True)
    return out


def measure(
    config: Sweep, works: Mapping[str, Work], grids: Mapping[str, Grid], folder: RunFolder, engine: Engine
) -> None:
    """Let the engine compute the blocks that the run still lacks, and keep each as it comes."""
    plan = blocks_of(config, works, grids)
    kept = {file: Blocks(folder, file, [b.n_rows for b in blocks]) for file, blocks in plan.items()}
    todo = [plan[file][i] for file, blocks in kept.items() for i in blocks.missing]
    n_rows = sum(b.n_rows for blocks in plan.values() for b in blocks)

    def tell(file: str) -> None:
        if config.gate and file == EDITS and not kept[EDITS].missing:
            for task in works:
                tell_opened(folder.rows(EDITS), task)

    tell(EDITS)
    with (
        tqdm(total=n_rows, initial=sum(k.n_rows for k in kept.values()), desc="rows", unit="row") as bar,
        closing(engine(config, works, grids, todo)) as results,
    ):
        for block, rows in results:
            kept[block.file].add(block.index, rows)
            bar.update(sum(k.n_rows for k in kept.values()) - bar.n)
            tell(block.file)


def _tell_memory(config: Sweep, works: Mapping[str, Work]) -> None:
    """Say what the run will need; UserError where that is not free. Ray's workers are other processes."""
    devices = [device for lm in models_of(works) for device in lm.devices]
    cure = "a smaller --block, fewer --tricks (prefix and shared keep keys and values), --dtype bfloat16"
    tqdm.write(f"memory: {check_fits(needs_of(config, works), devices, cure)}", file=sys.stderr)


def check(config: Sweep) -> None:
    """Raise UserError for a configuration that cannot run, before anything is loaded or written."""
    for name, least in (("controls", 0), ("items", 2), ("problems", 0), ("pairs", 2), ("validation", 2), ("block", 1)):
        if (value := getattr(config, name)) != "full" and value < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    if bad := [c for c in config.coef if not math.isfinite(c)]:
        raise UserError(f"coef={bad[0]} is not finite; choose finite --coef")
    if len(set(config.coef)) < 2:
        raise UserError(f"coef={list(config.coef)} is no range; give at least two different --coef")
    if not config.task or len(set(config.task)) < len(config.task):
        raise UserError(f"task={list(config.task)}: give each task once, at least one --task")
    for name in ("corrector", "upstream", "vector", "data", "gate-vector"):
        if getattr(config, name.replace("-", "_")) and len(config.task) > 1:
            raise UserError(f"--{name} goes with one task, but there are {len(config.task)}; name one with --task")
    if len(set(config.layers)) < len(config.layers):
        raise UserError(f"layers={list(config.layers)} names a layer twice; give each of --layers once")
    if config.span:
        check_span(config.span)
    operator_named(config.operator)
    if config.operator == "clamp" and config.coef_unit == "kl":
        raise UserError("clamp acts at coefficient 0 too, so its KL has no 0 to count from; choose --coef-unit norm")
    if (parse_rounds(config.rounds) or config.improve) and not config.problems:
        flag = "rounds" if config.rounds else "improve"
        raise UserError(f"--{flag} is about the align loop, and --problems 0 runs none; choose --problems 2 or more")


def _choose(config: Sweep, works: Mapping[str, Work], folder: RunFolder) -> dict[str, Grid]:
    """What every task is swept over; a resumed run reads back what the first one chose."""
    if not read_json(folder.path, "selection"):
        folder.write_once("selection", {name: _record(config, work, folder.path) for name, work in works.items()})
    record = read_json(folder.path, "selection")
    grids: dict[str, Grid] = {}
    for name, work in works.items():
        mine, file = record[name], folder.path / f"controls-{name}.safetensors"
        vector = SteeringVector.load(folder.path / f"vector-{name}.safetensors")
        gates = gating_of(config, work.lm).kept(folder.path / f"condition-{name}.safetensors")
        gate = gates.gate(vector, mine["layers"])
        setting = Setting(tuple(mine["layers"]), mine["span"], mine["operator"], gate)
        if config.controls == "full":
            battery = load_battery(file, mine["controls"])
        else:
            battery = drawn_battery(written(vector, config.coef_unit), setting.layers, config.controls, config.seed)
        scales = (read_factors(mine), read_origins(mine))
        grids[name] = Grid(vector, setting, config.coef, battery, config.coef_unit, *scales)
    return grids


def _record(config: Sweep, work: Work, folder: Path) -> dict[str, Any]:
    """Choose a task's vector, setting and controls, write the first and the last, and give its entry of selection."""
    task, lm = work.task, work.lm
    selection = choose(config, task, lm)
    selection.vector.save(folder / f"vector-{task.name}.safetensors")
    record: dict[str, Any] = {**selection.record(), **_about(config, task, lm), "coef_unit": config.coef_unit}
    vector, layers = written(selection.vector, config.coef_unit), selection.setting.layers
    gates, contrast = gating_of(config, lm), selection.source.contrast
    gates.save(folder / f"condition-{task.name}.safetensors")
    record |= gates.record(selection.vector, layers)
    battery = Battery()
    if config.controls == "full":
        gate = selection.setting.gate
        battery = full_battery(lm, task, vector, layers, work.pairs, contrast, config.pairs, config.seed, gate)
        battery.save(folder / f"controls-{task.name}.safetensors")
        record["controls"] = battery.record(vector)
        for name, reason in battery.absent.items():
            tqdm.write(f"{task.name}: control {name} is absent: {reason}", file=sys.stderr)
    elif config.coef_unit == "kl" or config.operator == "clamp":
        battery = drawn_battery(vector, layers, config.controls, config.seed)
    if config.operator == "clamp":
        record |= control_origins(lm, task, vector, battery.directions, contrast, config.pairs, config.seed)
    pairs = task.pairs("validation", config.validation, config.seed)
    grid = Grid(selection.vector, selection.setting, config.coef, battery, config.coef_unit)
    grid, factors = calibrated(grid, lm, task, pairs)
    usable = usable_on(lm, task, pairs, grid.correction(), grid.setting, selection.well_formed)
    return record | factors | usable


def choose(config: Sweep, task: Task, lm: LanguageModel) -> Selection:
    """Extract on train, choose on validation."""
    gates = gating_of(config, lm)
    if config.vector:
        vector = SteeringVector.load(config.vector)
        sources: tuple[Source, ...] = (given(config, vector),)
        found, layers = {(sources[0].contrast, vector.span): vector}, [(k,) for k in vector.layers]
    else:
        sources = tuple(s for s in SOURCES if config.span in ("", s.write) and gates.reads(s.read))
        sources = sources or (Source("copy_rewrite", "prompt_last", config.span),)
        found = vectors(lm, task, sources, config.method, config.pairs, max(config.pairs // 4, 2), config.seed)
        layers = [(k,) for k in range(max(lm.n_layers - 1, 1))]
    pairs = task.pairs("validation", config.validation, config.seed)
    ends = (min(config.coef), max(config.coef))
    layers = [config.layers] if config.layers else [ks for ks in layers if ks[0] >= (gates.layer or 0)]
    factor: Factor | None = Calibration(lm, task, pairs).coef if config.coef_unit == "kl" else None
    scaled = {key: written(vector, config.coef_unit) for key, vector in found.items()}
    selection = select(lm, task, scaled, sources, layers, pairs, ends, config.operator, factor, gates)
    return replace(selection, vector=found[selection.source.contrast, selection.source.read])


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
