"""Pack a problem into one sequence: a trunk (question and corrected answer) and a branch for every upstream sentence.

A branch holds the part of its prompt that is not the trunk, and its correction. It sees the trunk up to where its
own prompt leaves it, and itself; its positions go on from there. So each branch has the very activations it would
have alone, and one forward serves all sentences of a problem. Tokenise-then-share: the shared part is the longest
common token prefix of the whole prompt and the trunk, which holds for every tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

IGNORE = -100


@dataclass(frozen=True)
class Segment:
    """A token sequence with a loss weight for predicting each of its tokens (0: not trained)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Packed:
    """One packed row. Token i sees token j iff j <= i and (branch[j] == branch[i], or j is trunk and
    position[j] < fork[i]); branch 0 is the trunk. `targets[i]` is the token that i must predict.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branch: tuple[int, ...]
    fork: tuple[int, ...]
    targets: tuple[int, ...]
    weights: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Batch:
    """Padded rows: `mask` is additive (0 or -inf), `targets` IGNORE where nothing is trained."""

    ids: Int[Tensor, "batch seq"]
    positions: Int[Tensor, "batch seq"]
    mask: Float[Tensor, "batch 1 seq seq"]
    targets: Int[Tensor, "batch seq"]
    weights: Float[Tensor, "batch seq"]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    return next((i for i in range(n) if a[i] != b[i]), n)


def pack(trunk: Segment, branches: Sequence[Segment]) -> Packed:
    """Pack whole sequences (`branches[k].ids` starts with its full prompt) behind a trunk.

    A branch forks at its longest common prefix with the trunk, but never behind its first trained token or the
    token before it, whose prediction it must make itself. Raises ValueError for a branch that trains no token, or its
    first one, which nothing predicts.
    """
    ids, positions, branch, fork = (
        list(trunk.ids),
        list(range(len(trunk.ids))),
        [0] * len(trunk.ids),
        [0] * len(trunk.ids),
    )
    targets, weights = _next(trunk)
    for k, segment in enumerate(branches, start=1):
        first = next((i for i, w in enumerate(segment.weights) if w > 0), 0)
        if first == 0:
            raise ValueError(f"branch {k} of {len(segment.ids)} tokens trains none that a token before it predicts")
        at = min(common_prefix(trunk.ids, segment.ids), first - 1)
        n = len(segment.ids) - at
        ids += segment.ids[at:]
        positions += range(at, len(segment.ids))
        branch += [k] * n
        fork += [at] * n
        more_targets, more_weights = _next(segment)
        targets += more_targets[at:]
        weights += more_weights[at:]
    return Packed(tuple(ids), tuple(positions), tuple(branch), tuple(fork), tuple(targets), tuple(weights))


def _next(segment: Segment) -> tuple[list[int], list[float]]:
    weights = [*segment.weights[1:], 0.0]
    ids = [*segment.ids[1:], IGNORE]
    return [i if w > 0 else IGNORE for i, w in zip(ids, weights, strict=True)], weights


def collate(rows: Sequence[Packed], pad_id: int) -> Batch:
    """Right-pad packed rows into a batch with its block mask."""
    longest = max(len(row) for row in rows)

    def padded(name: str, fill: int | float) -> Tensor:
        return torch.tensor([[*getattr(row, name), *[fill] * (longest - len(row))] for row in rows])

    branch, fork, positions = padded("branch", -1), padded("fork", 0), padded("positions", 0)
    seen = visible(branch, fork, positions)
    mask = torch.zeros(seen.shape).masked_fill(~seen, float("-inf")).unsqueeze(1)
    return Batch(padded("ids", pad_id), positions, mask, padded("targets", IGNORE), padded("weights", 0.0).float())


def visible(
    branch: Int[Tensor, "batch seq"], fork: Int[Tensor, "batch seq"], positions: Int[Tensor, "batch seq"]
) -> Bool[Tensor, "batch seq seq"]:
    """The block mask of `Packed`; every token sees at least itself, so padding makes no NaN."""
    n = branch.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    same = branch[:, :, None] == branch[:, None, :]
    trunk = (branch[:, None, :] == 0) & (positions[:, None, :] < fork[:, :, None])
    return causal & (same | trunk)
