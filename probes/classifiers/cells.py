"""The cells of a run: what identifies each row, and how the rest of it is measured, in one fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from itertools import product
from typing import Any, Literal

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.records import RunFolder
from probes.classifiers.baselines import as_corrector, surface, untrained
from probes.classifiers.config import Classify
from probes.classifiers.labels import Target, absence, label_items, target
from probes.classifiers.measure import Features, measure
from probes.classifiers.models import Classifier, Fit, fitter
from probes.classifiers.reading import Readings, read
from probes.classifiers.transfer import Alignment, Space, matched_layers, on_shuffled, on_target, probe_at, ways
from probes.classifiers.work import Work

Cell = tuple[dict[str, Any], Callable[[], dict[str, Any]]]
"""The fields that identify a row, and what measures the others."""


def probe_cells(config: Classify, work: Work, readings: Readings, targets: Mapping[str, Target]) -> Iterator[Cell]:
    """Rows of probes.jsonl: every classifier on the corrector, the first one on the other models, the baselines."""
    sources: list[tuple[str, str, Readings]] = [("corrector", name, readings) for name in config.classifier]
    first = config.classifier[0]
    fresh = untrained(work.lm, config.seed)
    sources.append(("untrained", first, read(fresh, work.items, config.span, config.site, list(work.layers))))
    if work.before is not None:
        model = as_corrector(work.before, work.lm)
        sources.append(("before", first, read(model, work.items, config.span, config.site, _own_layers(config, model))))
    baselines = surface(work.lm, work.upstream, work.task, work.items)

    def cell(label: str, source: str, at: tuple[str, int] | None, name: str, features: Features, fit: Fit) -> Cell:
        identity = {
            "task": config.task,
            "label": label,
            "source": source,
            "span": at[0] if at else None,
            "site": config.site if at else None,
            "layer": at[1] if at else None,
            "classifier": name,
        }
        return identity, partial(measure, features, targets[label], fit, config.seed, config.resamples)

    for label in probed(targets):
        for source, name, of in sources:
            for at, features in of.items():
                yield cell(label, source, at, name, features, fitter(name, config.seed))
        for baseline in baselines:
            name = "prior" if baseline.name == "prior" else "logistic"
            yield cell(label, baseline.name, None, name, baseline.features, baseline.fit)


def transfer_cells(config: Classify, work: Work, here: Space) -> Iterator[Cell]:
    """Rows of transfer.jsonl: the matrix over correctors, then the one over tasks; each has its own diagonal."""
    if work.correctors:
        others = [_space(config, work, lm, here) for lm in work.correctors]
        yield from _matrix(config, [here, *others], "corrector")
    if work.tasks:
        others = []
        for name, task, items in work.tasks:
            labelled = label_items(work.lm, task, items)
            targets = {label: target(labelled, label, config.seed) for label in config.label}
            readings = read(work.lm, items, config.span, config.site, list(work.layers))
            others.append(Space(name, work.layers, readings, targets))
        mine = Space(config.task, here.layers, here.readings, here.targets)
        yield from _matrix(config, [mine, *others], "task")


def probed(targets: Mapping[str, Target]) -> list[str]:
    """The labels that have items of both classes in every split."""
    return [label for label, of in targets.items() if not absence(of)]


def measured(folder: RunFolder, name: str, cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Append the row of every cell that has none yet; returns the cells that cannot be measured, with the reason."""
    absent: list[dict[str, Any]] = []
    todo = list(cells)
    done = {tuple(row[key] for key in todo[0][0]) for row in folder.rows(name)} if todo else set[tuple[Any, ...]]()
    for identity, rest in tqdm(todo, desc=name, unit="row", disable=not todo):
        if tuple(identity.values()) in done:
            continue
        try:
            row = {**identity, **rest()}
        except UserError as error:
            absent.append({**identity, "reason": str(error)})
        else:
            folder.append(name, [row])
    return absent


def _space(config: Classify, work: Work, lm: LanguageModel, here: Space) -> Space:
    """Another corrector on the same items, at the layers of the same relative depth."""
    layers = matched_layers(here.layers, work.lm.n_layers, lm.n_layers)
    labelled = label_items(lm, work.task, work.items)
    targets = {label: target(labelled, label, config.seed) for label in config.label}
    return Space(lm.ref, layers, read(lm, work.items, config.span, config.site, sorted(set(layers))), targets)


def _matrix(config: Classify, spaces: list[Space], across: Literal["task", "corrector"]) -> Iterator[Cell]:
    """Every probe of every space on every space; a probe is fitted once, when its first row is measured."""
    name = config.classifier[0]
    for source in spaces:
        for label, span, i in product(probed(source.targets), config.span, range(len(source.layers))):
            probe = cache(partial(probe_at, source, label, span, i, fitter(name, config.seed)))
            for other in spaces:
                for way in ways(source, other, i, across):
                    identity = {
                        "across": across,
                        "source": source.name,
                        "target": other.name,
                        "alignment": way,
                        "label": label,
                        "span": span,
                        "layer": source.layers[i],
                        "layer_target": other.layers[i],
                        "classifier": name,
                    }
                    yield identity, partial(_transferred, config, probe, source, other, label, span, i, way)


def _transferred(
    config: Classify,
    probe: Callable[[], tuple[Classifier, float]],
    source: Space,
    other: Space,
    label: str,
    span: str,
    i: int,
    way: Alignment,
) -> dict[str, Any]:
    if why := absence(other.targets[label]):
        raise UserError(f"{label} of {other.name}: {why}")
    fitted, auroc_validation = probe()
    if way == "shuffled":
        metrics = on_shuffled(fitted, source, other, label, (span, i), config.seed)
    else:
        metrics = on_target(fitted, way, source, other, label, (span, i), config.seed, config.resamples)
    return {"auroc_validation": auroc_validation, **metrics}


def _own_layers(config: Classify, model: LanguageModel) -> list[int]:
    if not config.layers:
        return list(range(model.n_layers))
    return sorted({0, *(k for k in config.layers if k < model.n_layers)})
