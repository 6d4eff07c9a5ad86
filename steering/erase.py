"""Erase the correction concept from the residual stream, then generate, to see whether correction vanishes with it.

python -m steering.erase --corrector dialogue-0 --task dialogue
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm.auto import tqdm

from corrector import tasks
from corrector.canonical import canonical
from corrector.decoding import Output, decode
from corrector.errors import UserError, run_cli
from corrector.metrics import edit
from corrector.models import LanguageModel, blocks, load
from corrector.prompts import Encoded
from corrector.records import RunFolder, default_name, read_json, read_rows
from corrector.scoring import kl_per_token
from corrector.tasks.base import Pair, Task, check_disjoint, data_hash
from probes.erasure import Eraser, Items, fit_in_order, measure, probe_scores
from probes.spans import Sequence as Tokens
from steering.extract import contrast_of
from steering.positions import check_span, overlap, resolve

FITTED = ("leace", "mean_projection", "shuffled_labels")
NOTE = "a miniature trained to show the effect (a model organism): this shows what the lab measures, no more."
INTERVALS = ("gap", "auroc", "auroc_last")
SHOWN = ("moved", "rewrites", "false_rewrite", "missed_rewrite", "edit_ratio", "well_formed", "kl", *INTERVALS)


@dataclass(frozen=True)
class Erase:
    """Erase "this corrector rewrites here" from the residual stream, and measure what is left of its decisions.

    Erasers are fitted on train questions, fresh probes on validation, and all numbers are of the test split, beside
    random erasures of equal rank. The same command again resumes a stopped run.
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
    """Random erasures of equal rank at each place."""
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


class Erasure:
    """Erase at a span after some blocks, alike in every row: h - coef·L Rᵀ(h - μ). A `corrector.decoding.Steering`.

    `erasers` go by layer. Each position erased counts one application; where coef or an eraser's rank is 0, h keeps
    its very bits and nothing counts. Raises UserError for an unknown span, a coef that is not finite, and (on
    `attach`) layers or widths that the model has not.
    """

    def __init__(self, erasers: Mapping[int, Eraser], span: str = "prompt_last", coef: float = 1.0) -> None:
        check_span(span)
        if not math.isfinite(coef):
            raise UserError(f"coef={coef} is not finite; 1 erases all of the concept, 0 nothing")
        self.erasers, self.span, self.coef = dict(sorted(erasers.items())), span, coef
        self.layers = tuple(k for k, e in self.erasers.items() if e.rank and coef)
        self._mask: Tensor | None = None
        self.begin([], [])

    @property
    def applied(self) -> Int[Tensor, " live"]:
        return self._applied

    @contextmanager
    def attach(self, model: Any) -> Generator[Erasure]:
        modules, d = blocks(model), model.config.hidden_size
        for layer, eraser in self.erasers.items():
            if not 0 <= layer < len(modules) or eraser.d != d:
                there = f"layers 0..{len(modules) - 1} of width {d}"
                raise UserError(f"layer={layer}, erased in width {eraser.d}, is none of {there}; fit erasers there")
        with ExitStack() as handles:
            for layer in self.layers:
                handles.callback(modules[layer].register_forward_hook(self._hook(self.erasers[layer])).remove)
            yield self

    def begin(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        ranges = [resolve(self.span, p.spans) for p in prompts]
        self._ranges, n = dict(zip(rows, ranges, strict=True)), max([1, *map(len, ranges)])
        self._bounds = torch.tensor([[*r, *[(0, 0)] * (n - len(r))] for r in ranges]).view(-1, n, 2)
        self._applied, self._mask = torch.zeros(len(rows), dtype=torch.long), None

    def forward(self, position_ids: Int[Tensor, "live seq"], real: Bool[Tensor, "live seq"]) -> None:
        starts, ends = self._bounds.to(position_ids.device)[:, None].unbind(-1)
        self._mask = ((position_ids[..., None] >= starts) & (position_ids[..., None] < ends)).any(-1) & real

    def keep(self, index: Int[Tensor, " kept"]) -> None:
        at = index.cpu()
        self._bounds, self._applied, self._mask = self._bounds[at], self._applied[at], None

    def expected(self, row: int, n_fed: int) -> int:
        return overlap(self._ranges[row], n_fed) * len(self.layers)

    def _hook(self, eraser: Eraser) -> Any:
        def write(module: Any, args: Any, output: Any) -> Any:
            h = output if isinstance(output, Tensor) else output[0]
            if self._mask is None or self._mask.shape != h.shape[:2]:
                raise RuntimeError(f"the erasure was not told of this forward of {tuple(h.shape[:2])} (rows, tokens)")
            self._applied = self._applied + self._mask.sum(-1).cpu()
            new, mask = h.clone(), self._mask.to(h.device)  # a copy: positions outside the span keep their bits
            new[mask] = eraser(h[mask], self.coef)
            return new if isinstance(output, Tensor) else (new, *output[1:])

        return write


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


def correct(config: Erase, work: Work, name: str, layers: Sequence[int]) -> list[dict[str, Any]]:
    """Correct the test pairs under one erasure; rows of edits.jsonl. `probe`: a fresh probe's score at each layer."""
    lm, task, span = work.lm, work.task, config.span
    erasers = fit_in_order(lm, work.train, work.plain, layers, name, config.seed, lambda e: Erasure(e, span))
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
    means = {k: sum(getattr(e, k) for e in erasers.values()) / max(len(erasers), 1) for k in ("rank", "moved")}
    about = {"task": task.name, "eraser": name, "layers": layers, "span": span, **means}
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
            names, layers = (*FITTED, *(f"random-{i:02d}" for i in range(config.controls))), tuple(work.plain)
            places = [*((k,) for k in layers), *([layers] if len(layers) > 1 else [])]
            cells = [("none", ()), *((name, place) for place in places for name in names)]
            for i, (name, place) in enumerate(tqdm(cells, desc=f"{config.task}: erase", unit="cell")):
                missing = (i + 1) * config.items - max(folder.count("edits"), i * config.items)
                if missing > 0:
                    folder.append("edits", correct(config, work, name, place)[-missing:])
            folder.finish()
    show(out, config)
    return out


def show(out: Path, config: Erase) -> None:
    """Write summary.json and summary.csv, a line a cell (`probes.erasure.measure`), and print them with a verdict."""
    rows, about, console = read_rows(out, "edits"), read_json(out, "erasure"), Console()
    lines = [measure(rows[i : i + config.items], config.seed) for i in range(0, len(rows), config.items)]
    (out / "summary.json").write_text(canonical(lines), encoding="utf-8")
    pd.DataFrame(lines).to_csv(out / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("layers", "eraser", *SHOWN):
        table.add_column(name.replace("_", "\n"), justify="right", no_wrap=True)
    said: dict[str, str] = {}
    for place in dict.fromkeys(tuple(x["layers"]) for x in lines[1:]):
        here = [x for x in lines if tuple(x["layers"]) == place]
        random = [x for x in here if x["eraser"].startswith("random")]
        areas, name = lines[0]["auroc_layers"], str(place[0]) if len(place) == 1 else "all"
        before: dict[str, Any] = {**lines[0], "auroc": areas[place[-1]] if areas else None}
        for group in [[before], *([x] for x in here if x not in random), random]:
            table.add_row(name, group[0]["eraser"].split("-")[0], *(_shown(group, column) for column in SHOWN))
        table.add_section()
        said[name] = verdict(here)
    console.width = max(console.width, 160)  # a narrower table would lose digits without a word
    counts = "{rewrote} rewritten and {copied} copied".format(**about["test"])
    console.print(f"{config.task}, {about['corrector']}, {config.span} erased; nothing erased: {counts}", table)
    alone = [x for x in lines if x["eraser"] == "leace" and len(x["layers"]) == 1]
    lowest = str(min(alone, key=lambda x: x["gap"] or 0)["layers"][0])
    console.print(f"layer {lowest}, which leaves least of {len(alone)} erased alone: {said[lowest]}")
    if "all" in said:
        console.print(f"all of them together: {said['all']}")
    if about["model_organism"]:
        console.print(f"{about['corrector']} is {NOTE}", style="dim")


def verdict(here: Sequence[dict[str, Any]]) -> str:
    """What LEACE at one place does to the decision gap, beside the nulls of that place, by their intervals."""
    own, nulls = here[0], [x for x in here if x["eraser"].startswith(("shuffled", "random"))]
    if own["gap_low"] is None:
        return "no decision gap to close: nothing erased, all items are copied, or all rewritten"
    falls = own["gap_high"] < min(x["gap_low"] for x in nulls)
    found = "stays" if not falls else "falls, and may be gone" if own["gap_low"] <= 0 else "falls, not to 0"
    beside = f"under {len(nulls)} nulls to {_shown(nulls, 'gap')}"
    return f"correction {found}: decision gap from 1 to {_shown([own], 'gap')}, {beside}"


def _shown(group: Sequence[dict[str, Any]], name: str) -> str:
    """A number, with its interval where that is what counts, or the range of several."""
    values = [x[name] for x in group if x[name] is not None]
    if len(values) != 1:
        return "-".join(dict.fromkeys(f"{f(values):.2f}" for f in (min, max))) if values else "-"
    low, high = group[0].get(f"{name}_low"), group[0].get(f"{name}_high")
    return f"{values[0]:.2f}" + (f" \\[{low:.2f}, {high:.2f}]" if name in INTERVALS and low is not None else "")


if __name__ == "__main__":
    run_cli(Erase, run, "steering.erase")
