"""What is varied: correctors that differ in one thing of their training, and shipped ones behind other upstreams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from corrector.errors import UserError
from corrector.recipes import Train

Group = Literal["identity", "warm-up", "noise", "unit", "untrained", "upstream"]
GROUPS: tuple[Group, ...] = ("identity", "warm-up", "noise", "unit", "untrained", "upstream")
BASE, OWN = "base", "own upstream"
"""What the trained variants, and the shipped correctors behind other upstreams, are compared with."""
COEFS = (-1.0, 0.0, 1.0)
"""Doses of the steered pairs; 1 adds the difference of the classes' means."""
WHOLE = 99
"""Sentences of a unit that is the whole answer."""
SIZE = Train(d=64, layers=3, heads=2, ff=176, lr=4e-3, evaluate=0)
START = replace(SIZE, role="upstream", steps=600, batch=12)
"""A writer of answers, which every corrector of a seed begins as: it knows the language and no correction."""
SMALL = replace(SIZE, steps=1400, lr=6e-3, first_weight=3.0, last_weight=0.15)
"""What the variants are variants of: the recipe of the shipped dialogue correctors at a seventh of their size."""


@dataclass(frozen=True)
class Ablations:
    """Train correctors with one thing changed, measure them alike; the same command again resumes."""

    task: str = "dialogue"
    """Task of the correctors."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    only: tuple[Group, ...] = ()
    """What is varied; empty: everything."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the trainings, of which every variant has one each."""
    identity: tuple[float, ...] = (0.0, 0.5)
    """Shares of the copied pairs that are kept in training; the base keeps all."""
    warmup: tuple[float, ...] = (0.02, 0.1, 0.2, 0.5)
    """First shares of the steps that train on identity alone (those of Aligner, 2402.02416); the base has none."""
    noise: tuple[float, ...] = (0.1, 0.3)
    """Shares of the pairs that are annotated wrongly; the base has none."""
    unit: tuple[int, ...] = (2, 0)
    """Sentences of one correction, 0: the whole answer; the base corrects one."""
    correctors: tuple[str, ...] = ("dialogue-0", "dialogue-1", "dialogue-2")
    """Shipped correctors (reference, folder or hub id) that are put behind other upstreams, one a seed."""
    upstream: tuple[str, ...] = ("dialogue-sft-0", "dialogue-dpo-0")
    """Other upstreams, at the task's temperature."""
    temperature: tuple[float, ...] = (0.0, 2.0)
    """Other temperatures of the task's own upstream."""
    start: Train = START
    """What every corrector of a seed begins as, so that all have its sizes and know the language alike."""
    train: Train = SMALL
    """The base. Of both, task, data, seed, init, evaluate and out are set by what is above."""
    problems: int = 100
    """Test problems of the align loop."""
    pairs: int = 200
    """Test pairs that are corrected one by one."""
    items: int = 40
    """The first of them, which are steered as well."""
    fit: int = 150
    """Matched pairs that a direction is fitted on (train split); 100 of the validation split choose its layer."""
    controls: int = 4
    """Random directions of equal norm."""
    seed: int = 0
    """Seed of problems and pairs, of the upstream's draws and of the bootstrap."""
    max_rounds: int = 12
    """Sentences of an answer at most."""
    max_tokens: int = 512
    """Tokens of an answer at most."""
    rounds: tuple[Path, ...] = field(
        default=(Path("figures/runs/rounds-dialogue"), Path("figures/runs/rounds-arithmetic")),
        metadata={"identity": False},
    )
    """Runs of analysis.rounds, from which the report reads how answers grow with rounds."""
    batch_size: int = field(default=64, metadata={"identity": False})
    """Rows decoded together."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run, trained correctors in its models/; default runs/ablations-<hash of this configuration>."""


@dataclass(frozen=True)
class Variant:
    """One setting, and what it is compared with."""

    group: Group | Literal["base"]
    name: str
    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of Train."""
    upstream: str = ""
    """Another upstream; empty: the task's own."""
    temperature: float | None = None
    """Another temperature; None: the task's own."""
    unit: int = 1
    """Sentences of one correction in the loop and on test pairs."""

    @property
    def trained(self) -> bool:
        """Whether it is trained to correct here (and not shipped, or left as it begins)."""
        return self.group not in ("upstream", "untrained")


def variants(config: Ablations) -> list[Variant]:
    """Every variant in the order of the run's rows; the base first, the shipped correctors last."""
    groups = config.only or GROUPS
    by_group: dict[Group, list[Variant]] = {
        "identity": [Variant("identity", f"identity {x:g}", BASE, {"identity": x}) for x in config.identity],
        "warm-up": [Variant("warm-up", f"warm-up {x:g}", BASE, {"warmup": x}) for x in config.warmup],
        "noise": [Variant("noise", f"noise {x:g}", BASE, {"noise": x}) for x in config.noise],
        "unit": [_unit(n) for n in config.unit],
        "untrained": [Variant("untrained", "start", BASE)],
        "upstream": [
            Variant("upstream", OWN, OWN),
            *(Variant("upstream", f"temperature {t:g}", OWN, temperature=t) for t in config.temperature),
            *(Variant("upstream", f"upstream {Path(u).name}", OWN, upstream=u) for u in config.upstream),
        ],
    }
    chosen = [v for group in GROUPS if group in groups for v in by_group[group]]
    base = [Variant("base", BASE, BASE)] if any(v.base == BASE for v in chosen) else []
    found = [*base, *chosen]
    if twice := sorted({v.name for v in found if [w.name for w in found].count(v.name) > 1}):
        raise UserError(f"{twice[0]!r} is asked for twice; give every value once")
    return found


def _unit(n: int) -> Variant:
    if n == 0:
        return Variant("unit", "whole answer", BASE, {"method": "aligner"}, unit=WHOLE)
    return Variant("unit", f"{n} sentences", BASE, {"unit": n}, unit=n)


@dataclass(frozen=True)
class Job:
    """A variant of one seed: what is computed together."""

    variant: Variant
    seed: int | None
    """None: the upstream alone."""
    corrector: str = ""
    """The shipped corrector; empty: trained here."""


def jobs(config: Ablations) -> Iterator[Job]:
    """Every variant with every seed, in the order of the rows."""
    for variant in variants(config):
        if variant.group != "untrained":
            yield Job(variant, None)
        if variant.group == "upstream":
            yield from (Job(variant, i, ref) for i, ref in enumerate(config.correctors))
        else:
            yield from (Job(variant, seed) for seed in config.seeds)


def start_of(config: Ablations, seed: int) -> Train:
    """How the model is trained that the correctors of a seed begin as."""
    common = {"task": config.task, "data": config.data, "seed": seed, "evaluate": 0}
    return replace(config.start, out=config.out / "models" / f"start-{seed}", **common)


def recipe_of(config: Ablations, variant: Variant, seed: int) -> Train:
    """How the corrector of a variant and seed is trained."""
    start = start_of(config, seed)
    folder = "-".join([*variant.name.split(), str(seed)])
    common = {"task": config.task, "data": config.data, "seed": seed, "evaluate": 0, "init": str(start.out)}
    return replace(config.train, out=start.out.with_name(folder), **common, **variant.changes)


def check(config: Ablations) -> None:
    """Raise UserError for a configuration that cannot run; before anything is trained."""
    for name, least in (("problems", 2), ("pairs", 2), ("items", 2), ("fit", 2), ("controls", 1)):
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    if config.items > config.pairs:
        raise UserError(f"items={config.items} of {config.pairs} pairs; choose --items no larger than --pairs")
    if not config.seeds or len({*config.seeds}) < len(config.seeds):
        raise UserError(f"seeds={list(config.seeds)}: give at least one, and each once")
    for name in ("recipe", "init"):
        if getattr(config.train, name) or getattr(config.start, name):
            raise UserError(f"{name} has no use here, since every corrector begins as its seed's start; leave it out")
    for variant in variants(config):
        if clash := [f for f in variant.changes if getattr(config.train, f) != getattr(SMALL, f)]:
            raise UserError(f"train.{clash[0]} is what {variant.name!r} varies; leave it out, or choose other --only")


def identity_of(config: Train) -> dict[str, Any]:
    """The fields that decide the weights, as a card has them."""
    beside = ("out", "init", "save_every", "evaluate", "compile")
    return {**{k: v for k, v in asdict(config).items() if k not in beside}, "data": Path(config.data).name}
