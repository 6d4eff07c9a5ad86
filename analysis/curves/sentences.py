"""The dose curve on sentences that the upstream wrote in the loop: another distribution than the task's own pairs.

`--temperature` and `--upstream` of the sweep choose that distribution; the vector is the same.
"""

from __future__ import annotations

from typing import Any

import Levenshtein
import pandas as pd

from analysis.summary import CORRECTION, Records, select
from corrector.statistics import bootstrap_mean, item_slopes, line


def sentence_dose(records: Records, task: str, coefs: list[float]) -> dict[str, Any]:
    """Edit ratio of `last` → `correction` in the loop's rounds over `coefs`, as `first` and as `every` round.

    In round 0 every coefficient corrects the same sentence of a problem, so `first` is paired; `every` averages the
    rounds of a problem, whose later sentences differ by what was corrected before. Each: `n` problems that were
    corrected at every coefficient, the `edit_ratio` by coefficient, `slope` with `low` and `high` (95 %, bootstrap over
    problems) and `r2` of the mean curve. Empty where no loop was run.
    """
    rows = select(records.alignments, task=task, direction=CORRECTION) if len(records.alignments) else None
    if rows is None or not len(rows) or "rounds" not in rows or len(coefs) < 2:
        return {}
    out: dict[str, Any] = {}
    for name, last in (("first", 1), ("every", None)):
        ratios = [_mean_ratio(rounds[:last]) for rounds in rows["rounds"]]
        frame = pd.DataFrame({"problem": rows["problem"].to_numpy(), "coef": rows["coef"].to_numpy(float), "x": ratios})
        wide: Any = frame.pivot(index="problem", columns="coef", values="x").astype(float)
        wide = wide.reindex(columns=coefs).dropna()
        if not len(wide):
            continue
        slope = bootstrap_mean(item_slopes(coefs, wide.to_numpy()), wide.index.to_numpy())
        means = [float(wide[c].mean()) for c in coefs]
        out[name] = {
            **{"n": len(wide), "edit_ratio": [{"coef": c, "mean": x} for c, x in zip(coefs, means, strict=True)]},
            **{"slope": slope.mean, "low": slope.low, "high": slope.high, "r2": line(coefs, means).r2},
        }
    return out


def sentence_line(dose: dict[str, Any]) -> str:
    """What the upstream's own sentences say; empty without a loop."""
    told: list[str] = []
    for name, words in (("first", "first sentences, the same at every coef"), ("every", "all sentences")):
        if found := dose.get(name):
            ends = [found["edit_ratio"][i] for i in (0, -1)]
            r2 = "" if found["r2"] is None else f", R2 {found['r2']:.2f}"
            within = "" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]"
            told.append(
                f"{words}: edit ratio {ends[0]['mean']:.2f} at {ends[0]['coef']:+g} to {ends[1]['mean']:.2f} at "
                f"{ends[1]['coef']:+g}, slope {found['slope']:.2f}{within}{r2} "
                f"({found['n']} problems)"
            )
    return f"On the upstream's own sentences: {'; '.join(told)}." if told else ""


def _mean_ratio(rounds: list[dict[str, Any]]) -> float:
    """Mean edit ratio of the corrected rounds; NaN where none was."""
    known = [(r["last"], r["correction"]) for r in rounds if r["correction"] is not None and r["last"]]
    ratios = [Levenshtein.distance(last, correction) / len(last) for last, correction in known]
    return sum(ratios) / len(ratios) if ratios else float("nan")
