"""Held-out scores of a checkpoint, on the test split: what its card says of it.

python -m corrector.heldout runs/train-dialogue-0
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from corrector import tasks
from corrector.decoding import decode
from corrector.decoding.scoring import target_logprobs
from corrector.errors import UserError, run_cli
from corrector.loop import align
from corrector.models import CARD, LanguageModel, load
from corrector.statistics import wilson
from corrector.tasks.base import Pair, Task
from corrector.tasks.units import in_units
from corrector.upstreams import Choice, LocalUpstream, upstream_of

ANSWER_TOKENS = 512
"""Longest whole answer of an aligner, in tokens."""
CLEARLY_GOOD, CLEARLY_BAD = 0.5, 1.5
"""Badness below which a graded task's sentence should be copied, and above which it should be rewritten."""


@dataclass(frozen=True)
class Heldout:
    """Measure a checkpoint on its task's test split and write the scores into its card."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder with a card."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    n: int = 1000
    """Test pairs, or problems for an upstream."""
    seed: int = 0
    """Seed of the pairs drawn."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the model."""


def run(config: Heldout) -> dict[str, Any]:
    """Score, write, print."""
    file = config.checkpoint / CARD
    if not file.is_file():
        raise UserError(f"{config.checkpoint} has no {CARD}; give a folder that corrector.train wrote")
    if config.n < 1:
        raise UserError(f"n={config.n} is below 1; choose --n 1 or more")
    lm = load(config.checkpoint, device=config.device, dtype=config.dtype)
    recipe = lm.card["recipe"]
    task = variant(recipe["task"], config.data, recipe.get("opener", ""), recipe.get("unit", 1))
    if not (n := min(config.n, task.size("test"))):
        raise UserError(f"task {task.name!r} has no test questions; give --data with more of them")
    scores = measure_of(lm)(lm, task, n, config.seed)
    file.write_text(json.dumps({**lm.card, "held_out": scores}, indent=1) + "\n")
    print(json.dumps(scores, indent=1))
    return scores


def measure_of(lm: LanguageModel) -> Callable[[LanguageModel, Task, int, int], dict[str, Any]]:
    """What a checkpoint is measured by: its card's role and, for correctors, its method."""
    if lm.card["role"] == "upstream":
        return upstream_scores
    return aligner_scores if lm.card.get("method") == "aligner" else corrector_scores


def variant(name: str, data: str = "", opener: str = "", unit: int = 1) -> tasks.Task:
    """A task by name in units of so many sentences, or the arithmetic variant whose rewrites open with a word."""
    if not opener:
        return in_units(tasks.get(name, data), unit)
    from corrector.tasks.arithmetic import Arithmetic

    if name != "arithmetic":
        raise UserError(f"--opener={opener!r} is for task arithmetic, not {name!r}; leave it out")
    return in_units(Arithmetic(opener=opener), unit)


def rate(hits: Sequence[bool]) -> dict[str, float]:
    """A share with its 95 % Wilson interval and n."""
    interval = wilson(sum(hits), len(hits))
    return {
        "mean": round(interval.mean, 4),
        "low": round(interval.low, 4),
        "high": round(interval.high, 4),
        "n": len(hits),
    }


def upstream_scores(lm: LanguageModel, task: Task, n: int, seed: int) -> dict[str, Any]:
    """Outcomes of the upstream's own greedy answers, and of answers at the task's temperature."""
    problems = task.problems("test", n, seed)
    out: dict[str, Any] = {"n": n}
    for temperature in sorted({0.0, task.temperature}):
        answers = align(problems, LocalUpstream(lm, task, temperature, seed), task=task, mode="upstream")
        name = "greedy" if temperature == 0 else f"temperature {temperature:g}"
        out[name] = {k: round(float(np.mean([a.outcomes[k] for a in answers])), 4) for k in answers[0].outcomes}
    return out


def aligner_scores(lm: LanguageModel, task: Task, n: int, seed: int) -> dict[str, Any]:
    """Outcomes of the task's own upstream's whole answers (`draft`), and of their greedy whole corrections."""
    problems = task.problems("test", n, seed)
    upstream = upstream_of(Choice(seed=seed), task, problems)
    drafts = [a.answer for a in align(problems, upstream, task=task, mode="upstream")]
    prompts = [lm.encode(p.question, "", draft) for p, draft in zip(problems, drafts, strict=True)]
    outputs = decode(lm, prompts, max_new_tokens=ANSWER_TOKENS, progress="held out")
    answers = [lm.decode(list(o.ids)) for o in outputs]
    pairs = list(zip(drafts, answers, strict=True))
    out: dict[str, Any] = {"ended": rate([o.ended for o in outputs]), "copied": rate([d == a for d, a in pairs])}
    for name, texts in (("draft", drafts), ("corrected", answers)):
        grades = [task.grade(p, text) for p, text in zip(problems, texts, strict=True)]
        out[name] = {k: round(float(np.mean([g[k] for g in grades])), 4) for k in grades[0]}
    return out


def corrector_scores(lm: LanguageModel, task: Task, n: int, seed: int) -> dict[str, Any]:
    """Per kind of sentence: copied, exactly the annotator's text, right after, well-formed; all greedy."""
    if not (pairs := task.pairs("test", n, seed)):
        raise UserError(f"task {task.name!r} has 0 test pairs of {n} questions; give --data whose test split has some")
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    outputs = decode(lm, prompts, max_new_tokens=task.max_sentence_tokens, progress="held out")
    texts = [lm.decode(list(o.ids)) for o in outputs]
    rows = list(zip(pairs, texts, strict=True))
    judges: dict[str, Callable[[Pair, str], bool | None]] = {
        "copied": lambda p, t: t == p.last,
        "exact": lambda p, t: t == p.correction,
        "right_after": task.is_right,
        "well_formed": task.well_formed,
    }
    groups = {"all": rows} | {k: [r for r in rows if r[0].kind == k] for k in sorted({p.kind for p in pairs})}
    if pairs[0].badness is not None:
        groups[f"b < {CLEARLY_GOOD}"] = [r for r in rows if (r[0].badness or 0.0) < CLEARLY_GOOD]
        groups[f"b > {CLEARLY_BAD}"] = [r for r in rows if (r[0].badness or 0.0) > CLEARLY_BAD]
    out: dict[str, Any] = {"ended": rate([o.ended for o in outputs])}
    for group, members in ((name, rows) for name, rows in groups.items() if rows):
        judged = {name: [judge(p, t) for p, t in members] for name, judge in judges.items()}
        out[group] = {name: rate([bool(x) for x in v if x is not None]) for name, v in judged.items() if None not in v}
    if task.rewrite_openers:
        out["valid"] = rate([task.is_valid(p, t) for p, t in rows])
        out["calibration"] = calibration(lm, task, pairs)
    return out


def calibration(lm: LanguageModel, task: Task, pairs: Sequence[Pair]) -> dict[str, float]:
    """Mean |P(rewrite) - the annotator's|, where P(rewrite) is the first token's mass on the rewrites' openers."""
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    mass = np.zeros(len(pairs))
    for opener in task.rewrite_openers:
        first = lm.encode_target(opener)[:1]
        mass += np.exp([float(x[0]) for x in target_logprobs(lm, prompts, [first] * len(prompts))])
    law = np.array([task.rewrite_probability(p) for p in pairs], dtype=float)
    error = np.abs(mass - law)
    return {
        "mean_absolute_error": round(float(error.mean()), 4),
        "bias": round(float((mass - law).mean()), 4),
        "n": len(pairs),
    }


if __name__ == "__main__":
    run_cli(Heldout, run, "corrector.heldout")
