"""Directions fitted with labels: class means, logistic regression, linear discriminant, and suffix length."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from sklearn.covariance import LedoitWolf
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from corrector.errors import UserError
from probes.directions.direction import Direction, mean_difference, oriented

RIDGE = 0.8
"""rda's g, chosen on validation items of dialogue-2 among .3, .6, .8, .9 by the edit ratio's slope against those of
random directions of equal norm. There it steers better per norm than diff_means, on dialogue-0 and -1 worse."""
MAX_ITERATIONS = 1000
"""Steps of the logistic regression's optimiser before it counts as not converged."""


def diff_means(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"]) -> Direction:
    """Difference of means: v = mean(h⁺) - mean(h⁻).

    Raises UserError on empty or non-finite input and where the means are equal. Source: 2310.06824; 2502.02716.
    """
    delta = mean_difference(pos, neg)
    return dataclasses.replace(oriented(delta, pos, neg, "diff_means"), vector=delta.float())


def logistic(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], c: float = 1.0) -> Direction:
    """Logistic regression on standardised features, folded back to the space of h: w = w_z / s, b = b_z - w·μ.

    μ and s are the features' means and standard deviations; `c` is scikit-learn's inverse strength of the L2 penalty,
    in standardised units. The intercept is `threshold` = -b / ‖w‖: above it p > 1/2. Raises UserError as diff_means
    does, and where the optimiser does not converge.
    """
    mean_difference(pos, neg)
    x = torch.cat([pos, neg]).double().numpy()
    y = np.repeat([1, 0], [len(pos), len(neg)])
    scaler = StandardScaler().fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(scaler.transform(x), y)
        except ConvergenceWarning as warning:
            raise UserError(
                f"logistic did not converge in {MAX_ITERATIONS} steps at c={c:g}; give a smaller c or use lda"
            ) from warning
    w = model.coef_[0] / scaler.scale_
    b = float(model.intercept_[0] - w @ scaler.mean_)
    return oriented(torch.from_numpy(w), pos, neg, "logistic", threshold=-b / float(np.linalg.norm(w)))


def lda(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"]) -> Direction:
    """Linear discriminant: w = Σ⁻¹Δ, Σ the within-class covariance under Ledoit-Wolf shrinkage to a multiple of I.

    The shrinkage makes Σ invertible at any n and d. `threshold` is midway between the class means (equal priors).
    Raises UserError as diff_means does, and where no class varies. Source: Fisher 1936; Ledoit & Wolf 2004.
    """
    delta = mean_difference(pos, neg)
    within = torch.cat([h.double() - h.double().mean(0) for h in (pos, neg)])
    if not bool(within.any()):
        raise UserError("lda: no class varies, so there is no covariance; give more items of each class")
    sigma = torch.from_numpy(LedoitWolf(assume_centered=True).fit(within.numpy()).covariance_)
    return oriented(torch.linalg.solve(sigma, delta), pos, neg, "lda")


def rda(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], gamma: float = RIDGE) -> Direction:
    """Regularised discriminant: w = ((1-g)Σ + g (tr Σ / d) I)⁻¹ Δ, between lda (g = 0) and diff_means (g = 1).

    Weights down what varies within the classes, yet stays near enough to Δ to steer, which lda's own direction hardly
    does. Raises UserError as lda does. Source: Friedman 1989, eq. 18.
    """
    delta = mean_difference(pos, neg)
    sigma = torch.cat([h.double() - h.double().mean(0) for h in (pos, neg)]).T.cov()
    if not bool(sigma.any()):
        raise UserError("rda: no class varies, so there is no covariance; give more items of each class")
    ridge = gamma * sigma.trace() / len(delta) * torch.eye(len(delta), dtype=sigma.dtype)
    return oriented(torch.linalg.solve((1 - gamma) * sigma + ridge, delta), pos, neg, "rda")


def length_direction(h: Float[Tensor, "n d"], lengths: Sequence[int | float]) -> Direction:
    """The direction of length: v = cov(h, z), z the standardised lengths; coef 1 is one standard deviation of length.

    diff_means for a number in place of two classes: v is the least-squares slope of h on z, and the first component of
    partial least squares, so h·u is the one projection with the largest covariance with length. Once u is
    projected out of h, no linear probe does better than the mean length on the data that it was fitted on. Raises
    UserError on unlike counts, non-finite input, lengths that do not vary, and h that does not vary with them.
    """
    if len(h) != len(lengths):
        raise UserError(f"length_direction got {len(h)} activations and {len(lengths)} lengths; give one length each")
    z = torch.tensor([float(x) for x in lengths], dtype=torch.float64)
    if not torch.isfinite(h).all() or not torch.isfinite(z).all():
        raise UserError("length_direction got a NaN or infinity; look at the activations and lengths")
    if len(z) < 2 or bool((z == z[0]).all()):
        raise UserError(f"length_direction got {len(z)} items of one length; give items of different lengths")
    z = (z - z.mean()) / z.std(correction=0)
    v = (h.double() - h.double().mean(0)).T @ z / len(z)
    if float(v.norm()) == 0:
        raise UserError("length_direction: the activations do not vary with length; read at another --span or --site")
    return Direction(v.float(), "length")
