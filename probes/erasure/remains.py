"""What is left after an erasure: of the concept, by fresh probes, and of the decisions that were made with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from corrector.statistics import Interval, bootstrap_mean
from probes.capture import Activations
from probes.directions import Direction
from probes.erasure.erasers import checked, finite
from probes.separability import Separability, resample, separability

ABOUT = ("eraser", "layers", "rank", "moved", "removed", "scale", "wanted", "matched")
"""What the rows of one erasure say of it alike."""


def probe_scores(
    h: Float[Tensor, "n layer d"], labels: Bool[Tensor, " n"], held_out: Float[Tensor, "m layer d"]
) -> Float[np.ndarray, "m layer"]:
    """Log-odds that a fresh logistic probe of each layer (standardised, L2 with C = 1), fitted on h, gives `held_out`.

    Raises UserError as `leace`.
    """
    columns: list[np.ndarray] = []
    for k in range(h.shape[1]):
        x, z = checked(h[:, k], labels)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        probe.fit(x.cpu().numpy(), z.cpu().numpy())
        columns.append(probe.decision_function(finite(held_out[:, k]).cpu().numpy()))
    return np.stack(columns, axis=1)


def probe_auroc(
    scores: Float[np.ndarray, "m layer"], labels: Sequence[bool], problems: Sequence[str], seed: int = 0
) -> list[Separability]:
    """AUROC of each layer's scores with its interval over problems; empty where only one class is there."""
    if len(set(labels)) < 2:
        return []
    layers, h = tuple(range(scores.shape[1])), torch.tensor(scores, dtype=torch.float32)[..., None]

    def side(label: bool) -> Activations:
        at = [i for i, x in enumerate(labels) if bool(x) is label]
        return Activations(h[at], layers, "resid_post", "probe", tuple(problems[i] for i in at))

    # Scores are states of one dimension, which their unit direction reads off.
    unit = {k: Direction(torch.ones(1), "logistic", k) for k in layers}
    return separability(unit, side(True), side(False), np.random.default_rng(seed))


def decision_gap(
    rewrites: Sequence[float | int], rewrote: Sequence[bool], problems: Sequence[str], seed: int = 0
) -> Interval | None:
    """P(rewrites | rewrote) - P(rewrites | copied), what is left of a decision, with its interval over problems.

    `rewrote` is what the same corrector did to the same items untouched, so untouched the gap is 1. None where it did
    but one of the two. Resamples that hold but one are left out. It is linear in `rewrites`: of the item-by-item
    difference between two erasures it is the difference of their gaps, with a paired interval.
    """
    names = sorted(set(problems))
    hits, sizes = np.zeros((2, len(names))), np.zeros((2, len(names)))
    for now, before, problem in zip(rewrites, rewrote, problems, strict=True):
        sizes[int(before), names.index(problem)] += 1
        hits[int(before), names.index(problem)] += now
    if not sizes.sum(1).all():
        return None
    copied, rewritten = hits.sum(1) / sizes.sum(1)
    if len(names) < 2:
        return Interval(float(rewritten - copied), float("nan"), float("nan"), 1)
    weights = resample(names, 2000, np.random.default_rng(seed))
    n = weights @ sizes.T
    rates = (weights @ hits.T)[n.all(1)] / n[n.all(1)]
    low, high = np.quantile(rates[:, 1] - rates[:, 0], [0.025, 0.975])
    return Interval(float(rewritten - copied), float(low), float(high), len(names))


def measure(
    rows: Sequence[Mapping[str, Any]], seed: int = 0, leace: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """What is left after one erasure: means of its rows, those that have one with `_low` and `_high` over problems.

    `gap` is `decision_gap`; `auroc` is of the fresh probe of the last layer that was erased, `auroc_last` of the
    model's last, `auroc_layers` of all. `gap_over` is the gap less that of the rows `leace` of the same items, paired.
    None where there is nothing to count, as without right items a false rewrite.
    """
    rows = [{**r, "rewrites": not r["copied"]} for r in rows]
    columns = [(k, k, rows) for k in ("rewrites", "copied", "edit_ratio", "well_formed", "kl")]
    columns += [("false_rewrite", "rewrites", [r for r in rows if r["is_wrong"] is False])]
    columns += [("missed_rewrite", "copied", [r for r in rows if r["is_wrong"] is True])]
    intervals = {
        name: bootstrap_mean([r[key] for r in part], [r["problem"] for r in part], seed=seed) if part else None
        for name, key, part in columns
    }
    rewrote, problems = [r["rewrote"] for r in rows], [r["problem"] for r in rows]
    intervals["gap"] = decision_gap([r["rewrites"] for r in rows], rewrote, problems, seed)
    over = [r["rewrites"] - (not base["copied"]) for r, base in zip(rows, leace, strict=True)] if leace else []
    intervals["gap_over"] = decision_gap(over, rewrote, problems, seed) if leace else None
    areas = probe_auroc(np.array([r["probe"] for r in rows]), rewrote, problems, seed)
    for name, at in (("auroc", rows[0]["layers"][-1:]), ("auroc_last", [-1])):
        area = areas[at[0]] if areas and at else None
        intervals[name] = area and Interval(area.auroc, area.low, area.high, area.n_problems)
    out: dict[str, Any] = {k: rows[0][k] for k in ABOUT} | {"n": len(rows)}
    for name, x in intervals.items():
        values = (None,) * 3 if x is None else (x.mean, x.low, x.high)
        out |= {name + end: v if v == v else None for end, v in zip(("", "_low", "_high"), values, strict=True)}
    return out | {"auroc_layers": [area.auroc for area in areas]}
