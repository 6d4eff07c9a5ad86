"""Readings over the layers: AUROC, rank correlation or agreement, the band of chance, onset and saturation layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from corrector.errors import UserError
from probes.separability import resample

NEAR = 0.02
"""A layer within this much of a curve's largest value counts as having reached it."""


@dataclass(frozen=True)
class Curve:
    """A held-out statistic over layers with its 95 % interval, and the layers read off it.

    `null_low, null_high`: the band of chance, None where the statistic has none. `onset`: first layer above the band;
    `saturation`: first layer that is within NEAR of the largest value too. None where no layer is above the band. The
    `_draws` hold them for every resample of problems, so curves of the same problems compare draw by draw.
    """

    statistic: str
    value: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    null_low: float | None
    null_high: float | None
    onset: int | None
    saturation: int | None
    onset_draws: tuple[int | None, ...]
    saturation_draws: tuple[int | None, ...]
    n_items: int
    n_problems: int


@dataclass(frozen=True)
class Resamples:
    """How often each problem is drawn in each resample; `codes[i]` is the problem of item i."""

    weights: Float[np.ndarray, "resample problem"]
    codes: Int[np.ndarray, " item"]

    @staticmethod
    def of(problems: list[str], n: int, generator: np.random.Generator) -> Resamples:
        """N resamples of the problems; UserError below two, which say nothing about spread."""
        names = sorted(set(problems))
        if len(names) < 2:
            raise UserError(f"{len(names)} problems give no interval; give more --items")
        return Resamples(resample(names, n, generator), np.array([names.index(p) for p in problems]))

    def counts(self, values: Float[np.ndarray, "item k"]) -> Float[np.ndarray, "problem k"]:
        """Sums over each problem's items."""
        return np.eye(self.weights.shape[1])[self.codes].T @ values


def layer_auroc(
    pos: Float[np.ndarray, "n_pos layer"], neg: Float[np.ndarray, "n_neg layer"]
) -> Float[np.ndarray, " layer"]:
    """P(s+ > s-) + P(s+ = s-)/2 of every layer (column), by ranks."""
    ranks = rankdata(np.concatenate([pos, neg]), axis=0)
    n, m = len(pos), len(neg)
    return (ranks[:n].sum(0) - n * (n + 1) / 2) / (n * m)


def auroc_curve(
    pos: Float[np.ndarray, "pair layer"],
    neg: Float[np.ndarray, "pair layer"],
    resamples: Resamples,
    null: Float[np.ndarray, "shuffle layer"],
) -> Curve:
    """AUROC of scores, positives and negatives matched pair by pair; `resamples` count pairs.

    A resample's AUROC is w'Mw / (w'a)^2: M[p, q] the wins of problem p's positives over q's negatives, a[p] its pairs.
    """
    total = (resamples.weights @ resamples.counts(np.ones((len(pos), 1)))[:, 0]) ** 2
    draws: list[np.ndarray] = []
    for k in range(pos.shape[1]):
        wins = (pos[:, k, None] > neg[:, k]) + 0.5 * (pos[:, k, None] == neg[:, k])
        grouped = resamples.counts(resamples.counts(wins).T).T
        draws.append(((resamples.weights @ grouped) * resamples.weights).sum(1) / total)
    return _curve("auroc", layer_auroc(pos, neg), np.stack(draws, 1), resamples, null)


def spearman_curve(
    scores: Float[np.ndarray, "item layer"],
    y: Float[np.ndarray, " item"],
    resamples: Resamples,
    n_shuffles: int,
    generator: np.random.Generator,
) -> Curve:
    """Spearman's rank correlation of every layer's scores with y; the band is of y in shuffled order.

    Raises UserError where y does not vary. A resample in which nothing varies has no value (nan).
    """
    if np.ptp(y) == 0:
        raise UserError(f"all {len(y)} items have the same value {y[0]:g}, which correlates with nothing")
    drawn = [np.repeat(np.arange(len(y)), w[resamples.codes].astype(int)) for w in resamples.weights]
    draws = np.stack([rank_correlation(scores[i], y[i]) for i in drawn])
    null = np.stack([rank_correlation(scores, generator.permutation(y)) for _ in range(n_shuffles)])
    return _curve("spearman", rank_correlation(scores, y), draws, resamples, null)


def share_curve(hits: Float[np.ndarray, "item layer"], resamples: Resamples) -> Curve:
    """The share of items that are hits, at every layer; it has no band of chance."""
    weights = resamples.weights
    draws = (weights @ resamples.counts(hits)) / (weights @ resamples.counts(np.ones_like(hits[:, :1])))
    return _curve("share", hits.mean(0), draws, resamples, None)


def rank_correlation(
    scores: Float[np.ndarray, "item layer"], y: Float[np.ndarray, " item"]
) -> Float[np.ndarray, " layer"]:
    """Spearman's rho of every column with y, ties by their mean rank; nan where either does not vary."""
    a, b = rankdata(scores, axis=0), rankdata(y)
    a, b = a - a.mean(0), b - b.mean()
    norm = np.sqrt((a**2).sum(0) * (b**2).sum())
    return np.divide(b @ a, norm, out=np.full(norm.shape, np.nan), where=norm > 0)


def shuffled_fits(
    differences: Float[np.ndarray, "layer train d"],
    pos: Float[np.ndarray, "layer pair d"],
    neg: Float[np.ndarray, "layer pair d"],
    n: int,
    generator: np.random.Generator,
) -> Float[np.ndarray, "shuffle layer"]:
    """AUROC curves of diff_means under shuffled labels: in each pair a coin says which side is called positive.

    Coins are tossed for the train pairs h+ - h- that the direction is fitted on, and for the test pairs too. Against
    true test labels a direction of shuffled ones gets an AUROC near 0 or 1 wherever the classes are the strongest
    axis of the data, so that the band would grow with the very signal it is to judge.
    """
    signs = generator.choice([-1.0, 1.0], (n, differences.shape[1]))
    swap = generator.random((pos.shape[1], n)) < 0.5
    out: list[np.ndarray] = []
    for d, p, q in zip(differences, pos, neg, strict=True):
        directions = (signs @ d).T
        a, b = p @ directions, q @ directions
        out.append(layer_auroc(np.where(swap, b, a), np.where(swap, a, b)))
    return np.stack(out, axis=1)


def _curve(statistic: str, values: np.ndarray, draws: np.ndarray, at: Resamples, null: np.ndarray | None) -> Curve:
    """The band holds 95 % of the shuffled curves as wholes, so a layer above it is not found by looking at many.

    The draws resample what was measured but not the band, so at layers of chance they spread twice over: an onset
    interval's lower end errs towards early layers.
    """
    null_low, null_high = (None, None) if null is None else _band(null)
    low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
    return Curve(
        statistic=statistic,
        value=tuple(map(float, values)),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        null_low=null_low,
        null_high=null_high,
        onset=onset(values, null_high),
        saturation=saturation(values, null_high),
        onset_draws=tuple(onset(draw, null_high) for draw in draws),
        saturation_draws=tuple(saturation(draw, null_high) for draw in draws),
        n_items=len(at.codes),
        n_problems=at.weights.shape[1],
    )


def _band(null: Float[np.ndarray, "shuffle layer"]) -> tuple[float, float]:
    return float(np.quantile(null.min(1), 0.025)), float(np.quantile(null.max(1), 0.975))


def onset(values: Float[np.ndarray, " layer"], threshold: float | None) -> int | None:
    """First layer above the threshold; None where there is none, or no threshold."""
    above = values > (np.inf if threshold is None else threshold)
    return int(above.argmax()) if above.any() else None


def saturation(values: Float[np.ndarray, " layer"], threshold: float | None) -> int | None:
    """First layer within NEAR of the largest value and above the threshold; None where there is none."""
    near = (values >= values.max() - NEAR) & (values > (-np.inf if threshold is None else threshold))
    return int(near.argmax()) if near.any() else None
