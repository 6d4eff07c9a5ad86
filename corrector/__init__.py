"""Correctors: tasks, sentences, prompts, models, decoding, upstreams, the align loop, training and run records."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """`load`, `correct` and `align` (a callable module) on first use: reading records needs no torch."""
    import importlib

    if name == "align":
        return importlib.import_module("corrector.align")
    if name == "correct":
        return importlib.import_module("corrector.correction").correct
    if name == "load":
        return importlib.import_module("corrector.models").load
    raise AttributeError(f"module 'corrector' has no attribute {name!r}")
