"""The models and items of a run, loaded and drawn before anything is written, so that a mistake costs no run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from corrector import tasks
from corrector.errors import UserError
from corrector.models import ALIASES, LanguageModel, load, references
from corrector.tasks.base import Pair, Task
from probes.classifiers.baselines import as_corrector, default_upstream
from probes.classifiers.config import Classify
from probes.classifiers.items import Items, draw
from probes.classifiers.reading import check_readable


@dataclass(frozen=True)
class Work:
    """What a run is made of; `notes` say what was left out and why."""

    task: Task
    lm: LanguageModel
    items: Items
    layers: tuple[int, ...]
    before: LanguageModel | None
    upstream: LanguageModel | None
    correctors: tuple[LanguageModel, ...]
    tasks: tuple[tuple[str, Task, Items], ...]
    notes: tuple[str, ...]


def prepare(config: Classify) -> Work:
    """Load and draw; raises UserError for all that can be seen to fail later.

    What was asked for by name must be readable, but a transfer to where the tokenizer lacks words is skipped and
    noted, as is a default baseline that is not to be had.
    """
    task = tasks.get(config.task, config.data)
    if not config.corrector and ALIASES.get(config.task, config.task) not in references():
        raise UserError(f"task {config.task!r} has no reference corrector; give --corrector a folder or a hub id")
    lm = _load(config, config.corrector or config.task)
    if bad := [k for k in config.layers if not 0 <= k < lm.n_layers]:
        raise UserError(f"layer={bad[0]} not in 0..{lm.n_layers - 1}; choose --layers in that range")
    items = _draw(config, task)
    pairs = items.every
    check_readable(lm, pairs, config.span)
    notes: list[str] = []
    before = _baseline(
        config, task, "before", config.before, lambda m: check_readable(as_corrector(m, lm), pairs, config.span), notes
    )
    if before is not None:
        notes.append(f"'before' is {before.ref}, read through the corrector's prompt{_caveat(config)}")
    upstream = _baseline(
        config, task, "perplexity_upstream", config.upstream, lambda m: _check_upstream(m, pairs), notes
    )
    correctors: list[LanguageModel] = []
    for ref in config.transfer:
        other = _load(config, ref)
        if _readable(other, pairs, config.span, f"no transfer to {ref}", notes):
            correctors.append(other)
    others: list[tuple[str, Task, Items]] = []
    for named in config.transfer_task:
        name, _, data = named.partition("=")
        other_task = tasks.get(name, data)
        drawn = _draw(config, other_task)
        if _readable(lm, drawn.every, config.span, f"no transfer to task {named}", notes):
            others.append((named, other_task, drawn))
    layers = tuple(sorted({0, *config.layers})) if config.layers else tuple(range(lm.n_layers))
    return Work(task, lm, items, layers, before, upstream, tuple(correctors), tuple(others), tuple(notes))


def _load(config: Classify, ref: str) -> LanguageModel:
    return load(ref, config.template, config.device, config.dtype)


def _draw(config: Classify, task: Task) -> Items:
    return draw(task, config.train, config.validation, config.test, config.seed)


def _baseline(
    config: Classify,
    task: Task,
    name: str,
    given: str,
    check: Callable[[LanguageModel], None],
    notes: list[str],
) -> LanguageModel | None:
    """The model of a baseline; None, with a note, where the default one is not there or cannot read the items."""
    try:
        model = _load(config, given or default_upstream(task))
        check(model)
    except UserError as error:
        if given:
            raise
        notes.append(f"no baseline {name}: {error}")
        return None
    return model


def _caveat(config: Classify) -> str:
    if config.before:
        return ""
    return (
        "; it is the task's upstream, since a reference trained from scratch has no other model before it: same "
        "tokenizer, own weights and depth, and the marks around the last sentence were never in its training"
    )


def _check_upstream(model: LanguageModel, pairs: list[Pair]) -> None:
    for pair in pairs:
        model.encode_upstream(pair.question, pair.prefix)


def _readable(lm: LanguageModel, pairs: list[Pair], spans: tuple[str, ...], what: str, notes: list[str]) -> bool:
    try:
        check_readable(lm, pairs, spans)
    except UserError as error:
        notes.append(f"{what}: {error}")
        return False
    return True
