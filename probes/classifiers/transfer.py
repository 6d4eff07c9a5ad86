"""Transfer: a probe fitted on one corrector or task, tested on another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from corrector.errors import UserError
from probes.classifiers.labels import Target
from probes.classifiers.measure import Features, auroc_of, quality
from probes.classifiers.models import Classifier, Fit
from probes.classifiers.reading import Readings
from probes.separability import auroc

Alignment = Literal["none", "raw", "aligned", "shuffled"]
Place = tuple[str, int]
"""A span and the index of a layer in a space's own list."""
SHUFFLES = 20


@dataclass(frozen=True, eq=False)
class Space:
    """One corrector on one task's items. The i-th layer of two spaces is where they are compared."""

    name: str
    layers: tuple[int, ...]
    readings: Readings
    targets: Mapping[str, Target]

    def at(self, span: str, i: int) -> Features:
        """What was read at the i-th layer."""
        return self.readings[span, self.layers[i]]

    def width(self, i: int) -> int:
        """The width d of the i-th layer."""
        return next(f["train"].shape[1] for (_, layer), f in self.readings.items() if layer == self.layers[i])


@dataclass(frozen=True, eq=False)
class Map:
    """h -> (h - mean_from) W + mean_to, from one model's activations to another's."""

    w: Float[np.ndarray, "d_from d_to"]
    mean_from: Float[np.ndarray, " d_from"]
    mean_to: Float[np.ndarray, " d_to"]

    def __call__(self, h: Float[np.ndarray, "n d_from"]) -> Float[np.ndarray, "n d_to"]:
        """The activations as the other model would have them."""
        return (h - self.mean_from) @ self.w + self.mean_to


def align(h_from: Float[np.ndarray, "n d_from"], h_to: Float[np.ndarray, "n d_to"]) -> Map:
    """W = argmin ‖(h_from - mean) W - (h_to - mean)‖_F over the same items, which need no labels.

    For equal widths over orthogonal W (Procrustes): W = UV' where U S V' is the SVD of the cross-covariance. Otherwise
    over all W (least squares, of smallest norm). Raises UserError for unlike or fewer than two items.
    Source: Schönemann 1966.
    """
    if len(h_from) != len(h_to) or len(h_from) < 2:
        raise UserError(f"aligning {len(h_from)} with {len(h_to)} items; read the same items, two at least, with both")
    mean_from, mean_to = h_from.mean(0), h_to.mean(0)
    a, b = h_from - mean_from, h_to - mean_to
    if a.shape[1] == b.shape[1]:
        u, _, vt = np.linalg.svd(a.T @ b)
        return Map(u @ vt, mean_from, mean_to)
    return Map(np.linalg.lstsq(a, b, rcond=None)[0], mean_from, mean_to)


def matched_layers(layers: tuple[int, ...], n_layers: int, n_other: int) -> tuple[int, ...]:
    """The layers of a model of `n_other` blocks at the same relative depth: k (n_other - 1) / (n_layers - 1)."""
    return tuple(round(k * (n_other - 1) / max(n_layers - 1, 1)) for k in layers)


def ways(source: Space, target: Space, i: int, across: Literal["task", "corrector"]) -> tuple[Alignment, ...]:
    """How the target's activations at the i-th layer may be brought to the source's probe.

    Within one space, and between tasks of one corrector, as they are (`none`). Between correctors `raw`, where the
    widths are equal; `aligned`; and the control `shuffled` (see `on_shuffled`).
    """
    if source is target or across == "task":
        return ("none",)
    return ("raw", "aligned", "shuffled") if source.width(i) == target.width(i) else ("aligned", "shuffled")


def probe_at(source: Space, label: str, span: str, i: int, fit: Fit) -> tuple[Classifier, float]:
    """The probe fitted on the source's train items, and its AUROC on the source's validation items."""
    mine, x = source.targets[label], source.at(span, i)
    probe = fit(x["train"][mine.kept["train"]], mine.y["train"], mine.problems["train"])
    return probe, auroc_of(probe, x["validation"][mine.kept["validation"]], mine.y["validation"])


def on_target(
    probe: Classifier, way: Alignment, source: Space, target: Space, label: str, at: Place, seed: int, n_resamples: int
) -> dict[str, Any]:
    """Metrics of a source's probe on the target's test items; the map is fitted on train items, without labels."""
    h, of = target.at(*at), target.targets[label]
    x = align(h["train"], source.at(*at)["train"])(h["test"]) if way == "aligned" else h["test"]
    return quality(probe, x[of.kept["test"]], of.y["test"], of.problems["test"], seed, n_resamples)


def on_shuffled(
    probe: Classifier, source: Space, target: Space, label: str, at: Place, seed: int, n: int = SHUFFLES
) -> dict[str, Any]:
    """The control of `aligned`: n maps, each fitted with the source's items permuted; means, and smallest to largest.

    Such a map keeps the shape of both spaces and loses which item is which, so it still sends an axis of much variance
    to one of much variance, with a sign drawn by chance. Where the label lies along such an axis, AUROC comes out near
    0 or near 1: then all that the match of the items adds is that sign, which the range shows and the mean hides.
    """
    h, of, h_to = target.at(*at), target.targets[label], source.at(*at)["train"]
    rng = np.random.default_rng(seed)
    maps = [align(h["train"], h_to[rng.permutation(len(h_to))]) for _ in range(n)]
    scores = [probe.scores(way(h["test"])[of.kept["test"]]) for way in maps]
    y = of.y["test"]
    areas = [auroc(s[y], s[~y]) for s in scores]
    hits = [float(((s > 0) == y).mean()) for s in scores]
    return {
        **{"auroc": float(np.mean(areas)), "low": min(areas), "high": max(areas)},
        **{"accuracy": float(np.mean(hits)), "accuracy_low": min(hits), "accuracy_high": max(hits)},
        **{"ece": None, "brier": None, "n": len(y), "n_positive": int(y.sum())},
        **{"n_problems": len(set(of.problems["test"])), "n_shuffles": n},
    }
