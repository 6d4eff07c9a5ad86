"""How well a direction tells held-out classes apart: AUROC with bootstrap intervals over questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from sklearn.metrics import roc_auc_score

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions import Direction


@dataclass(frozen=True)
class Separability:
    """AUROC of a direction's scores at one layer, with the ends of its 95 % interval."""

    layer: int
    site: str
    span: str
    method: str
    auroc: float
    low: float
    high: float
    n_positives: int
    n_negatives: int
    n_problems: int


def auroc(scores_pos: Float[np.ndarray, " n_pos"], scores_neg: Float[np.ndarray, " n_neg"]) -> float:
    """P(s⁺ > s⁻) + P(s⁺ = s⁻)/2. Raises UserError on an empty class or a score that is not finite."""
    if len(scores_pos) == 0 or len(scores_neg) == 0:
        raise UserError(f"AUROC of {len(scores_pos)} positives and {len(scores_neg)} negatives; give some of each")
    scores = np.concatenate([scores_pos, scores_neg])
    if not np.isfinite(scores).all():
        raise UserError("AUROC of scores that are not finite; look at the activations")
    return float(roc_auc_score(np.repeat([1, 0], [len(scores_pos), len(scores_neg)]), scores))


def separability(
    directions: dict[int, Direction],
    pos: Activations,
    neg: Activations,
    generator: np.random.Generator,
    n_resamples: int = 1000,
) -> list[Separability]:
    """One row a layer, on activations that the directions were not fitted on (see `contrasts.check_leak`).

    Intervals are percentiles of resamples of problems (`pos.ids`, `neg.ids`), since items of one problem hang together.
    """
    rows: list[Separability] = []
    weights = resample(sorted({*pos.ids, *neg.ids}), n_resamples, generator)
    for layer, direction in sorted(directions.items()):
        scores = [direction.scores(a.at(layer)).double().numpy() for a in (pos, neg)]
        replicates = _replicates(scores[0], scores[1], pos.ids, neg.ids, weights)
        low, high = np.quantile(replicates, [0.025, 0.975])
        rows.append(
            Separability(
                layer,
                pos.site,
                pos.span,
                direction.method,
                auroc(*scores),
                float(low),
                float(high),
                len(pos.ids),
                len(neg.ids),
                weights.shape[1],
            )
        )
    return rows


def resample(problems: list[str], n: int, generator: np.random.Generator) -> Float[np.ndarray, "n problem"]:
    """How often each problem is drawn in each of n resamples with replacement."""
    p = len(problems)
    return generator.multinomial(p, np.full(p, 1 / p), size=n).astype(np.float64)


def _replicates(
    pos: np.ndarray, neg: np.ndarray, ids_pos: tuple[str, ...], ids_neg: tuple[str, ...], weights: np.ndarray
) -> np.ndarray:
    """AUROC of every resample: w'Mw / (w'a)(w'b), M the wins of problem against problem, a and b its item counts."""
    index = {problem: i for i, problem in enumerate(sorted({*ids_pos, *ids_neg}))}
    at_pos, at_neg = (np.eye(len(index))[[index[p] for p in ids]] for ids in (ids_pos, ids_neg))
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    grouped = at_pos.T @ wins @ at_neg
    total = (weights @ at_pos.sum(0)) * (weights @ at_neg.sum(0))
    usable = total > 0
    return np.einsum("rp,pq,rq->r", weights[usable], grouped, weights[usable], optimize=True) / total[usable]
