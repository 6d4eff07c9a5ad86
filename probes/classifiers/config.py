"""The configuration of `python -m probes.classify`, and what can be said of it before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corrector.errors import UserError
from probes.classifiers.labels import LABELS, Label
from probes.classifiers.models import fitter
from probes.sites import Site


@dataclass(frozen=True)
class Classify:
    """Fit classifiers of three labels on a corrector's activations; report them on new questions, with controls.

    Labels: the sentence is wrong, the corrector edits it, it looks wrong (by its words alone). The layer is chosen on
    the validation split; all else is of the test split. The same command again resumes a stopped run.
    """

    task: str = "dialogue"
    """Task whose pairs are classified."""
    corrector: str = ""
    """Reference, folder or hub id; empty: the task's reference."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    label: tuple[Label, ...] = LABELS
    """What is predicted: is_wrong, was_edited, looks_wrong."""
    classifier: tuple[str, ...] = ("logistic", "mass_mean", "lda")
    """logistic, mass_mean, lda, or a method of probes.directions; the first also reads other models and transfers."""
    span: tuple[str, ...] = ("prompt_last", "last")
    """Where the prompt is read: prompt_last, last (its mean), question, ..."""
    site: Site = "resid_post"
    """What is read in every block."""
    layers: tuple[int, ...] = ()
    """Layers to read, counted from 0; empty: all. Layer 0 is always read, as a baseline."""
    train: int = 240
    """Problems of the train split; two items each."""
    validation: int = 80
    """Problems of the validation split, by which the layer is chosen."""
    test: int = 150
    """Problems of the test split."""
    before: str = ""
    """The corrector before its training, as a baseline; empty: the task's upstream, where it reads the prompt."""
    upstream: str = ""
    """Model whose perplexity of the sentence is a baseline; empty: the task's upstream, where there is one."""
    transfer: tuple[str, ...] = ()
    """Other correctors of the same task (seeds, sizes): every probe is tested on every one, raw and aligned."""
    transfer_task: tuple[str, ...] = ()
    """Other tasks, as NAME or NAME=DATA; the probes of every task are tested on every one."""
    resamples: int = 1000
    """Resamples of the problems behind every interval."""
    seed: int = 0
    """Seed of items, controls, untrained weights, code order and resamples."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/classify-<hash of this configuration>."""


def check(config: Classify) -> None:
    """Raise UserError for a configuration that cannot run, before anything is loaded or written."""
    for name, least in (("train", 10), ("validation", 5), ("test", 5), ("resamples", 10)):
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    for name in ("label", "classifier", "span", "layers", "transfer", "transfer_task"):
        values, flag = list(getattr(config, name)), name.replace("_", "-")
        if len(set(values)) < len(values):
            raise UserError(f"{name}={values} names one twice; give each of --{flag} once")
        if not values and name in ("label", "classifier", "span"):
            raise UserError(f"{name} is empty; give --{flag} at least one")
    if config.task in config.transfer_task or config.corrector in config.transfer:
        raise UserError("a transfer goes to another task or corrector; leave the probed one out of --transfer*")
    for name in config.classifier:
        fitter(name)
