"""Refuse what cannot fit before it begins, in one line that names the cure."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from corrector.errors import UserError
from corrector.memory.free import free, gigabytes
from corrector.memory.needs import PER_WEIGHT, Memory, parameters_of

OVERRIDE = "or --ignore-memory (in Python `with corrector.memory.ignoring():`) to run all the same"
_ignored: ContextVar[bool] = ContextVar("ignore_memory", default=False)


@contextmanager
def ignoring(on: bool = True) -> Generator[None]:
    """Refuse nothing while the context lasts, where `on`."""
    token = _ignored.set(on or _ignored.get())
    try:
        yield
    finally:
        _ignored.reset(token)


def line(need: Memory, there: int) -> str:
    """What is needed, by its parts, and what is free beside the weights, which are loaded already."""
    parts = {"cache": need.cache, "logits": need.logits, "activations": need.activations}
    told = ", ".join(f"{name} {gigabytes(n)}" for name, n in parts.items())
    return (
        f"needs about {gigabytes(need.total)} (weights {gigabytes(need.weights)}, loaded; {told}); "
        f"{gigabytes(there)} free beside the weights"
    )


def check_fits(need: Memory, devices: Iterable[torch.device], cure: str) -> str:
    """The line of a run whose models are loaded; UserError where the rest of what it needs is not free.

    `devices` are those that the models run on, whose free memory is added up.
    """
    there = sum(free(device) for device in set(devices))
    said = line(need, there)
    if need.beside_weights > there and not _ignored.get():
        raise UserError(f"{said}: too little; choose {cure}, {OVERRIDE}")
    return said


def check_weights(name: str, folder: str, config: Any, dtype: torch.dtype, quantize: str, device: str) -> None:
    """Raise UserError where a model that is to be loaded whole onto one device does not fit there, or not in memory.

    Weights pass through this machine's memory on their way to another device. A configuration that transformers cannot
    make a model of by itself is not judged.
    """
    if _ignored.get():
        return
    n = _stored(Path(folder)) if Path(folder).is_dir() else 0
    if not n:
        try:
            n = parameters_of(config)
        except (ValueError, KeyError, AttributeError, RuntimeError, ImportError):  # its own code, which is not run
            return
    need = int(n * (PER_WEIGHT[quantize] or dtype.itemsize))
    for at in dict.fromkeys(("cpu", device)):
        if torch.device(at).type == "cuda" and not torch.cuda.is_available():
            continue  # transformers says so
        if need > (there := free(at)):
            raise UserError(
                f"model {name!r} needs about {gigabytes(need)} for its {n:,} weights, and {gigabytes(there)} are free "
                f"on {at}; choose --dtype bfloat16, device_map or quantize in an options file, {OVERRIDE}"
            )


def _stored(folder: Path) -> int:
    """Numbers in a folder's safetensors, from their headers; 0 where there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    return total
