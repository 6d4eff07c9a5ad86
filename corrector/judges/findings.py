"""What two runs over the same questions come to: means, paired differences, flips, win rates, each with its n."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corrector.judges import DECIDED, SKIPPED, Duel, Verdict
from corrector.statistics import bootstrap_mean, mcnemar

WORTH: Mapping[str, float] = {"win": 1.0, "loss": -1.0, "tie": 0.0, "swapped": 0.0}


@dataclass(frozen=True)
class Finding:
    """One number with its 95 % interval over questions; `low` and `high` are None where it has none."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""


def outcome_findings(duels: Sequence[Duel], scored: Sequence[str], seed: int = 0) -> list[Finding]:
    """Means of every recorded outcome, paired differences, and the flips of those in `scored` that are 0 or 1.

    The difference is bootstrapped over questions, both answers of one together.
    """
    out: list[Finding] = []
    for name in duels[0].own.outcomes:
        own = [d.own.outcomes[name] for d in duels]
        out.append(_mean(f"{name}, run", own, seed))
        other = [d.other.outcomes[name] for d in duels if d.other]
        if not other:
            continue
        out.append(_mean(f"{name}, against", other, seed))
        out.append(_mean(f"{name}, difference", [a - b for a, b in zip(own, other, strict=True)], seed))
        if name in scored and {*own, *other} <= {0.0, 1.0}:
            gained = sum(a > b for a, b in zip(own, other, strict=True))
            lost = sum(a < b for a, b in zip(own, other, strict=True))
            note = f"wrong -> right {gained}, right -> wrong {lost}"
            out.append(Finding(f"{name}, McNemar's p", mcnemar(gained, lost), None, None, len(own), note))
    return out


def verdict_findings(judge: str, verdicts: Sequence[Verdict], seed: int = 0) -> list[Finding]:
    """Per aspect: a scoring judge's means and paired difference, and omega = (W - L) / (W + T + L).

    Only decided duels count; n is their number, and the note counts the others. With nothing decided, and where there
    was nobody to win against, there is no omega.
    """
    out: list[Finding] = []
    for aspect in dict.fromkeys(v.aspect for v in verdicts):
        of = [v for v in verdicts if v.aspect == aspect]
        counts = Counter(v.outcome for v in of)
        skipped = "; ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in SKIPPED if counts[name])
        if judge == "model":
            out += _scores(aspect, of, seed)
        if all(v.outcome is None for v in of):
            continue
        worth = [WORTH[v.outcome] for v in of if v.outcome in DECIDED]
        ties = counts["tie"] + counts["swapped"]
        note = f"wins {counts['win']}, ties {ties}, losses {counts['loss']}"
        if judge == "server":
            note += f"; {counts['swapped']} ties by order"
        note += f"; {skipped}" if skipped else ""
        name = f"{aspect}, omega by {judge}"
        out.append(_mean(name, worth, seed, note) if worth else Finding(name, None, None, None, 0, note))
    return out


def plain(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as rows of JSON."""
    return [vars(f) for f in findings]


def _scores(aspect: str, verdicts: Sequence[Verdict], seed: int) -> list[Finding]:
    both = [(v.score, v.other_score) for v in verdicts if v.score is not None and v.other_score is not None]
    alone = [v.score for v in verdicts if v.score is not None and v.outcome is None]
    out = [_mean(f"{aspect}, run", alone or [a for a, _ in both], seed)] if alone or both else []
    if both:
        out.append(_mean(f"{aspect}, against", [b for _, b in both], seed))
        out.append(_mean(f"{aspect}, difference", [a - b for a, b in both], seed))
    return out


def _mean(name: str, values: Sequence[float], seed: int, note: str = "") -> Finding:
    mean = bootstrap_mean(values, seed=seed)
    low, high = (None if x != x else x for x in (mean.low, mean.high))
    return Finding(name, mean.mean, low, high, mean.n, note)
