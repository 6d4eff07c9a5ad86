"""Where the blocks of a sweep are computed, to the same rows: in this process, or on the workers of a Ray cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from corrector.errors import UserError
from steering.engines.local import Engine, in_order
from steering.sweeping.plan import Sweep

__all__ = ["Engine", "engine_of", "in_order"]


def engine_of(config: Sweep) -> AbstractContextManager[Engine]:
    """The engine that was chosen; entering connects it, so that what is wrong with it is said before models are loaded.

    Raises UserError for an engine that is not installed, an address without a cluster, and numbers that do not fit.
    """
    if config.engine == "local":
        if config.address or config.workers:
            flag = "address" if config.address else "workers"
            raise UserError(f"--{flag} is about a cluster, and --engine local has none; choose --engine ray too")
        return nullcontext(in_order)
    from steering.engines.ray import connected

    return connected(config)
