"""The nnsight backend: a TransformersModel traced in this process, or remotely on NDIF for a model of the hub."""

from __future__ import annotations

import copy
import re
import threading
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.models import ALIASES, LanguageModel, blocks, references
from probes.backends.base import Batch, Point, Visit, in_order
from probes.backends.copies import Wrappers
from probes.sites import Side, first, submodule

# Two traces at once break each other (greenlets), whatever models they are of.
_LOCK = threading.Lock()


def _wrap(model: Any, lm: LanguageModel) -> Any:
    from nnsight import TransformersModel

    # The pipeline inside would move weights to the first accelerator, and those of the copy are the model's own.
    place = {} if getattr(model, "hf_device_map", None) else {"device": lm.device}
    # It also sets the tokenizer's padding side, hence a copy.
    return TransformersModel(model, tokenizer=copy.deepcopy(lm.tokenizer), task="text-generation", **place)


def _wrap_hub(_: Any, lm: LanguageModel) -> Any:
    from nnsight import TransformersModel

    return TransformersModel(lm.ref, tokenizer=copy.deepcopy(lm.tokenizer), task="text-generation")


_LOCAL, _HUB = Wrappers("nnsight", _wrap), Wrappers("nnsight", _wrap_hub)


def traced(lm: LanguageModel, batch: Batch, wanted: list[Point], visit: Visit, remote: bool = False) -> None:
    """Run a batch in an nnsight trace, up to the last point needed.

    `remote` runs the hub's own weights on NDIF (https://ndif.us; nnsight's API key is needed). Raises UserError where
    the model is none of the hub's: NDIF can run no other.
    """
    if remote:
        check_remote(lm)
    order = in_order(wanted)
    with _LOCK:
        model = (_HUB if remote else _LOCAL).of(lm)
        points = locate(model, lm, order)
        if remote:
            values = collect(model, batch, points, remote=True)
        else:
            _follow(model, batch, list(zip(order, points, strict=True)), visit)
            return
    for (site, layer), value in zip(order, values, strict=True):
        visit(site, layer, first(value))


def _follow(model: Any, batch: Batch, todo: list[tuple[Point, tuple[Any, Side]]], visit: Visit) -> None:
    """Hand each value over as it comes, so that no more than one of them is held."""
    with model.trace(batch.inputs(), use_cache=False, logits_to_keep=1) as trace:
        for (site, layer), (module, side) in todo:
            visit(site, layer, first(module.input if side == "input" else module.output))
        trace.stop()


def collect(model: Any, batch: Batch, points: list[tuple[Any, Side]], remote: bool | str) -> list[Any]:
    """The values of (module, side) in execution order, from a trace whose body names nothing of ours: NDIF has none.

    `remote="local"` is nnsight's dry run: the trace is sent to this very process.
    """
    import nnsight

    inputs = {name: value.cpu() for name, value in batch.inputs().items()}
    with model.trace(inputs, use_cache=False, logits_to_keep=1, remote=remote) as trace:
        values = nnsight.save([])
        for module, side in points:
            values.append(module.input if side == "input" else module.output)
        trace.stop()
    return values


def locate(model: Any, lm: LanguageModel, order: list[Point]) -> list[tuple[Any, Side]]:
    """Modules of an nnsight model for each point, and whether their input or their output is read."""
    names = {module: name for name, module in lm.model.named_modules()}
    decoder = blocks(lm.model)
    found = [submodule(decoder[layer], site) for site, layer in order]
    return [(model.get(names[module]), side) for module, side in found]


def check_remote(lm: LanguageModel) -> None:
    """Raise UserError unless the model was loaded from the hub by its id."""
    shipped = lm.ref in (*references(), *ALIASES)
    hub = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", lm.ref) and lm.model.name_or_path == lm.ref
    if shipped or not hub or Path(lm.ref).expanduser().exists():
        kind = "a shipped reference" if shipped else "a local folder or an in-memory model"
        raise UserError(
            f"remote=True runs models of the hub on NDIF, and {lm.ref!r} is {kind}; "
            "load the model by its hub id, or capture here with remote=False"
        )
