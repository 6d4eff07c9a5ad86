"""Where vectors come from and go to: a corrector on a task, and what is read there."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from corrector import tasks
from corrector.errors import UserError
from corrector.models import LanguageModel, load
from corrector.tasks.base import Pair, Split, Task, check_disjoint
from probes.capture import capture
from probes.contrasts import contrast_pairs
from probes.spans import sequence
from steering.extract import contrast_of, extract_vectors
from steering.transfers.config import Transfer
from steering.vectors import SteeringVector


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


def prepare(config: Transfer) -> tuple[list[Place], list[str]]:
    """Every corrector on every task whose words it knows, and a line for each that it does not.

    Raises UserError for layers that a corrector has not, and where fewer than two places are left.
    """
    given = [tasks.get(name, config.data if name in tasks.READ else "") for name in config.task]
    drawn: list[list[Pair]] = []
    for task in given:
        drawn.append(task.pairs("test", config.items, config.seed))
        texts = {str(split): [p.question for p in stimuli(config, task, split)] for split in config.fitted}
        check_disjoint({**texts, "test": [p.question for p in drawn[-1]]})
    places, absent = list[Place](), list[str]()
    layers = config.layers * len(config.corrector) if len(config.layers) == 1 else config.layers
    for ref, layer in zip(config.corrector, layers, strict=True):
        lm = load(ref, config.template)
        if not 0 <= layer < lm.n_layers:
            raise UserError(f"layer={layer} of {ref!r} not in 0..{lm.n_layers - 1}; choose --layers in that range")
        for task, pairs in zip(given, drawn, strict=True):
            try:
                for pair in (*pairs, *stimuli(config, task, "train"), *stimuli(config, task, "validation")):
                    sequence(lm, pair, pair.correction)  # a word it lacks raises
            except UserError as error:
                absent.append(f"{ref} on {task.name}: {error}")
                continue
            places.append(Place(lm, task, layer, pairs))
    if len(places) < 2:
        raise UserError(f"{len(places)} of the correctors know the words of their task ({'; '.join(absent)})")
    return places, absent


def read(config: Transfer, place: Place) -> Reading:
    """Extract the place's own vector, and capture both sides of the contrast's stimuli at its layer."""
    lm, task, layer, sizes = place.lm, place.task, place.layer, config.fitted
    train, validation = (contrast_of(config.contrast, lm, task, split, n, config.seed) for split, n in sizes.items())
    found = extract_vectors(lm, train, validation, (config.method,), (config.span,), seed=config.seed)
    sequences = [[sequence(lm, p, p.correction) for p in stimuli(config, task, split)] for split in sizes]
    h = [capture(lm, of_split, layers=[layer], span=config.span).at(layer) for of_split in sequences]
    return Reading(found[config.method, config.span].only([layer]), *h)


def stimuli(config: Transfer, task: Task, split: Split) -> list[Pair]:
    """The task's pairs that every corrector reads, whatever it makes of them: what a map is fitted or judged on."""
    return contrast_pairs(task, split, config.fitted[split], config.seed)
