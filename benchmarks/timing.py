"""Time contestants against each other: interleaved in one process, in CPU time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm.auto import tqdm


@dataclass(frozen=True)
class Work:
    """What one run did: `n` units that its cost is divided by, and what it found, by row."""

    n: float
    found: Mapping[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """One way to do a piece of work. `run(r)` does it in round r, on a sample of its own where it is slow."""

    name: str
    run: Callable[[int], Work]
    note: str = ""
    exact: bool = False
    """A path of the lab: in float32 no row may differ from the reference's."""


@dataclass
class Times:
    """Seconds a unit, round by round: of this process's CPU, and of the clock on the wall."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    n: list[float] = field(default_factory=list)
    found: dict[Hashable, Any] = field(default_factory=dict)


def race(
    contestants: Sequence[Contestant], rounds: int, device: str, progress: str, warm: bool = False
) -> dict[str, Times]:
    """Every contestant in every round, each round in another order; `warm` runs each once before that, untimed.

    Raises RuntimeError for a contestant that did nothing.
    """
    times = {c.name: Times() for c in contestants}
    for contestant in contestants if warm else ():
        contestant.run(0)
    with tqdm(total=rounds * len(contestants), desc=progress, unit="run") as bar:
        for r in range(rounds):
            for contestant in random.Random(r).sample(list(contestants), len(contestants)):
                mine = times[contestant.name]
                _sync(device)
                wall, cpu = time.perf_counter(), time.process_time()
                work = contestant.run(r)
                _sync(device)
                cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                if work.n <= 0 or cpu <= 0:
                    raise RuntimeError(f"{progress}: {contestant.name} did nothing, so its cost is not known")
                mine.cpu.append(cpu / work.n)
                mine.wall.append(wall / work.n)
                mine.n.append(work.n)
                mine.found |= work.found
                bar.update()
    return times


def _sync(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
