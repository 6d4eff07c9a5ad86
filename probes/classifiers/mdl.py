"""Minimum description length of labels given features, by the online (prequential) code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from corrector.errors import UserError
from probes.classifiers.models import Fit, Labels, Matrix, nats

FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the problems at which the blocks end."""


@dataclass(frozen=True)
class Code:
    """Length in bits of n binary labels, and of their uniform code, which is n bits."""

    bits: float
    uniform_bits: float

    @property
    def compression(self) -> float:
        """Uniform length / length: 1 is no better than coin flips, more is better."""
        return self.uniform_bits / self.bits


def online_code(fit: Fit, x: Matrix, y: Labels, problems: Sequence[str], seed: int = 0) -> Code:
    """L = n_1 + Σ_i Σ_{block i+1} -log2 p_i(y|x), p_i fitted on blocks 1..i.

    The first block costs a bit a label, and so does one before which a class is missing. Blocks are of whole problems
    in seeded random order, since items of one problem hang together. Everything that a fit chooses (C) it chooses on
    the blocks before, as a receiver could. Raises UserError for no labels. Source: 2003.12298, section 2.2.
    """
    if not len(y):
        raise UserError("no labels to code; give at least one")
    names = sorted(set(problems))
    order = np.random.default_rng(seed).permutation(len(names))
    rank = {names[j]: i for i, j in enumerate(order)}
    place = np.array([rank[p] for p in problems])
    ends = sorted({max(1, round(f * len(names))) for f in FRACTIONS})
    bits = float((place < ends[0]).sum())
    for start, end in pairwise(ends):
        before, block = place < start, (place >= start) & (place < end)
        if len(set(y[before].tolist())) < 2:
            bits += float(block.sum())
            continue
        fitted = fit(x[before], y[before], [p for p, k in zip(problems, before, strict=True) if k])
        bits += nats(fitted.scores(x[block]), y[block]) / math.log(2)
    return Code(bits, float(len(y)))
