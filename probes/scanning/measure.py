"""Everything that a scan records of one corrector, as rows."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corrector.errors import UserError
from corrector.metrics import edit
from corrector.models import LanguageModel
from corrector.tasks.base import Pair, Task, check_disjoint, data_hash
from probes.capture import Activations, capture, capture_tokens
from probes.contrasts import Contrast, as_corrected, contrast_pairs, copy_rewrite, is_copy
from probes.directions import Direction, fit
from probes.scanning.config import Scan
from probes.scanning.curves import Curve, Resamples, auroc_curve, share_curve, shuffled_fits, spearman_curve
from probes.scanning.lens import is_written
from probes.scanning.scores import (
    LEAST_ITEMS,
    cells,
    neutral_scores,
    published,
    published_centre,
    read_scores,
    scanned,
)
from probes.spans import Sequence, sequence

KINDS = ("copy", "correction")
OUTPUT_TOKENS = 4
"""Output tokens at each of which an AUROC curve is made."""
Row = dict[str, Any]
Sides = tuple[Activations, Activations]


@dataclass(frozen=True)
class Measured:
    """Rows of scan.jsonl, items.jsonl and onset.jsonl, and what is said once about the corrector."""

    scan: list[Row]
    items: list[Row]
    onset: list[Row]
    about: Row


def measure(config: Scan, task: Task, lm: LanguageModel) -> Measured:
    """Fit on train, scale on validation, scan test: every split holds other questions.

    Raises UserError where the corrector copies or rewrites too little to contrast.
    """
    train = copy_rewrite(as_corrected(lm, task, contrast_pairs(task, "train", config.pairs, config.seed)))
    neutral_pairs = task.pairs("validation", config.neutral, config.seed)
    pairs = as_corrected(lm, task, contrast_pairs(task, "test", config.items, config.seed))
    test = copy_rewrite(pairs)
    parts = {"train": train.pairs, "validation": neutral_pairs, "test": pairs}
    check_disjoint({name: [p.question for p in part] for name, part in parts.items()})
    fitted_on = _sides(lm, train, config.span)
    directions = fit(config.method, *fitted_on, seed=config.seed)
    neutral = neutral_scores(lm, neutral_pairs, directions)
    centre = published_centre(*fitted_on, directions, _generator(config, lm, "published"))
    sequences = [scanned(sequence(lm, p, p.correction), config.tokens) for p in pairs]
    raw = read_scores(lm, sequences, directions, "scan")
    variants = {"z": [neutral.z(s) for s in raw], "published": [published(s, centre, config.bound) for s in raw]}
    kinds = [KINDS[not is_copy(p)] for p in pairs]
    same = {"task": task.name, "corrector": lm.ref}
    rows = [
        {**same, "kind": kind, "variant": variant, **cell}
        for variant, scores in variants.items()
        for kind in KINDS
        for cell in cells(*_of_kind(kind, kinds, scores, pairs), seed=config.seed)
    ]
    onset, absent = _curves(config, lm, train, test, fitted_on, directions)
    about = {
        **same,
        "fingerprint": lm.fingerprint,
        "model_organism": bool(lm.card.get("model_organism", False)),
        "n_layers": lm.n_layers,
        "method": config.method,
        "span": config.span,
        "n_train": len(train),
        "dropped_train": train.dropped,
        "n_test": len(test),
        "dropped_test": test.dropped,
        **{f"n_{kind}": kinds.count(kind) for kind in KINDS},
        "data_hash": data_hash(train.pairs),
        "neutral": {"n": neutral.n, "mean": neutral.mean, "sd": neutral.sd},
        "published_centre": centre,
        "norm": [directions[k].norm for k in sorted(directions)],
        "cosine": _cosines(config, fitted_on, directions),
        "absent_curves": absent,
    }
    examples = _examples(config, lm, pairs, kinds, sequences, variants["z"])
    return Measured(rows, [{**same, **row} for row in examples], [{**same, **row} for row in onset], about)


def _curves(
    config: Scan, lm: LanguageModel, train: Contrast, test: Contrast, fitted_on: Sides, directions: dict[int, Direction]
) -> tuple[list[Row], list[str]]:
    """Curves over the layers, by reader. Second: what has no curve, and why.

    `direction`: AUROC of copied against rewritten test items, at --span. `extent`: rank correlation of the same scores
    with the edit ratio, of rewritten items alone. `written`: share of items whose first output token the lens reads at
    prompt_last; in a share `differs` of the rewrites that token is another than a copy's. `output`: as `direction`,
    refitted at each of the first output tokens.
    """
    at_test = _sides(lm, test, config.span)
    rows: list[Row] = [_row("direction", config.span, _auroc(config, lm, fitted_on, at_test, directions))]
    absent: list[str] = []
    ratios = np.array([_edit_ratio(lm, s.pair) for s in test.positives])
    resamples = _resamples(config, lm, test.problems)
    try:
        rng = _generator(config, lm, "shuffles")
        found = spearman_curve(_scores(directions, at_test[0]), ratios, resamples, config.shuffles, rng)
        rows.append(_row("extent", config.span, found))
    except UserError as error:
        absent.append(f"extent: {error}")
    prompt_last = at_test if config.span == "prompt_last" else _sides(lm, test, "prompt_last")
    first = [[lm.encode_target(s.pair.correction)[0] for s in side] for side in (test.positives, test.negatives)]
    hits = [is_written(lm, a.h, ids).double().numpy() for a, ids in zip(prompt_last, first, strict=True)]
    both = _resamples(config, lm, (*test.problems, *test.problems))
    written = _row("written", "prompt_last", share_curve(np.concatenate(hits), both))
    own = [lm.encode_target(s.pair.last)[0] != token for s, token in zip(test.positives, first[0], strict=True)]
    rows.append({**written, "differs": sum(own) / len(own)})
    by_token = [_output_tokens(lm, contrast) for contrast in (train, test)]
    for token in range(OUTPUT_TOKENS):
        span = f"output[{token}:{token + 1}]"
        token_train, token_test = (sides[token] for sides in by_token)
        if token_train is None or token_test is None or len(set(token_test[0].ids)) < LEAST_ITEMS:
            absent.append(f"output at {span}: fewer than {LEAST_ITEMS} pairs write that many tokens")
            continue
        refitted = fit(config.method, *token_train, seed=config.seed)
        rows.append(_row("output", span, _auroc(config, lm, token_train, token_test, refitted)))
    return rows, absent


def _row(reader: str, span: str, found: Curve) -> Row:
    return {"reader": reader, "span": span, **asdict(found)}


def _auroc(config: Scan, lm: LanguageModel, train: Sides, test: Sides, directions: dict[int, Direction]) -> Curve:
    arrays = [a.h.transpose(0, 1).double().numpy() for a in (*train, *test)]
    rng = _generator(config, lm, "shuffles")
    null = shuffled_fits(arrays[0] - arrays[1], arrays[2], arrays[3], config.shuffles, rng)
    pos, neg = (_scores(directions, a) for a in test)
    return auroc_curve(pos, neg, _resamples(config, lm, test[0].ids), null)


def _scores(directions: dict[int, Direction], a: Activations) -> np.ndarray:
    return np.stack([directions[k].scores(a.at(k)).double().numpy() for k in sorted(directions)], 1)


def _resamples(config: Scan, lm: LanguageModel, problems: Many[str]) -> Resamples:
    # One seed for all curves of a corrector: those of the same problems then share their resamples.
    return Resamples.of(list(problems), config.resamples, _generator(config, lm, "resamples"))


def _edit_ratio(lm: LanguageModel, pair: Pair) -> float:
    return edit(pair.last, pair.correction, *(lm.encode_target(t) for t in (pair.last, pair.correction))).edit_ratio


def _output_tokens(lm: LanguageModel, contrast: Contrast) -> list[Sides | None]:
    """Activations at each of the first output tokens, of the pairs of which both sides have it (None: too few)."""
    sides = [
        capture_tokens(lm, [scanned(s, OUTPUT_TOKENS) for s in sequences], span="scan")
        for sequences in contrast.sequences(lm)
    ]
    out: list[Sides | None] = []
    for token in range(1, OUTPUT_TOKENS + 1):
        both = [i for i, pair in enumerate(zip(*sides, strict=True)) if min(h.shape[1] for h in pair) > token]
        ids = tuple(contrast.problems[i] for i in both)
        name = f"output[{token - 1}:{token}]"
        stacked = [[h[i][:, token] for i in both] for h in sides]
        out.append((_at(stacked[0], lm, name, ids), _at(stacked[1], lm, name, ids)) if len(both) > 1 else None)
    return out


def _at(h: list[Tensor], lm: LanguageModel, span: str, ids: tuple[str, ...]) -> Activations:
    return Activations(torch.stack(h), tuple(range(lm.n_layers)), "resid_post", span, ids)


def _sides(lm: LanguageModel, contrast: Contrast, span: str) -> Sides:
    positives, negatives = contrast.sequences(lm)
    return capture(lm, positives, span=span), capture(lm, negatives, span=span)


def _of_kind(
    kind: str, kinds: list[str], scores: list[np.ndarray], pairs: list[Pair]
) -> tuple[list[np.ndarray], list[str]]:
    mine = [i for i, k in enumerate(kinds) if k == kind]
    if len(mine) < LEAST_ITEMS:
        raise UserError(f"only {len(mine)} of {len(pairs)} test items are of kind {kind}; give more --items")
    return [scores[i] for i in mine], [pairs[i].problem for i in mine]


def _cosines(config: Scan, fitted_on: Sides, directions: dict[int, Direction]) -> dict[str, list[float]]:
    others = {m: fit(m, *fitted_on, seed=config.seed) for m in ("diff_means", "lat") if m != config.method}
    return {m: [float(directions[k].unit @ other[k].unit) for k in sorted(directions)] for m, other in others.items()}


def _examples(
    config: Scan,
    lm: LanguageModel,
    pairs: list[Pair],
    kinds: list[str],
    sequences: list[Sequence],
    scores: list[np.ndarray],
) -> list[Row]:
    """The first items of each kind with their tokens and z-scores [layer][token]."""
    rows: list[Row] = []
    for kind in KINDS:
        for i in [i for i, k in enumerate(kinds) if k == kind][: config.examples]:
            pair, (start, end) = pairs[i], sequences[i].spans["scan"]
            tokens = [str(lm.tokenizer.decode([t])) for t in sequences[i].ids[start:end]]
            about = {"kind": kind, "item": i, "problem": pair.problem, "edit_ratio": _edit_ratio(lm, pair)}
            texts = {"question": pair.question, "prefix": pair.prefix, "last": pair.last, "correction": pair.correction}
            rows.append({**about, **texts, "tokens": tokens, "z": scores[i]})
    return rows


def _generator(config: Scan, lm: LanguageModel, what: str) -> np.random.Generator:
    return np.random.default_rng([config.seed, *f"{config.task}/{lm.ref}/{what}".encode()])
