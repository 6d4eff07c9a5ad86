"""Where interventions write: the site of a block, by forward hooks that put a new tensor in the place of the old."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from corrector.errors import UserError
from corrector.loading.shapes import head_size
from corrector.models import blocks
from probes.sites import SITES, Site, first, site_width, submodule

Change = Callable[[Tensor], Tensor | None]
"""Takes h [batch, seq, width] of a site and gives the new one, or None where nothing changes."""


@dataclass(frozen=True)
class Write:
    """What is done at one site of a layer in every forward; writes at one place run in the order of their list."""

    site: Site
    layer: int
    change: Change


def in_order(writes: Sequence[Write]) -> list[Write]:
    """Writes in the order in which a forward reaches their places, those at one place in the order given."""
    return sorted(writes, key=lambda w: (w.layer, SITES.index(w.site)))


@contextmanager
def hooked(model: Any, writes: Sequence[Write]) -> Generator[None]:
    """Torch hooks on the model while the context lasts."""
    modules = blocks(model)
    with ExitStack() as handles:
        for write in writes:
            module, side = submodule(modules[write.layer], write.site)
            if side == "input":
                handle = module.register_forward_pre_hook(partial(_before, write.change), with_kwargs=True)
            else:
                handle = module.register_forward_hook(partial(_after, write.change))
            handles.callback(handle.remove)
        yield


def _before(change: Change, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    new = change(args[0] if args else kwargs["hidden_states"])
    if new is None:
        return None
    return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})


def _after(change: Change, _: nn.Module, args: Any, output: Any) -> Any:
    return replaced(output, change(first(output)))


def replaced(output: Any, new: Tensor | None) -> Any:
    """What a module returns, with `new` in the place of its hidden states (None: as it was)."""
    if new is None:
        return output
    return (new, *output[1:]) if isinstance(output, tuple) else new


def check_places(model: Any, site: str, layers: Sequence[int], width: int, head: int | None = None) -> None:
    """Raise UserError for layers, heads or widths that the model has not."""
    config = model.config
    if bad := [layer for layer in layers if not 0 <= layer < len(blocks(model))]:
        raise UserError(f"layer={bad[0]} not in 0..{len(blocks(model)) - 1}; choose --layers in that range")
    n_heads = int(config.num_attention_heads)
    d_head = head_size(config)
    if head is not None:
        if not 0 <= head < n_heads:
            raise UserError(f"head={head} not in 0..{n_heads - 1}; choose --head in that range")
        if width != d_head:
            raise UserError(f"a vector of {width} numbers does not fit a head of {d_head}; cut it with of_head")
    elif width != (d := site_width(config, site)):
        what = f"{d} numbers at site z" if site == "z" else f"hidden size {d}"
        raise UserError(f"a vector of {width} numbers does not fit a model of {what}")
