"""What one task of a sweep is measured with: its models, test pairs, problems of the loop and upstream."""

from __future__ import annotations

from dataclasses import dataclass

from corrector import tasks
from corrector.decoding import check_request
from corrector.errors import UserError
from corrector.models import ALIASES, LanguageModel, load, references
from corrector.tasks.base import Pair, Problem, Task
from corrector.upstreams import Upstream, upstream_of
from steering.interventions import make_bank
from steering.interventions.positions import check_span
from steering.sweeping.gating import Gating, gating
from steering.sweeping.grid import written
from steering.sweeping.plan import LOOPS, Sweep
from steering.sweeping.selection import SOURCES, Source
from steering.vectors import SteeringVector
from steering.vectors.origins import own_origins


@dataclass(frozen=True)
class Work:
    """What one task is measured with, made before anything is written, so that a mistake costs no run."""

    task: Task
    lm: LanguageModel
    pairs: list[Pair]
    loops: dict[str, list[Problem]]
    upstream: Upstream | None


def prepare(config: Sweep, name: str) -> Work:
    """Load a task's models and draw its test items; raises UserError for all that can be seen to fail later."""
    task = tasks.get(name, config.data)
    if not config.corrector and ALIASES.get(name, name) not in references():
        raise UserError(f"task {name!r} has no reference corrector here; give --corrector a folder or a hub id")
    lm = _corrector(config, name)
    if bad := [k for k in config.layers if not 0 <= k < lm.n_layers]:
        raise UserError(f"layer={bad[0]} not in 0..{lm.n_layers - 1}; choose --layers in that range")
    gates = gating_of(config, lm)
    gates.check(config.layers or [max(lm.n_layers - 2, 0)])
    if config.vector:
        vector = SteeringVector.load(config.vector)
        vector.check(lm)
        make_bank([written(vector, config.coef_unit)], config.layers or vector.layers)
        check_span(given(config, vector).write)
        gates.gate(vector, config.layers or vector.layers[-1:])
        if config.operator == "clamp":
            own_origins(vector, config.layers or vector.layers)
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
    for problem in [p for of_split in loops.values() for p in of_split]:
        task.grade(problem, "")
    return Work(task, lm, pairs, loops, _upstream(config, task, loops))


def equip(config: Sweep, task: Task, pairs: list[Pair], loops: dict[str, list[Problem]]) -> Work:
    """The work that another process prepared, with models of this one: what was drawn there is not drawn again."""
    return Work(task, _corrector(config, task.name), pairs, loops, _upstream(config, task, loops) if loops else None)


def _corrector(config: Sweep, task: str) -> LanguageModel:
    return load(config.corrector or task, config.template, config.device, config.dtype)


def _upstream(config: Sweep, task: Task, loops: dict[str, list[Problem]]) -> Upstream:
    problems = [p for of_split in loops.values() for p in of_split]
    return upstream_of(config, task, problems)


def gating_of(config: Sweep, lm: LanguageModel) -> Gating:
    """The gate that is asked for; raises UserError as `gating` does."""
    return gating(config.gate, config.gate_side, config.gate_layer, config.gate_vector, lm)


def given(config: Sweep, vector: SteeringVector) -> Source:
    """Where a saved vector is written: at --span, else where vectors read at its span are, else at its span."""
    write = next((s.write for s in SOURCES if s.read == vector.span), vector.span)
    return Source(vector.card.get("contrast", "copy_rewrite"), vector.span, config.span or write)
