"""What made pairs look like: how many are copied, improved, rewritten, how far, and what was dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import Levenshtein
import numpy as np

from corrector.statistics import bootstrap_mean

REWRITTEN = 0.5
"""An edit of this norm_distance or more is a rewrite, of less an improvement; no annotator is asked which it was."""
SHARES = ("copy", "improve", "rewrite", "eos", "is_wrong")


def action(last: str, correction: str) -> str:
    """`copy` (equal after strip), `improve` or `rewrite` (see REWRITTEN)."""
    a, b = last.strip(), correction.strip()
    if a == b:
        return "copy"
    return "rewrite" if Levenshtein.distance(a, b) / max(len(a), len(b)) >= REWRITTEN else "improve"


def statistics_of(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Of rows of annotations.jsonl: the pairs of all rounds and of each, why answers stopped, what was dropped.

    Shares and the mean edit ratio have 95 % intervals over questions; a share over nothing is left out.
    """
    pairs = [(row["problem"], k, r) for row in rows for k, r in enumerate(row["rounds"])]
    rounds = sorted({k for _, k, _ in pairs})
    return {
        "problems": len(rows),
        "pairs": len(pairs),
        "stopped": dict(Counter(row["stopped"] for row in rows).most_common()),
        "dropped": dict(Counter(row["dropped"] for row in rows if row["dropped"]).most_common()),
        "all": _of([(p, r) for p, _, r in pairs], seed) if pairs else {},
        "rounds": {str(k + 1): _of([(p, r) for p, at, r in pairs if at == k], seed) for k in rounds},
    }


def _of(pairs: Sequence[tuple[str, Mapping[str, Any]]], seed: int) -> dict[str, Any]:
    groups = [problem for problem, _ in pairs]
    ratios = [Levenshtein.distance(r["last"], r["correction"]) / len(r["last"]) for _, r in pairs]
    actions = [action(r["last"], r["correction"]) for _, r in pairs]
    out: dict[str, Any] = {"n": len(pairs), "edit_ratio": _mean(ratios, groups, seed)}
    out["edit_ratio"]["quartiles"] = [float(q) for q in np.quantile(ratios, [0.25, 0.5, 0.75])]
    for name in SHARES:
        hits: list[bool | None] = [r[name] for _, r in pairs] if name in pairs[0][1] else [a == name for a in actions]
        known = [(float(hit), group) for hit, group in zip(hits, groups, strict=True) if hit is not None]
        if known:
            out[name] = _mean([hit for hit, _ in known], [group for _, group in known], seed)
    return out


def _mean(values: list[float], groups: list[str], seed: int) -> dict[str, Any]:
    interval = asdict(bootstrap_mean(values, groups, seed=seed))
    return {name: None if x != x else x for name, x in interval.items()}
