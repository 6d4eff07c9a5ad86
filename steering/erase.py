"""Erase the correction concept from the residual stream, then generate, to see whether correction vanishes with it.

python -m steering.erase --corrector dialogue-0 --task dialogue
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from corrector import tasks
from corrector.decoding import Output, decode
from corrector.decoding.scoring import kl_per_token
from corrector.errors import UserError, run_cli
from corrector.metrics import edit
from corrector.models import LanguageModel, load
from corrector.prompts import Encoded
from corrector.records import RunFolder, default_name
from corrector.tasks.base import Pair, Task, check_disjoint, data_hash
from probes.erasure import Eraser, Items, fit_in_order, matched, probe_scores
from probes.spans import Sequence as Tokens
from steering.erase_tables import show
from steering.extract import contrast_of
from steering.interventions.erasure import Erasure
from steering.interventions.positions import check_span, resolve

FITTED = ("leace", "mean_projection", "shuffled_labels", "complement")


@dataclass(frozen=True)
class Erase:
    """Erase "this corrector rewrites here" from the residual stream, and measure what is left of its decisions.

    Erasers are fitted on train questions, fresh probes on validation, and all numbers are of the test split, beside
    random erasures of equal rank and of equal size. The same command again resumes a stopped run.
    """

    corrector: str = "dialogue"
    """Shipped reference, local folder or hub id of the corrector."""
    task: str = "dialogue"
    """dialogue, arithmetic, gsm8k or jsonl."""
    data: str = ""
    """Local path or hub id, for the tasks that read data."""
    template: str = ""
    """Prompt template of models whose card names none."""
    contrast: Literal["copy_rewrite", "annotated", "minimal"] = "copy_rewrite"
    """What is erased: what this corrector rewrites against what it copies, the annotator's labels, or minimal pairs."""
    layers: tuple[int, ...] = ()
    """Erased each alone and, one fitted after the other, all together; empty: every layer."""
    span: str = "prompt_last"
    """Tokens that erasers are fitted on, that are erased, and that probes read (prompt_last, last, all, ...)."""
    controls: int = 5
    """Random erasures of equal rank, and as many that leave the concept and move as much as LEACE, at each place."""
    items: int = 100
    """Test pairs a cell."""
    pairs: int = 240
    """Contrast pairs that erasers are fitted on (train split)."""
    validation: int = 100
    """Contrast pairs that probes are fitted on (validation split)."""
    seed: int = 0
    """Seed of pairs, random erasures and intervals."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Run folder; default runs/erase-<hash of this configuration>."""


@dataclass(frozen=True)
class Work:
    """What the cells share; `plain` are the states of `train` at every layer to erase, with nothing erased."""

    lm: LanguageModel
    task: Task
    pairs: list[Pair]
    prompts: list[Encoded]
    unerased: list[Output]
    train: Items
    validation: Items
    test: Items
    plain: dict[int, Float[Tensor, "token d"]]
    about: dict[str, Any]
    sizes: dict[tuple[int, ...], dict[int, float]] = field(default_factory=dict[tuple[int, ...], dict[int, float]])
    """What LEACE moves at each layer of a place, kept for the nulls of its size."""


def prepare(config: Erase) -> Work:
    """Load the model, draw the items and see what it does to them; UserError for all that would fail later."""
    for name, least in (("controls", 1), ("items", 2), ("pairs", 2), ("validation", 2)):
        if (value := getattr(config, name)) < least:
            raise UserError(f"{name}={value} is below {least}; choose --{name} {least} or more")
    check_span(config.span)
    task, lm = tasks.get(config.task, config.data), load(config.corrector, config.template)
    layers = sorted(config.layers) or list(range(lm.n_layers))
    if len(set(layers)) < len(layers) or not 0 <= layers[0] <= layers[-1] < lm.n_layers:
        raise UserError(f"layers={list(config.layers)} not in 0..{lm.n_layers - 1}, each once; choose --layers so")
    pairs = task.pairs("test", config.items, config.seed)
    prompts = [lm.encode(p.question, p.prefix, p.last) for p in pairs]
    train = contrast_of(config.contrast, lm, task, "train", config.pairs, config.seed)
    validation = contrast_of(config.contrast, lm, task, "validation", config.validation, config.seed)
    drawn = {"train": train.pairs, "validation": validation.pairs, "test": pairs}
    check_disjoint({split: [p.question for p in of_split] for split, of_split in drawn.items()})
    outputs = decode(lm, prompts, max_new_tokens=task.max_sentence_tokens)
    rewrote = [lm.decode(list(o.ids)).strip() != p.last.strip() for o, p in zip(outputs, pairs, strict=True)]
    written = [(*e.ids, *o.ids, *[lm.eos_id] * o.ended) for e, o in zip(prompts, outputs, strict=True)]
    tokens = [Tokens(ids, e.spans, p.problem) for ids, e, p in zip(written, prompts, pairs, strict=True)]
    fit, probe = (
        _items([*pos, *neg], [True] * len(pos) + [False] * len(neg), config.span)
        for pos, neg in (contrast.sequences(lm) for contrast in (train, validation))
    )
    states = torch.cat(fit.states(lm, layers), dim=1)
    about = {
        "corrector": lm.ref,
        "fingerprint": lm.fingerprint,
        "model_organism": bool(lm.card.get("model_organism", False)),
        "train": {"matched": len(train), "dropped": train.dropped, "data_hash": data_hash(train.pairs)},
        "validation": {"matched": len(validation), "dropped": validation.dropped},
        "test": {"rewrote": sum(rewrote), "copied": len(rewrote) - sum(rewrote)},
    }
    test, plain = _items(tokens, rewrote, config.span), dict(zip(layers, states, strict=True))
    return Work(lm, task, pairs, prompts, outputs, fit, probe, test, plain, about)


def _items(sequences: list[Tokens], rewritten: list[bool], span: str) -> Items:
    places = [[p for a, b in resolve(span, s.spans) for p in range(a, min(b, len(s)))] for s in sequences]
    return Items(sequences, places, torch.tensor(rewritten))


def fitted(config: Erase, work: Work, name: str, layers: tuple[int, ...]) -> dict[int, Eraser]:
    """Erasers of a place by the name of their fit; `matched` are of the size that LEACE has there, layer by layer."""

    def fit(name: str, sizes: Mapping[int, float]) -> dict[int, Eraser]:
        args = (work.lm, work.train, work.plain, layers, name, config.seed, lambda e: Erasure(e, config.span))
        return fit_in_order(*args, sizes)

    if not name.startswith("matched"):
        return fit(name, {})
    if layers not in work.sizes:
        work.sizes[layers] = {k: e.moved for k, e in fit("leace", {}).items()}
    return fit(name, work.sizes[layers])


def sizes(erasers: Collection[Eraser]) -> dict[str, Any]:
    """Rank and size of a place's erasers, means over its layers; `matched`: all have the size that was wanted.

    `wanted` and `matched` are None of erasers that were to have no size.
    """
    n = max(len(erasers), 1)
    out: dict[str, Any] = {k: sum(getattr(e, k) for e in erasers) / n for k in ("rank", "moved", "removed", "scale")}
    wanted = [(e.moved, e.wanted) for e in erasers if e.wanted is not None]
    out["wanted"] = sum(w for _, w in wanted) / n if wanted else None
    return out | {"matched": all(matched(m, w) for m, w in wanted) if wanted else None}


def correct(config: Erase, work: Work, name: str, layers: Sequence[int]) -> list[dict[str, Any]]:
    """Correct the test pairs under one erasure; rows of edits.jsonl. `probe`: a fresh probe's score at each layer."""
    lm, task, span = work.lm, work.task, config.span
    erasers = fitted(config, work, name, tuple(layers))
    erasure, outputs, kl = None, work.unerased, [0.0] * len(work.pairs)
    if erasers:
        erasure = Erasure(erasers, span)
        outputs = decode(lm, work.prompts, max_new_tokens=task.max_sentence_tokens, steering=erasure)
        targets = [s.ids[len(e) :] for s, e in zip(work.test.sequences, work.prompts, strict=True)]
        kl = kl_per_token(lm, work.prompts, targets, erasure)
    held, seen = (
        torch.stack([h.mean(1) for h in items.states(lm, range(lm.n_layers), erasure)])
        for items in (work.validation, work.test)
    )
    scores = probe_scores(held, work.validation.rewritten, seen)
    about = {"task": task.name, "eraser": name, "layers": layers, "span": span, **sizes(erasers.values())}
    rows: list[dict[str, Any]] = []
    for i, (pair, output) in enumerate(zip(work.pairs, outputs, strict=True)):
        text = lm.decode(list(output.ids))
        row = {"item": i, **asdict(pair), "correction": text, "rewrote": bool(work.test.rewritten[i])}
        row |= asdict(edit(pair.last, text, lm.encode_target(pair.last)[:-1], list(output.ids)))
        row |= {"is_right_after": task.is_right(pair, text), "well_formed": task.well_formed(pair, text)}
        rows.append({**about, **row, "ended": output.ended, "applied": output.applied, "kl": kl[i], "probe": scores[i]})
    return rows


def run(config: Erase) -> Path:
    """Run or resume; returns the run folder with edits.jsonl, erasure.json, summary.json and summary.csv."""
    out = Path("runs") / default_name("erase", config) if config.out == Path() else config.out
    work = None if (out / "DONE").exists() else prepare(config)
    with RunFolder(out, config) as folder:
        if work is not None:
            folder.write_once("erasure", work.about)
            drawn = [f"{family}-{i:02d}" for family in ("matched", "random") for i in range(config.controls)]
            names, layers = (*FITTED, *drawn), tuple(work.plain)
            places = [*((k,) for k in layers), *([layers] if len(layers) > 1 else [])]
            cells = [("none", ()), *((name, place) for place in places for name in names)]
            for i, (name, place) in enumerate(tqdm(cells, desc=f"{config.task}: erase", unit="cell")):
                missing = (i + 1) * config.items - max(folder.count("edits"), i * config.items)
                if missing > 0:
                    folder.append("edits", correct(config, work, name, place)[-missing:])
            folder.finish()
    show(out)
    return out


if __name__ == "__main__":
    run_cli(Erase, run, "steering.erase")
