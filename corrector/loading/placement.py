"""Where the weights of a model lie and where it runs: on one device, spread over several, or offloaded (accelerate).

Offloaded weights are on the device `meta` while they are idle; accelerate's hooks bring them in for each forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

CPU = torch.device("cpu")


def input_device(model: Any) -> torch.device:
    """Where a model takes its tokens: where its input embedding runs; the CPU for weights that are not here at all."""
    first = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else model
    at = next(first.parameters()).device
    return at if at.type != "meta" else _runs_on(first) or CPU


def devices_of(model: nn.Module) -> list[torch.device]:
    """The devices that a model runs on, each once: of its weights, and where offloaded ones are brought to."""
    found: dict[torch.device, None] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            at = weight.device if weight.device.type != "meta" else _runs_on(module)
            if at is not None:
                found[at] = None
    return list(found)


def is_offloaded(model: nn.Module) -> bool:
    """Whether some weights are elsewhere while they are idle."""
    return any(weight.device.type == "meta" for weight in model.parameters())


def is_spread(model: nn.Module) -> bool:
    """Whether a model is more than a plain one on one device: offloaded, or on several devices."""
    return is_offloaded(model) or len(devices_of(model)) > 1


def state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and values of `model.state_dict()`, sorted by name; offloaded ones are brought in one module at a time."""
    for name, tensor in sorted(model.state_dict().items()):
        with _brought_in(model, name) if tensor.device.type == "meta" else nullcontext():
            owner, _, leaf = name.rpartition(".")
            yield name, getattr(model.get_submodule(owner), leaf) if tensor.device.type == "meta" else tensor


def _brought_in(model: nn.Module, name: str) -> Any:
    from accelerate.utils import align_module_device

    return align_module_device(model.get_submodule(name.rpartition(".")[0]), execution_device=CPU)


def _runs_on(module: nn.Module) -> torch.device | None:
    """Where accelerate's hook of a module has it run; None where it has no such hook."""
    hook: Any = getattr(module, "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        at = getattr(one, "execution_device", None)
        if at is not None:
            return torch.device(at)
    return None
