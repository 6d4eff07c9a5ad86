"""Backends of a capture by name; each gives the numbers of `torch`, the reference, within 2e-5 (float32).

`transformer_lens` and `nnsight` are imported on first use. They run a copy of the model that shares its weights.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any, Literal

from corrector.errors import UserError
from probes.backends.base import Backend, Batch, Point, Visit, pad

__all__ = ["BACKENDS", "Backend", "BackendName", "Batch", "Point", "Visit", "backend_name", "get", "pad"]

BackendName = Literal["torch", "transformer_lens", "nnsight"]
BACKENDS: dict[str, str] = {
    "torch": "probes.backends.hooks:hooked",
    "transformer_lens": "probes.backends.bridge:bridged",
    "nnsight": "probes.backends.traces:traced",
}


def get(backend: str | Backend, remote: bool = False) -> Backend:
    """A backend by its name; a function is one already. `remote` runs nnsight on NDIF (see `traces.traced`).

    Raises UserError for an unknown name, and for `remote` with another backend than nnsight.
    """
    if remote and backend != "nnsight":
        raise UserError(f"remote=True is for backend='nnsight', got backend={backend!r}; choose that one")
    if not isinstance(backend, str):
        return backend
    if backend not in BACKENDS:
        raise UserError(f"backend={backend!r} is not one of {', '.join(BACKENDS)}; choose --backend among them")
    module, name = BACKENDS[backend].split(":")
    found: Any = getattr(importlib.import_module(module), name)
    return partial(found, remote=True) if remote else found


def backend_name(backend: str | Backend) -> str:
    """What a record calls a backend: its name, or that of the function."""
    if isinstance(backend, str):
        return backend
    inner = getattr(backend, "func", backend)
    return str(getattr(inner, "__qualname__", type(inner).__name__))
