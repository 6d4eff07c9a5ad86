"""What a worker on another machine is sent, and what it does with it. Nothing here knows of Ray."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corrector.errors import UserError
from corrector.records.canonical import differing
from corrector.records.environment import environment
from corrector.tasks.base import Pair, Problem, Task
from corrector.upstreams import LocalUpstream
from steering.sweeping.grid import Grid
from steering.sweeping.plan import Sweep
from steering.sweeping.rows import Block, Row, compute
from steering.sweeping.work import Work, equip


@dataclass(frozen=True)
class Sent:
    """Configuration, items and grids, which are text and small tensors. Models never travel: a worker loads its own.

    `models` and `versions` are what the driver has, by which a worker knows that its own are the same.
    """

    config: Sweep
    items: dict[str, tuple[Task, list[Pair], dict[str, list[Problem]]]]
    grids: dict[str, Grid]
    models: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Refusal:
    """The text of a UserError, which would reach the user with a traceback were it raised in a worker."""

    text: str


class Worker:
    """A process that holds the models of a sweep and computes its blocks; `load` comes first."""

    def __init__(self, sent: Sent) -> None:
        self.sent = sent
        self.works: dict[str, Work] = {}

    def load(self) -> Refusal | None:
        """Load the models, for one thread where they are on the CPU; refuse where they are not the driver's."""
        import torch

        sent = self.sent
        if sent.config.device == "cpu":
            torch.set_num_threads(1)
        try:
            _check_same("versions", sent.versions, versions())
            self.works = {name: equip(sent.config, *items) for name, items in sent.items.items()}
            _check_same("models", sent.models, fingerprints(self.works))
        except UserError as error:
            return Refusal(f"worker on {platform.node()}: {error}")
        return None

    def compute(self, block: Block) -> list[Row] | Refusal:
        """The rows of a block."""
        try:
            return compute(self.sent.config, self.works[block.task], self.sent.grids[block.task], block)
        except UserError as error:
            return Refusal(f"{block}: {error}")


def send(config: Sweep, works: Mapping[str, Work], grids: Mapping[str, Grid]) -> Sent:
    """What workers need of what the driver has."""
    items = {name: (work.task, work.pairs, work.loops) for name, work in works.items()}
    return Sent(config, items, dict(grids), fingerprints(works), versions())


def fingerprints(works: Mapping[str, Work]) -> dict[str, str]:
    """Corrector and, where it is a model, upstream of every task."""
    found = {f"{name}, corrector": work.lm.fingerprint for name, work in works.items()}
    for name, work in works.items():
        if isinstance(work.upstream, LocalUpstream):
            found[f"{name}, upstream"] = work.upstream.lm.fingerprint
    return found


def versions() -> dict[str, str]:
    """Python, packages and, in a checkout, its commit: rows of two versions must not share a file."""
    here = environment("")
    commit: dict[str, Any] = here["git"] or {}
    return {"python": here["python"], **here["packages"], **({"commit": commit["commit"]} if commit else {})}


def _check_same(what: str, drivers: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Raise UserError naming what differs (but for a commit that one side does not know, having no checkout)."""
    unknown = {"commit"} - ({*drivers} & {*own})
    mine, theirs = ({k: v for k, v in side.items() if k not in unknown} for side in (drivers, own))
    if mine != theirs:
        raise UserError(f"its {what} are not the driver's ({differing(mine, theirs)}); have the same on every node")
