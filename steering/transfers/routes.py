"""Every way a vector goes from one place to another, and the directions that it is steered with there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from corrector.errors import UserError
from steering.controls import random_controls
from steering.transfers.config import Transfer
from steering.transfers.places import Place, Reading, read
from steering.transfers.spaces import SpaceMap, procrustes, raw


def plan(
    config: Transfer, places: list[Place], absent: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Tensor], list[str]]:
    """Extract, fit the maps, and map: `directions[str(i)]` [1 + controls, d] are the i-th route's vector and nulls."""
    readings = [read(config, place) for place in tqdm(places, desc="extract", unit="corrector")]
    routes, said = list[dict[str, Any]](), [*absent]
    directions: dict[str, Tensor] = {}
    for t, target in enumerate(places):
        own = readings[t].vector.at(target.layer)
        for s, source in enumerate(places):
            vector = readings[s].vector
            nulls = random_controls(vector, (source.layer,), config.controls, config.seed)
            before = torch.stack([vector.at(source.layer), *(null[source.layer] for null in nulls.values())])
            for how, space in ways(config, source, target, readings[s], readings[t], said):
                after = space(before) if space is not None else before
                norms = after.norm(dim=-1, keepdim=True)
                cosines = (after @ own / norms[:, 0] / own.norm()).tolist()
                explained = None
                if space is not None:
                    explained = space.explained(readings[s].validation, readings[t].validation)
                directions[str(len(routes))] = after * own.norm() / norms if config.scale == "own" else after
                routes.append(
                    {
                        "target": target.lm.ref,
                        "task": target.task.name,
                        "source": source.lm.ref,
                        "source_task": source.task.name,
                        "how": how,
                        "layer": target.layer,
                        "source_layer": source.layer,
                        "cosine": cosines[0],
                        "cosine_random": cosines[1:],
                        "norm_ratio": float(norms[0] / own.norm()),
                        "explained": explained,
                    }
                )
    return routes, directions, said


def ways(
    config: Transfer, source: Place, target: Place, of: Reading, to: Reading, said: list[str]
) -> Iterator[tuple[str, SpaceMap | None]]:
    """How a vector gets from one place to another; nothing where both corrector and task differ.

    A way that the widths forbid goes to `said`. Without a map: the target's own vector, and one of another task.
    """
    if source is target:
        yield "own", None
    elif source.lm is target.lm:
        yield "task", None
    elif source.task is target.task:
        ends = (source.layer, target.layer)
        for how in config.how:
            if how != "raw":
                n, g = len(of.train), torch.Generator().manual_seed(config.seed)
                order = torch.randperm(n, generator=g) if how == "shuffled" else torch.arange(n)
                yield how, replace(procrustes(of.train[order], to.train, *ends), how=how)
                continue
            try:
                yield how, raw(of.train.shape[1], to.train.shape[1], *ends)
            except UserError as error:
                said.append(f"{source.name} to {target.name}, raw: {error}")
