"""The main job: steer a corrector along its correction direction and measure what that does.

python -m steering.sweep --coef -2 -1 0 1 2
"""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector import tasks
from corrector.decoding import check_request
from corrector.errors import UserError, run_cli
from corrector.loop import align
from corrector.models import ALIASES, LanguageModel, load, references
from corrector.records import RunFolder, default_name, read_json
from corrector.tasks.base import Pair, Problem, Task
from corrector.upstreams import Upstream, upstream_of
from probes.directions import Method
from probes.gate import gate
from steering.cells import Cell, Setting, correct, intervention, unsteered_tokens, with_kl
from steering.controls import random_controls
from steering.interventions import make_bank
from steering.operators import operator as operator_named
from steering.positions import check_span
from steering.selection import SOURCES, Selection, Source, select, vectors
from steering.vectors import SteeringVector


@dataclass(frozen=True)
class Sweep:
    """Sweep the coefficient of the correction vector: edit metrics, loop outcome and controls from one run.

    The vector is extracted on the train split, layer and position are chosen on validation, all numbers are of the
    test split. The same command again resumes a stopped run.
    """

    coef: tuple[float, ...] = (-2.0, -1.0, 0.0, 1.0, 2.0)
    """Coefficients; positive = more correction. 0, the reference, is always measured."""
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
    operator: Literal["add", "ablate"] = "add"
    """What is done to the residual stream."""
    controls: int = 5
    """Random directions of equal norm, swept like the vector itself."""
    items: int = 100
    """Test pairs a cell."""
    problems: int = 50
    """Test problems of the align loop a coefficient; 0: no loop."""
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
    problems: list[Problem]
    upstream: Upstream | None


def run(config: Sweep) -> Path:
    """Run or resume a sweep; returns the run folder with rows, table and figure."""
    check(config)
    works = [prepare(config, name) for name in config.task]
    out = Path("runs") / default_name("sweep", config) if config.out == Path() else config.out
    with RunFolder(out, config, config.device) as folder:
        if not folder.done:
            chosen = _choose(config, works, folder)
            rows_before = 0
            for work, selection in zip(works, chosen, strict=True):
                rows_before = _edits(config, work, *selection, folder, rows_before)
            rows_before = 0
            for work, selection in zip(works, chosen, strict=True):
                rows_before = _loops(config, work, *selection, folder, rows_before)
            folder.finish()
    # Tables and figures are floors above this one, so they are run as programs, not imported.
    subprocess.run([sys.executable, "-m", "figures.dose", str(out)], check=True)
    return out


def check(config: Sweep) -> None:
    """Raise UserError for a configuration that cannot run, before anything is loaded or written."""
    for name, least in (("controls", 0), ("items", 2), ("problems", 0), ("pairs", 2), ("validation", 2)):
        if (value := getattr(config, name)) < least:
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
        make_bank([vector], config.layers or vector.layers)
        check_span(_given(config, vector).write)
    task.pairs("validation", config.validation, config.seed)
    pairs = task.pairs("test", config.items, config.seed)
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    check_request(lm, prompts, task.max_sentence_tokens, 0.0, None)
    if config.problems == 0:
        return Work(task, lm, pairs, [], None)
    problems = task.problems("test", config.problems, config.seed)
    for problem in problems:
        task.grade(problem, "")
    upstream = upstream_of(
        config.upstream, task, problems, config.temperature, config.seed, config.template, config.device, config.dtype
    )
    return Work(task, lm, pairs, problems, upstream)


def _choose(config: Sweep, works: list[Work], folder: RunFolder) -> list[tuple[SteeringVector, Setting]]:
    """Vector and setting of every task; a resumed run reads back what the first one chose."""
    record = read_json(folder.path, "selection")
    if not record:
        for work in works:
            selection = choose(config, work.task, work.lm)
            selection.vector.save(folder.path / f"vector-{work.task.name}.safetensors")
            record[work.task.name] = {**selection.record(), **_about(config, work.task, work.lm)}
        folder.write_once("selection", record)
    return [
        (
            SteeringVector.load(folder.path / f"vector-{name}.safetensors"),
            Setting(tuple(record[name]["layers"]), record[name]["span"], record[name]["operator"]),
        )
        for name in (work.task.name for work in works)
    ]


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
    return select(lm, task, found, sources, [config.layers] if config.layers else layers, pairs, ends, config.operator)


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


def _cells(config: Sweep, vector: SteeringVector, setting: Setting) -> list[Cell]:
    """The unsteered cell, then every direction at every coefficient but 0."""
    controls = random_controls(vector, setting.layers, config.controls, config.seed)
    coefs = sorted({c for c in config.coef if c != 0})
    cells = [Cell("none", 0.0), *(Cell("correction", c, vector) for c in coefs)]
    return cells + [Cell(name, c, control) for name, control in controls.items() for c in coefs]


def _edits(config: Sweep, work: Work, vector: SteeringVector, setting: Setting, folder: RunFolder, before: int) -> int:
    """Append the task's rows of edits.jsonl, `before` rows in; returns the rows there are after them."""
    task, lm, pairs = work.task, work.lm, work.pairs
    cells = _cells(config, vector, setting)
    unsteered: list[list[int]] = []
    for i, cell in enumerate(tqdm(cells, desc=f"{task.name}: correct", unit="cell")):
        start = before + i * len(pairs)
        missing = start + len(pairs) - max(folder.count("edits"), start)
        if missing <= 0:
            continue
        rows = correct(lm, task, pairs, cell, setting)
        unsteered = unsteered or unsteered_tokens(lm, task, pairs)
        folder.append("edits", with_kl(lm, pairs, rows, unsteered, cell, setting)[len(pairs) - missing :])
    return before + len(cells) * len(pairs)


def _loops(config: Sweep, work: Work, vector: SteeringVector, setting: Setting, folder: RunFolder, before: int) -> int:
    """Append the task's rows of alignments.jsonl: the upstream alone, then the loop at every coefficient."""
    task, problems, upstream = work.task, work.problems, work.upstream
    if upstream is None:
        return before
    coefs = sorted({c for c in config.coef if c != 0})
    cells = [Cell("upstream", 0.0), Cell("none", 0.0), *(Cell("correction", c, vector) for c in coefs)]
    for i, cell in enumerate(tqdm(cells, desc=f"{task.name}: align", unit="cell")):
        start = before + i * len(problems)
        missing = start + len(problems) - max(folder.count("alignments"), start)
        if missing <= 0:
            continue

        def steer(live: list[int], cell: Cell = cell) -> Any:
            return intervention(cell, setting, len(live))

        answers = align(
            problems,
            upstream,
            None if cell.direction == "upstream" else work.lm,
            task=task,
            mode="upstream" if cell.direction == "upstream" else "stream",
            steer=steer if cell.vector is not None else None,
        )
        rows = [{"task": task.name, "coef": cell.coef, "direction": cell.direction, **a.row()} for a in answers]
        folder.append("alignments", rows[len(problems) - missing :])
    return before + len(cells) * len(problems)


if __name__ == "__main__":
    run_cli(Sweep, run, "steering.sweep")
