"""Erase a binary concept: affine maps after which no linear read-out finds it, their nulls, and what is left after.

Fit, then freeze: every fit gives an `Eraser`. `read` reads states while one is on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from concept_erasure import LeaceFitter
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from corrector.decoding import Steering, checked_applied
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from corrector.statistics import Interval, bootstrap_mean
from probes.backends import Backend, Batch, Point, Visit
from probes.backends.hooks import hooked
from probes.capture import Activations, capture_tokens
from probes.directions import Direction
from probes.separability import Separability, resample, separability
from probes.spans import Sequence as Tokens

TOLERANCE = 1e-9
"""Whitened cross-covariance (between 0 and .5 for a binary concept) below which nothing is there to erase."""


@dataclass(frozen=True, eq=False)
class Eraser:
    """The affine map h - L Rᵀ(h - μ), with L and R `[d, r]`: it keeps the mean μ and, as RᵀL = 1, is idempotent.

    Rank r is 1 for a binary concept; rank 0 is the identity. `method` names the fit, and `moved` is the share of the
    variance that it moves where it was fitted, E‖Δh‖² / tr cov(h): equal rank is not equal size.
    """

    left: Float[Tensor, "d r"]
    right: Float[Tensor, "d r"]
    mean: Float[Tensor, " d"]
    method: str
    moved: float = 0.0

    @property
    def rank(self) -> int:
        return self.left.shape[1]

    @property
    def d(self) -> int:
        return self.left.shape[0]

    def __call__(self, h: Float[Tensor, "*batch d"], coef: float = 1.0) -> Float[Tensor, "*batch d"]:
        """The erased states, a new tensor of h's dtype, computed in float32 at least; `coef` is the share erased."""
        wide = h.to(torch.promote_types(h.dtype, torch.float32))
        left, right, mean = (t.to(wide) for t in (self.left, self.right, self.mean))
        return (wide - coef * ((wide - mean) @ right) @ left.T).to(h.dtype)


def leace(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], shrinkage: bool = True) -> Eraser:
    """Least-squares concept erasure: of all affine maps after which cov(h, labels) = 0, the one that moves h least.

    L = Σ^½ u and R = Σ^-½ u, with u the unit vector of Σ^-½ cov(h, labels). No linear classifier fitted to the erased
    states then beats the best constant. `shrinkage` takes Σ from the optimal linear shrinkage of the sample covariance,
    so that a fit on few states holds on new ones; cov is 0 either way, least change in the sample needs False.
    Fitted in float64. Rank 0 where the classes have one mean. Raises UserError for no states, states that are not
    finite, and labels of one class. Source: 2306.03819, theorem 4.2; 1308.2608 for the shrinkage.
    """
    x, z = _checked(h, labels)
    # The trace constraint would mix in a projection that leaves the concept, so it is off: the map must be exact.
    fitted = LeaceFitter.fit(x, z, shrinkage=shrinkage, constrain_cov_trace=False, svd_tol=TOLERANCE).eraser
    kept = fitted.proj_left.norm(dim=0) > 0
    return _eraser(fitted.proj_left[:, kept], fitted.proj_right.T[:, kept], x, "leace")


def shuffled_labels(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], generator: torch.Generator) -> Eraser:
    """LEACE of the labels in random order: equal to LEACE in form and rank, fitted to chance. Raises as `leace`."""
    order = torch.randperm(len(labels), generator=generator)
    return dataclasses.replace(leace(h, labels.cpu()[order].to(labels.device)), method="shuffled_labels")


def mean_projection(h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"]) -> Eraser:
    """Orthogonal projection that removes u, the unit difference of the class means: h - u uᵀ(h - μ).

    It makes cov(h, labels) = 0 as LEACE does, and moves h more. Raises UserError as `leace`, and for equal means.
    """
    x, z = _checked(h, labels)
    delta = x[z > 0].mean(0) - x[z == 0].mean(0)
    if float(delta.norm()) == 0:
        raise UserError("both classes have the same mean, so there is no direction to project out; read another --span")
    u = (delta / delta.norm())[:, None]
    return _eraser(u, u, x, "mean_projection")


def random_eraser(h: Float[Tensor, "n d"], rank: int, generator: torch.Generator) -> Eraser:
    """Orthogonal projection that removes a uniformly random subspace of a rank: h - Q Qᵀ(h - μ), QᵀQ = 1."""
    x, d = _finite(h), h.shape[1]
    if not 0 <= rank <= d:
        raise UserError(f"rank={rank} not in 0..{d}, the width of the states; choose one in that range")
    q = torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64))[0].to(x.device)
    return _eraser(q, q, x, "random")


def fit_eraser(method: str, h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], generator: torch.Generator) -> Eraser:
    """An eraser by the name of its fit; `random` has the rank of a binary concept's, 1. Raises as the fit does."""
    fits: dict[str, Callable[[], Eraser]] = {
        "leace": lambda: leace(h, labels),
        "mean_projection": lambda: mean_projection(h, labels),
        "shuffled_labels": lambda: shuffled_labels(h, labels, generator),
        "random": lambda: random_eraser(h, 1, generator),
    }
    if method not in fits:
        raise UserError(f"method={method!r} is not one of {', '.join(fits)}; choose among them")
    return fits[method]()


@dataclass(frozen=True)
class Items:
    """Sequences, the absolute positions that are read in each, and whether the corrector rewrites it."""

    sequences: Sequence[Tokens]
    places: Sequence[Sequence[int]]
    rewritten: Bool[Tensor, " n"]

    def states(
        self, lm: LanguageModel, layers: Sequence[int], steering: Steering | None = None
    ) -> list[Float[Tensor, "layer token d"]]:
        """Outputs of blocks at each item's positions while an intervention is on, read as the intervention left them.

        RuntimeError where it was not applied as often as due; UserError for an item without a position.
        """
        if empty := [i for i, place in enumerate(self.places) if not place]:
            raise UserError(f"item {empty[0]} has no token to read; choose a --span that every item has")
        both = list(zip(self.sequences, self.places, strict=True))
        cut = [Tokens(s.ids[: p[-1] + 1], {"read": (p[0], p[-1] + 1)}, s.problem) for s, p in both]
        prompts = {c.ids: Encoded(c.ids, s.spans) for c, s in zip(cut, self.sequences, strict=True)}
        backend = hooked if steering is None else _under(steering, prompts)
        tokens = capture_tokens(lm, cut, "resid_post", list(layers), "read", backend=backend)
        return [h[:, [x - p[0] for x in p]] for h, p in zip(tokens, self.places, strict=True)]


def fit_in_order(
    lm: LanguageModel,
    items: Items,
    plain: Mapping[int, Float[Tensor, "token d"]],
    layers: Sequence[int],
    name: str,
    seed: int,
    intervene: Callable[[dict[int, Eraser]], Steering],
) -> dict[int, Eraser]:
    """Erasers of `layers`, each fitted on all tokens of the items while the layers before it are erased.

    `plain` are the states with nothing erased, `intervene` turns erasers into an intervention. `name` is a method with
    a number behind it at will, random-03; draws depend on seed, model, name and layer alone. Source: 2306.03819, 6.
    """
    out: dict[int, Eraser] = {}
    n_tokens = torch.tensor([len(place) for place in items.places])
    for k in layers:
        h = torch.cat([x[0] for x in items.states(lm, [k], intervene(out))]) if out else plain[k]
        digest = hashlib.sha256(f"{seed}/{lm.fingerprint}/{name}/{k}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
        out[k] = fit_eraser(name.split("-")[0], h, items.rewritten.repeat_interleave(n_tokens), generator)
    return out


def _under(steering: Steering, prompts: Mapping[tuple[int, ...], Encoded]) -> Backend:
    """The hooked backend over an intervention; a backend is told no row's name, so rows are known by their ids."""

    def run(lm: LanguageModel, batch: Batch, wanted: list[Point], visit: Visit) -> None:
        rows = [tuple(ids[real].tolist()) for ids, real in zip(batch.ids, batch.mask, strict=True)]
        # Hooks run in the order they were put on, so what is read is what was written.
        with steering.attach(lm.model):
            steering.begin(range(len(rows)), [prompts[row] for row in rows])
            steering.forward(batch.positions, batch.mask)
            hooked(lm, batch, wanted, visit)
        for i, row in enumerate(rows):
            checked_applied(steering, i, i, len(row))

    return run


def probe_scores(
    h: Float[Tensor, "n layer d"], labels: Bool[Tensor, " n"], held_out: Float[Tensor, "m layer d"]
) -> Float[np.ndarray, "m layer"]:
    """Log-odds that a fresh logistic probe of each layer (standardised, L2 with C = 1), fitted on h, gives `held_out`.

    Raises UserError as `leace`.
    """
    columns: list[np.ndarray] = []
    for k in range(h.shape[1]):
        x, z = _checked(h[:, k], labels)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        probe.fit(x.cpu().numpy(), z.cpu().numpy())
        columns.append(probe.decision_function(_finite(held_out[:, k]).cpu().numpy()))
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
    rewrites: Sequence[bool], rewrote: Sequence[bool], problems: Sequence[str], seed: int = 0
) -> Interval | None:
    """P(rewrites | rewrote) - P(rewrites | copied), what is left of a decision, with its interval over problems.

    `rewrote` is what the same corrector did to the same items untouched, so untouched the gap is 1. None where it did
    but one of the two. Resamples that hold but one are left out.
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


def measure(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """What is left after one erasure: means of its rows, those that have one with `_low` and `_high` over problems.

    `gap` is `decision_gap`; `auroc` is of the fresh probe of the last layer that was erased, `auroc_last` of the
    model's last, `auroc_layers` of all. None where there is nothing to count, as without right items a false rewrite.
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
    areas = probe_auroc(np.array([r["probe"] for r in rows]), rewrote, problems, seed)
    for name, at in (("auroc", rows[0]["layers"][-1:]), ("auroc_last", [-1])):
        area = areas[at[0]] if areas and at else None
        intervals[name] = area and Interval(area.auroc, area.low, area.high, area.n_problems)
    out: dict[str, Any] = {k: rows[0][k] for k in ("eraser", "layers", "rank", "moved")} | {"n": len(rows)}
    for name, x in intervals.items():
        values = (None,) * 3 if x is None else (x.mean, x.low, x.high)
        out |= {name + end: v if v == v else None for end, v in zip(("", "_low", "_high"), values, strict=True)}
    return out | {"auroc_layers": [area.auroc for area in areas]}


def _eraser(left: Tensor, right: Tensor, x: Tensor, method: str) -> Eraser:
    centred = x - x.mean(0)
    total = float(centred.square().sum())
    moved = float((centred @ right @ left.T).square().sum()) / total if total else 0.0
    return Eraser(left, right, x.mean(0), method, moved)


def _checked(h: Tensor, labels: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
    """States and labels in float64, both classes there."""
    x = _finite(h)
    if len(labels) != len(h):
        raise UserError(f"{len(labels)} labels for {len(h)} states; give one a state")
    if bool((labels == labels[0]).all()):
        raise UserError(f"all {len(h)} labels are {bool(labels[0])}; an eraser and a probe need states of both classes")
    return x, labels.to(x)


def _finite(h: Tensor) -> Float[Tensor, "n d"]:
    if len(h) == 0:
        raise UserError("no states to fit on; give some of both classes")
    if not torch.isfinite(h).all():
        raise UserError(f"states hold a NaN or infinity in row {int((~torch.isfinite(h)).any(1).nonzero()[0])}")
    return h.double()
