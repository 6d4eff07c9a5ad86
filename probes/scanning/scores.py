"""Scores h.u of a direction over layers and tokens, z-scored on neutral tokens or centred and clipped as published."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.statistics import bootstrap_mean
from corrector.tasks.base import Pair
from probes.capture import Activations, capture_tokens
from probes.directions import Direction
from probes.sites import check_site
from probes.spans import Sequence, sequence

CHUNK = 64
"""Items whose activations are held at once; what is kept of them is a score a layer and token."""
LEAST_ITEMS = 5
"""A cell of the scan with fewer items is absent: outputs have unlike lengths, and late columns thin out."""


@dataclass(frozen=True)
class Neutral:
    """Mean and standard deviation of a direction's scores on neutral tokens, per layer; `n` tokens."""

    mean: Float[np.ndarray, " layer"]
    sd: Float[np.ndarray, " layer"]
    n: int

    def z(self, scores: Float[np.ndarray, "layer token"]) -> Float[np.ndarray, "layer token"]:
        """(s - mean) / sd, layer by layer."""
        return (scores - self.mean[:, None]) / self.sd[:, None]


def scanned(s: Sequence, tokens: int) -> Sequence:
    """The sequence with the span `scan`: the prompt's last position, then at most `tokens` output tokens.

    The end token is left out: nothing is written behind it. An empty output leaves the prompt's last position alone.
    """
    start, n_prompt = s.spans["prompt_last"]
    end = max(n_prompt, min(n_prompt + tokens, s.spans["output"][1] - 1))
    return dataclasses.replace(s, spans={**s.spans, "scan": (start, end)})


def read_scores(
    lm: LanguageModel, sequences: Many[Sequence], directions: dict[int, Direction], span: str
) -> list[Float[np.ndarray, "layer _"]]:
    """h.u of every token of a span, one array [layer, token] an item; layers ascend."""
    layers = sorted(directions)
    units = torch.stack([directions[k].unit.double() for k in layers])
    site = check_site(directions[layers[0]].site)
    out: list[np.ndarray] = []
    for at in tqdm(range(0, len(sequences), CHUNK), desc=f"scan {span}", delay=2, leave=False, disable=None):
        for h in capture_tokens(lm, list(sequences[at : at + CHUNK]), site, layers, span):
            out.append(torch.einsum("ltd,ld->lt", h.double(), units).numpy())
    return out


def neutral_scores(lm: LanguageModel, pairs: list[Pair], directions: dict[int, Direction]) -> Neutral:
    """Mean and deviation of h.u over the question's and prefix's tokens that stand before `last`, per layer.

    There the corrector has not yet seen what it will copy or rewrite. Each (question, prefix) counts once. Raises
    UserError where no such token is left, or where a layer's scores do not vary.
    """
    unique = {(p.question, p.prefix): p for p in pairs}
    sequences = [sequence(lm, p) for p in unique.values()]
    parts: list[np.ndarray] = []
    for s, scores in zip(sequences, read_scores(lm, sequences, directions, "prompt"), strict=True):
        before = [i for name in ("question", "prefix") for i in range(*s.spans[name]) if i < s.spans["last"][0]]
        parts.append(scores[:, before])
    pooled = np.concatenate(parts, axis=1)
    if pooled.shape[1] < 2:
        raise UserError("no question or prefix token stands before the suffix; use a --template with the suffix last")
    mean, sd = pooled.mean(1), pooled.std(1)
    if (sd <= 1e-12).any():
        layer = sorted(directions)[int((sd <= 1e-12).argmax())]
        raise UserError(f"neutral tokens all score alike at layer {layer}; read at another --span, or add --neutral")
    return Neutral(mean, sd, pooled.shape[1])


def published_centre(
    pos: Activations, neg: Activations, directions: dict[int, Direction], generator: np.random.Generator
) -> Float[np.ndarray, " layer"]:
    """m.u per layer, m the mean difference of the training pairs, the order within each pair drawn at random.

    By chance more pairs keep than change their order, so m is a random multiple of the signal: along u its deviation
    is that signal's size over the root of the pairs, and the published scan moves up or down with those coins. A
    direction that was fitted with such an m (lat_repe) brings its own.
    """
    signs = torch.from_numpy(generator.choice([-1.0, 1.0], len(pos.ids)))
    centres: list[float] = []
    for layer in sorted(directions):
        drawn, origin = signs @ (pos.at(layer) - neg.at(layer)).double() / len(signs), directions[layer].origin
        centres.append(float((drawn if origin is None else origin.double()) @ directions[layer].unit.double()))
    return np.array(centres)


def published(
    scores: Float[np.ndarray, "layer token"], centre: Float[np.ndarray, " layer"], bound: float
) -> Float[np.ndarray, "layer token"]:
    """The published scan's score: clip((h - m).u, -bound, bound), in the units of h, growing with its norm.

    Taken from andyzoujm/representation-engineering at 5455d8a, examples/honesty: the readings are (h - m).v / ‖v‖,
    turned by the training labels' sign, m being the mean paired difference (`published_centre`); `plot_lat_scans`
    then clips at 2.3 (it computes mean + sd and overwrites it), and its `threshold = 0` changes nothing. Although it
    names them so, it standardises by nothing, per layer or at all. Not taken: it draws the negated score of one
    text; lists layers -1, -2, ..., so the last is on top of its figure; reads layer -1 behind the final norm.
    """
    return np.clip(scores - centre[:, None], -bound, bound)


def cells(scores: list[Float[np.ndarray, "layer _"]], problems: list[str], seed: int = 0) -> list[dict[str, Any]]:
    """Mean over items of every layer and token column, with a 95 % interval from resampling problems.

    `n` is the number of items that reach the column; a cell with fewer than LEAST_ITEMS is absent. `low` and `high`
    are None where all items are of one problem.
    """
    out: list[dict[str, Any]] = []
    if not scores:
        return out
    for layer in range(len(scores[0])):
        for token in range(max(s.shape[1] for s in scores)):
            here = [(s[layer, token], p) for s, p in zip(scores, problems, strict=True) if s.shape[1] > token]
            if len(here) < LEAST_ITEMS:
                continue
            i = bootstrap_mean([value for value, _ in here], [p for _, p in here], seed=seed)
            ends = (i.low, i.high) if i.n > 1 else (None, None)
            row = {"layer": layer, "token": token, "mean": i.mean, "low": ends[0], "high": ends[1]}
            out.append({**row, "n": len(here), "n_problems": i.n})
    return out
