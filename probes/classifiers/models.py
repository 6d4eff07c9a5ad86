"""Classifiers by name: features and labels in, a frozen scorer out whose scores are log-odds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.special import expit
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from corrector.errors import UserError
from probes import directions
from probes.capture import Activations

Matrix = Float[np.ndarray, "n d"]
Labels = Bool[np.ndarray, " n"]
GRID = (0.001, 0.01, 0.1, 1.0)
"""Inverse L2 strengths that grouped cross-validation chooses from (features standardised)."""
BAG_GRID = (0.01, 0.1, 1.0, 10.0)
"""The same for word counts, which are not standardised."""
FOLDS = 3


@dataclass(frozen=True, eq=False)
class Classifier:
    """A fitted classifier; `c` is the inverse L2 strength that was chosen, None where there is none to choose."""

    log_odds: Callable[[Matrix], Float[np.ndarray, " n"]]
    """log p(1|x)/p(0|x) of one item at least."""
    c: float | None = None

    def scores(self, x: Matrix) -> Float[np.ndarray, " n"]:
        """The log-odds of every item; of no items none."""
        return np.asarray(self.log_odds(x), dtype=float) if len(x) else np.zeros(0)

    def probability(self, x: Matrix) -> Float[np.ndarray, " n"]:
        """p(1|x)."""
        return expit(self.scores(x))


Fit = Callable[[Matrix, Labels, Sequence[str]], Classifier]
"""Features, labels and the problem of each item, which cross-validation keeps together."""


def fitter(name: str, seed: int = 0) -> Fit:
    """The fit of a classifier's name: logistic, mass_mean, lda, or a method of `probes.directions`.

    A direction's projections h·u become log-odds by a logistic regression on one number (Platt 1999), fitted on the
    same items; that also fixes the sign of unsupervised methods. Methods of `probes.directions` are given pairs of one
    problem, a positive and a negative item; what finds no partner takes part in the calibration only. mass_mean takes
    all items. Raises UserError for an unknown name.
    """
    if name in _OWN:
        return _OWN[name]
    if name in directions.METHODS:
        return partial(_by_direction, name, seed)
    raise UserError(f"classifier={name!r} is not one of {', '.join(names())}; choose --classifier among them")


def names() -> list[str]:
    """All classifiers there are."""
    return [*_OWN, *(name for name in directions.METHODS if name not in _OWN)]


def logistic(
    x: Matrix, y: Labels, problems: Sequence[str], grid: Sequence[float] = GRID, standardise: bool = True
) -> Classifier:
    """L2 logistic regression; its C has the lowest log loss in 3-fold cross-validation by problem.

    Raises UserError where y holds one class only.
    """
    _check_classes(y)
    c = _chosen(x, y, problems, grid, standardise)
    return Classifier(_logistic(x, y, c, standardise), c)


def lda(x: Matrix, y: Labels, problems: Sequence[str]) -> Classifier:
    """Linear discriminant analysis, the pooled covariance shrunk by Ledoit & Wolf. UserError for one class only."""
    _check_classes(y)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, y)
    return Classifier(model.decision_function)


def nats(log_odds: Float[np.ndarray, " n"], y: Labels) -> float:
    """Σ -log p(y) of labels by their log-odds, exact where p itself would round to 0 or 1."""
    return float(np.logaddexp(0.0, np.where(y, -log_odds, log_odds)).sum())


def prior(x: Matrix, y: Labels, problems: Sequence[str]) -> Classifier:
    """The train share of positives for every item, add-one smoothed: what a metric is worth without any feature."""
    share = (float(y.sum()) + 1) / (len(y) + 2)
    return Classifier(lambda at: np.full(len(at), np.log(share / (1 - share))))


def _by_direction(method: str, seed: int, x: Matrix, y: Labels, problems: Sequence[str]) -> Classifier:
    return _projected(method, seed, x, y, problems, _pairs(y, problems))


def _mass_mean(x: Matrix, y: Labels, problems: Sequence[str]) -> Classifier:
    """The difference of the class means, without the covariance of its in-distribution variant. Source: 2310.06824."""
    return _projected("diff_means", 0, x, y, problems, (np.flatnonzero(y), np.flatnonzero(~y)))


def _projected(
    method: str, seed: int, x: Matrix, y: Labels, problems: Sequence[str], rows: tuple[np.ndarray, np.ndarray]
) -> Classifier:
    """The unit direction of a method fitted on (positive, negative) rows, its projections calibrated on all."""
    _check_classes(y)
    pos, neg = (
        Activations(torch.from_numpy(x[at]).float()[:, None], (0,), "", "", tuple(problems[int(i)] for i in at))
        for at in rows
    )
    u = directions.fit(method, pos, neg, seed)[0].unit.double().numpy()
    calibrated = _logistic((x @ u)[:, None], y, 1.0, True)
    return Classifier(lambda at: calibrated((at @ u)[:, None]))


def _pairs(y: np.ndarray, problems: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of positives and negatives, matched within their problem in order."""
    by: dict[str, tuple[list[int], list[int]]] = {}
    for i, (label, problem) in enumerate(zip(y.tolist(), problems, strict=True)):
        by.setdefault(problem, ([], []))[0 if label else 1].append(i)
    matched = [pair for pos, neg in by.values() for pair in zip(pos, neg, strict=False)]
    return np.array([p for p, _ in matched], dtype=int), np.array([n for _, n in matched], dtype=int)


_OWN: dict[str, Fit] = {"logistic": logistic, "mass_mean": _mass_mean, "lda": lda}


def _logistic(x: np.ndarray, y: np.ndarray, c: float, standardise: bool) -> Callable[[np.ndarray], np.ndarray]:
    mean, scale = np.zeros(x.shape[1]), np.ones(x.shape[1])
    if standardise:
        mean, spread = x.mean(0), x.std(0)
        # A feature without spread says nothing; rounding noise must not be blown up to a feature.
        scale = np.where(spread > 1e-6 * np.abs(mean).clip(1e-6), spread, np.inf)
    model = LogisticRegression(C=c, max_iter=1000).fit((x - mean) / scale, y)
    return lambda at: model.decision_function((at - mean) / scale)


def _chosen(x: np.ndarray, y: np.ndarray, problems: Sequence[str], grid: Sequence[float], standardise: bool) -> float:
    """The C of lowest mean log loss over folds of problems; the middle of the grid where no fold has both classes."""
    n_folds = min(FOLDS, len(set(problems)))
    losses = np.zeros(len(grid))
    used = 0
    for fit, held in GroupKFold(n_folds).split(x, y, list(problems)) if n_folds > 1 else ():
        if len(set(y[fit].tolist())) == 2:
            used += 1
            for i, c in enumerate(grid):
                held_out = _logistic(x[fit], y[fit], c, standardise)(x[held])
                losses[i] += nats(held_out, y[held]) / len(held)
    return float(grid[int(losses.argmin())] if used else grid[len(grid) // 2])


def _check_classes(y: np.ndarray) -> None:
    if len(set(y.tolist())) < 2:
        raise UserError(f"{len(y)} labels of one class only; a classifier needs both")
