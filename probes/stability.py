"""How far a direction depends on its sample: cosines over resamples of problems, between methods, between layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions import Direction, fit
from probes.directions.fitting import derived_seed

TAIL = 0.05
"""The quantile reported as `low`."""


@dataclass(frozen=True)
class Stability:
    """Cosines between all pairs of directions fitted on resamples: their mean and 5th percentile, at one layer.

    `n_resamples` were fitted; `dropped` further ones could not be, since a class was missing or the fit refused.
    """

    layer: int
    site: str
    span: str
    method: str
    mean: float
    low: float
    n_resamples: int
    dropped: int
    n_problems: int


@dataclass(frozen=True)
class Cosines:
    """A symmetric matrix of cosines: `cosine[i][j]` between `names[i]` and `names[j]`; `of` says what is fixed."""

    of: str
    names: tuple[str, ...]
    cosine: tuple[tuple[float, ...], ...]


def stability(method: str, pos: Activations, neg: Activations, n_resamples: int = 50, seed: int = 0) -> list[Stability]:
    """One row a layer: the method fitted on resamples with replacement of whole problems (`pos.ids`, `neg.ids`).

    Pairs stay pairs, and items of one problem stay together. A method's own draws differ from resample to resample
    too, so that what depends on its seed shows. Without any signal diff_means has about 1/2, not 0, since all resamples
    share the noise of one sample; shuffled labels give the null of the other methods. Deterministic in `seed`. Raises
    UserError below two problems or two resamples that can be fitted, and as `fit` does on all data.
    """
    fit(method, pos, neg, seed)
    problems = sorted({*pos.ids, *neg.ids})
    if len(problems) < 2 or n_resamples < 2:
        raise UserError(
            f"stability over {n_resamples} resamples of {len(problems)} problems; give two at least of each"
        )
    rows_of = [_rows(side, problems) for side in (pos, neg)]
    rng = np.random.default_rng([seed, *b"stability"])
    fitted: list[dict[int, Direction]] = []
    for i in tqdm(range(n_resamples), desc=f"stability: {method}", disable=None, leave=False):
        drawn = rng.integers(0, len(problems), len(problems))
        sides = [_take(side, rows, drawn) for side, rows in zip((pos, neg), rows_of, strict=True)]
        try:
            fitted.append(fit(method, *sides, seed=derived_seed(seed, "resample", i)))
        except UserError:
            continue
    if len(fitted) < 2:
        raise UserError(f"{method} could be fitted on {len(fitted)} of {n_resamples} resamples; give more problems")
    out: list[Stability] = []
    for layer in pos.layers:
        matrix = _matrix([f[layer] for f in fitted])
        cosines = matrix[*np.triu_indices(len(fitted), 1)]
        out.append(
            Stability(
                layer,
                pos.site,
                pos.span,
                method,
                float(cosines.mean()),
                float(np.quantile(cosines, TAIL)),
                len(fitted),
                n_resamples - len(fitted),
                len(problems),
            )
        )
    return out


def method_cosines(fitted: Mapping[str, Mapping[int, Direction]], layer: int) -> Cosines:
    """Cosines between methods at one layer; `fitted[method][layer]` is what `fit` returns by method."""
    missing = [name for name, directions in fitted.items() if layer not in directions]
    if missing or not fitted:
        raise UserError(f"layer={layer} was not fitted by {', '.join(missing) or 'any method'}; fit it first")
    return _cosines(f"layer {layer}", {name: directions[layer] for name, directions in fitted.items()})


def layer_cosines(directions: Mapping[int, Direction]) -> Cosines:
    """Cosines between the layers of one method, in the order of layers; `names` are their numbers."""
    if not directions:
        raise UserError("cosines between no layers; fit some first")
    method = directions[min(directions)].method
    return _cosines(method, {str(layer): directions[layer] for layer in sorted(directions)})


def _cosines(of: str, directions: Mapping[str, Direction]) -> Cosines:
    matrix = _matrix(list(directions.values()))
    return Cosines(of, tuple(directions), tuple(tuple(float(x) for x in row) for row in matrix))


def _matrix(directions: list[Direction]) -> Float[np.ndarray, "n n"]:
    units: Tensor = torch.stack([d.vector.double() / d.vector.double().norm() for d in directions])
    return (units @ units.T).numpy()


def _rows(side: Activations, problems: list[str]) -> list[list[int]]:
    """The rows of every problem, in their order, so that pairs stay pairs."""
    index = {problem: i for i, problem in enumerate(problems)}
    rows: list[list[int]] = [[] for _ in problems]
    for row, problem in enumerate(side.ids):
        rows[index[problem]].append(row)
    return rows


def _take(side: Activations, rows: list[list[int]], drawn: np.ndarray) -> Activations:
    taken = list(chain.from_iterable(rows[int(i)] for i in drawn))
    return Activations(side.h[taken], side.layers, side.site, side.span, tuple(side.ids[i] for i in taken))
