"""What scans of layers say of the paper's claims: where a corrector decides, and whether before it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

MATH, QA = ("arithmetic", "gsm8k"), ("dialogue",)
"""Tasks of each kind, for the claim that math uses more layers to decide than question answering."""
LEAST_DIFFERS = 0.5
"""Share of rewrites whose first token must be another than a copy's, for that token to show the edit."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """A claim, whether the numbers hold it up (None: they cannot tell), and the numbers in words.

    `name` is early, decided first or more layers; `task` that of the corrector, empty where it is about two; `n` the
    problems it rests on.
    """

    name: str
    task: str
    subject: str
    claim: str
    holds: bool | None
    reason: str
    n: int


def verdicts(curves: Sequence[Row]) -> list[Verdict]:
    """What the curves say of the paper's claims: for every corrector, then for every math-QA pair."""
    out: list[Verdict] = []
    deciding = [c for c in curves if c["reader"] == "direction"]
    for direction in deciding:
        mine = [c for c in curves if all(c[key] == direction[key] for key in ("run", "task", "corrector"))]
        readers = {c["reader"]: c for c in mine}
        out += [early(direction), decided_first(readers.get("extent"), readers["written"])]
    math, qa = ([c for c in deciding if c["task"] in kind] for kind in (MATH, QA))
    return out + [more_layers(a, b) for a in math for b in qa]


def early(direction: Row) -> Verdict:
    """Whether copy or rewrite is decided in the first half of the layers."""
    n, who = len(direction["value"]), _name(direction)
    verdict = partial(
        Verdict, "early", direction["task"], who, f"{who}: copy or rewrite is decided in the first half of the layers"
    )
    if direction["saturation"] is None:
        return verdict(None, "no layer's AUROC is above the band of chance", direction["n_problems"])
    low, high = layer_interval(direction["saturation_draws"], n)
    reason = f"AUROC saturates at {_layer(direction, 'saturation')} of {n}"
    if high is not None and high < n / 2:
        return verdict(True, reason, direction["n_problems"])
    return verdict(False if low is None or low >= n / 2 else None, reason, direction["n_problems"])


def decided_first(extent: Row | None, written: Row) -> Verdict:
    """Whether the extent of a rewrite can be read before its first token is written: layers of both, paired.

    Both saturation layers come from the same resamples of problems, so their gap's interval is that of the gap itself.
    The direction was fitted and the lens was not, and the last layer's lens is the model: a gap is easily positive.
    Not answered where most rewrites begin as a copy does, so that the first token does not show the edit.
    """
    who, m = _name(written), written["n_problems"]
    verdict = partial(Verdict, "decided first", written["task"], who, f"{who}: extent is decided first, then executed")
    if extent is None:
        return verdict(None, "all rewrites have the same edit ratio, so extent cannot be read", m)
    if extent["saturation"] is None:
        return verdict(None, "no layer's correlation with the edit ratio is above the band of chance", m)
    n = len(written["value"])
    gaps = _beyond(written["saturation_draws"], n) - _beyond(extent["saturation_draws"], n)
    low, high = np.quantile(gaps, [0.025, 0.975], method="inverted_cdf").astype(int)
    gap = written["saturation"] - extent["saturation"]
    reason = (
        f"correlation with the edit ratio of rewrites saturates at {_layer(extent, 'saturation')}, the lens has the "
        f"first output token at {_layer(written, 'saturation')}, a gap of {gap} [{low}, {high}] layers"
    )
    if written["differs"] < LEAST_DIFFERS:
        late = (
            f"only {written['differs']:.0%} of the rewrites differ from a copy in that token: edits are executed later"
        )
        return verdict(None, f"{reason}, but {late}", m)
    return verdict(True if low > 0 else False if high < 0 else None, reason, m)


def more_layers(math: Row, qa: Row) -> Verdict:
    """Whether math decides at a greater share of the depth than QA; the resamples are independent.

    Not answered where more than 2.5 % of a task's resamples have no layer above chance.
    """
    who, n = f"{_name(math)} against {_name(qa)}", min(math["n_problems"], qa["n_problems"])
    claim = f"math ({_name(math)}) uses more layers to decide than QA ({_name(qa)})"
    verdict = partial(Verdict, "more layers", "", who, claim)
    for row in (math, qa):
        lost = row["saturation_draws"].count(None) / len(row["saturation_draws"])
        if row["saturation"] is None or lost > 0.025:
            where = "no layer's" if row["saturation"] is None else f"in {lost:.0%} of the resamples no layer's"
            known = f"so where {row['task']} decides is not known (largest {max(row['value']):.2f})"
            return verdict(None, f"{where} AUROC of {row['task']} is above the band of chance, {known}", n)
    # From 0, the first layer, to 1, the last, so that the first layers of models of unlike depth tie.
    last = [max(len(row["value"]) - 1, 1) for row in (math, qa)]
    depths = [_beyond(row["saturation_draws"], len(row["value"])) / k for row, k in zip((math, qa), last, strict=True)]
    # All pairs of draws, since neither run's resamples know of the other's.
    low, high = np.quantile(np.subtract.outer(*depths), [0.025, 0.975])
    gap = math["saturation"] / last[0] - qa["saturation"] / last[1]
    reason = (
        f"AUROC saturates at {_layer(math, 'saturation')} of {len(math['value'])} in {math['task']}, at "
        f"{_layer(qa, 'saturation')} of {len(qa['value'])} in {qa['task']}; "
        f"difference {gap:+.2f} [{low:+.2f}, {high:+.2f}] of the depth"
    )
    return verdict(True if low > 0 else False if high < 0 else None, reason, n)


def layer_interval(draws: Sequence[int | None], n_layers: int) -> tuple[int | None, int | None]:
    """Ends of the 95 % interval of a layer over resamples; None stands for no layer, which lies beyond the last."""
    low, high = np.quantile(_beyond(draws, n_layers), [0.025, 0.975], method="inverted_cdf").astype(int)
    return (None if low >= n_layers else int(low), None if high >= n_layers else int(high))


def _beyond(draws: Sequence[int | None], n_layers: int) -> np.ndarray:
    return np.array([n_layers if layer is None else layer for layer in draws])


def _layer(row: Row, name: str) -> str:
    ends = layer_interval(row[f"{name}_draws"], len(row["value"]))
    return f"layer {row[name]} [{', '.join('none' if end is None else str(end) for end in ends)}]"


def _name(row: Row) -> str:
    return f"{row['task']}, {Path(row['corrector']).name}"
