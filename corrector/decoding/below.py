"""Blocks below the first one that is written to: they give the same for every row with the same tokens, so once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor

from corrector.models import blocks


@contextmanager
def recorded(model: Any, n_below: int) -> Generator[list[Tensor]]:
    """The output of block n_below - 1 in every forward of the context, in order."""
    outputs: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handle = blocks(model)[n_below - 1].register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def replaced_below(model: Any, n_below: int, h: Float[Tensor, "fed seq d"]) -> Generator[None]:
    """Blocks 0..n_below-1 do nothing and give h, while hooks on them still fire; their cache is left as it is."""
    with ExitStack() as stack:
        for block in list(blocks(model))[:n_below]:
            stack.callback(partial(_restore, block, block.__dict__.get("forward")))
            block.forward = lambda *_, **__: h
        yield


def _restore(block: Any, forward: Any) -> None:
    if forward is None:
        del block.forward
    else:
        block.forward = forward
