"""A library's own wrapper of a model, made of a copy that shares the weights, so that the model stays as it is.

TransformerLens replaces the blocks of the object it is given and nnsight its forwards. Copies cost no memory for
weights (a library may split some for its own use) and live as long as the model they were made of.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from corrector.errors import UserError
from corrector.loading.placement import is_spread
from corrector.models import LanguageModel

T = TypeVar("T")
Weights = tuple[tuple[int, int, int], ...]


class Wrappers(Generic[T]):
    """One wrapper a model, made on first use by `make(copy of the model, lm)` and made anew when its weights changed.

    Raises UserError where the model carries hooks, such as steering: the copy would not run them; and where it is
    spread over devices or offloaded: its copy would run on the hooks that move the weights of the first one.
    """

    def __init__(self, backend: str, make: Callable[[Any, LanguageModel], T]) -> None:
        self._backend, self._make = backend, make
        self._made: WeakKeyDictionary[nn.Module, tuple[Weights, T]] = WeakKeyDictionary()

    def of(self, lm: LanguageModel) -> T:
        """The wrapper of a model."""
        if is_spread(lm.model):
            raise UserError(
                f"the model is spread over devices or offloaded, which backend={self._backend!r} cannot run here; "
                "use backend='torch', or load it without device_map"
            )
        if names := hooks_of(lm.model):
            raise UserError(
                f"the model has a hook on {names[0]!r}, which backend={self._backend!r} would not run; "
                "capture outside of the steering block, or use backend='torch'"
            )
        weights = _weights(lm.model)
        made = self._made.get(lm.model)
        if made is None or made[0] != weights:
            made = weights, self._make(sharing_copy(lm.model), lm)
            self._made[lm.model] = made
        return made[1]


def sharing_copy(model: nn.Module) -> nn.Module:
    """A copy of the modules and the configuration with the very parameters and buffers of the model."""
    return copy.deepcopy(model, {id(w): w for w in _tensors(model)})


def hooks_of(model: nn.Module) -> list[str]:
    """Names of the modules with a forward hook other than transformers' own recorders of hidden states."""
    return [
        name
        for name, module in model.named_modules()
        for hook in chain(module._forward_hooks.values(), module._forward_pre_hooks.values())
        if not getattr(hook, "__module__", "").startswith("transformers.")
    ]


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _weights(model: nn.Module) -> Weights:
    """Changes whenever a weight is replaced, moved or written in place (other than through `.data`)."""
    return tuple((id(w), w.data_ptr(), w._version) for w in _tensors(model))
