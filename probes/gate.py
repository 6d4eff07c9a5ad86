"""The gate before any steering claim: whether the corrector tells minimal pairs apart, in state and in behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np

from corrector.decoding import decode
from corrector.models import LanguageModel
from corrector.statistics import bootstrap_mean
from corrector.tasks.base import MinimalPair, Pair, Task
from probes.capture import capture_all
from probes.contrasts import check_leak, minimal
from probes.directions import fit
from probes.separability import separability

SPANS = ("prompt_last", "first_divergence")


def gate(lm: LanguageModel, task: Task, n_train: int, n_test: int, seed: int = 0) -> dict[str, Any]:
    """Minimal-pair AUROC per layer at both positions (fitted on train, measured on test), and the rewrite gap.

    The gap is rewrite(bad) - rewrite(good) over matched test pairs, with a bootstrap interval over problems. A
    position whose states are equal to the bit has no direction; its entry is then None.
    """
    test_pairs = task.minimal_pairs("test", n_test, seed)
    train, test = minimal(lm, task.minimal_pairs("train", n_train, seed)), minimal(lm, test_pairs)
    check_leak(train, test)
    fitted, held = (
        [capture_all(lm, side, ("resid_post",), spans=SPANS) for side in c.sequences(lm)] for c in (train, test)
    )
    auroc: dict[str, Any] = {}
    for span in SPANS:
        pos, neg = (side["resid_post", span] for side in fitted)
        if bool((pos.h.mean(0) == neg.h.mean(0)).all(dim=-1).any()):
            auroc[span] = None
            continue
        rng = np.random.default_rng([seed, *span.encode()])
        held_pos, held_neg = (side["resid_post", span] for side in held)
        rows = separability(fit("diff_means", pos, neg), held_pos, held_neg, rng)
        auroc[span] = {str(r.layer): {"auroc": r.auroc, "low": r.low, "high": r.high} for r in rows}
    return {"n_train": len(train), "n_test": len(test), "auroc": auroc, "rewrite": rewrite_gap(lm, task, test_pairs)}


def rewrite_gap(lm: LanguageModel, task: Task, pairs: list[MinimalPair]) -> dict[str, Any]:
    """Rewrite rates of bad and good sentences, and the gap with its interval over problems."""
    bad, good = (_rewritten(lm, task, side) for side in ([p.bad for p in pairs], [p.good for p in pairs]))
    gap = bootstrap_mean([b - g for b, g in zip(bad, good, strict=True)], [p.good.problem for p in pairs])
    return {
        "bad": float(np.mean(bad)),
        "good": float(np.mean(good)),
        "gap": gap.mean,
        "low": gap.low,
        "high": gap.high,
        "n": gap.n,
    }


def _rewritten(lm: LanguageModel, task: Task, pairs: list[Pair]) -> list[float]:
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    outputs = decode(lm, prompts, max_new_tokens=task.max_sentence_tokens)
    texts = [lm.decode(list(o.ids)) for o in outputs]
    return [float(text.strip() != pair.last.strip()) for text, pair in zip(texts, pairs, strict=True)]
