"""One variant of one seed: trained where it is not yet, then it corrects test pairs, is read, steered, and answers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.experiments.variants import (
    COEFS,
    WHOLE,
    Ablations,
    Job,
    check,
    identity_of,
    jobs,
    recipe_of,
    start_of,
    variants,
)
from analysis.loops import row as answer_row
from corrector import tasks
from corrector.errors import UserError
from corrector.heldout import CLEARLY_BAD, CLEARLY_GOOD
from corrector.loop import align
from corrector.models import CARD, LanguageModel, load
from corrector.recipes import Train
from corrector.records import RunFolder, default_name
from corrector.records.canonical import SIGNIFICANT_DIGITS, to_plain
from corrector.tasks.base import Pair, Split, Task
from corrector.tasks.units import in_units
from corrector.train import run_resolved
from corrector.upstreams import LocalUpstream
from probes.capture import capture_all
from steering.controls import random_controls
from steering.extract import contrast_of, extract_vectors
from steering.sweeping.cells import Cell, Setting, correct
from steering.sweeping.crossing import cross, unsteered
from steering.vectors import SteeringVector

SPAN = "prompt_last"
"""Where directions are read and written: the position at which a correction is decided."""
VALIDATION = 100
"""Matched validation pairs that choose the layer."""
KEPT = ("problem", "last", "correction", "edit_ratio", "copied", "length_ratio", "is_wrong", "badness", "well_formed")
"""What edits.jsonl keeps of a row of `steering.sweeping.cells`."""
Row = dict[str, Any]


def run(config: Ablations) -> Path:
    """Train and measure every variant of every seed; the rows, about.json and DONE. Returns the folder.

    models.jsonl has a row a corrector, edits.jsonl one a test pair, directions.jsonl one a matched pair (projections of
    the rewritten and the copied sentence), steered.jsonl one a steered pair, answers.jsonl one a problem, with seed
    None for the upstream alone.
    """
    check(config)
    config = replace(config, out=Path("runs") / default_name("ablations", config)) if config.out == Path() else config
    with RunFolder(config.out, config) as folder:
        if folder.done:
            return config.out
        bench, at = Bench(config), Counter[str]()
        for job in jobs(config):
            sizes = sizes_of(config, job)
            if any(folder.count(name) < at[name] + n for name, n in sizes.items()):
                for name, rows in bench.rows(job).items():
                    folder.append(name, rows[max(folder.count(name) - at[name], 0) :])
            at.update(sizes)
        for name, n in at.items():
            folder.expect(name, n)
        listed = [{"group": v.group, "name": v.name, "base": v.base} for v in variants(config)]
        about = {"task": config.task, "outcomes": list(bench.task.outcomes), "variants": listed}
        folder.write_once("about", to_plain(about, "about", SIGNIFICANT_DIGITS))
        folder.finish()
    return config.out


def sizes_of(config: Ablations, job: Job) -> dict[str, int]:
    """How many rows a job makes, by file."""
    if job.seed is None:
        return {"answers": config.problems}
    if job.variant.group == "upstream":
        return {"models": 1, "answers": config.problems}
    read = {"models": 1, "directions": config.problems}
    if job.variant.group == "untrained":
        return read
    return {**read, "edits": config.pairs, "steered": config.items, "answers": config.problems}


class Bench:
    """The task, its problems and the upstreams, for all jobs of a run."""

    def __init__(self, config: Ablations) -> None:
        self.config, self.task = config, tasks.get(config.task, config.data)
        self.problems = self.task.problems("test", config.problems, config.seed)
        self._models: dict[str, LanguageModel] = {}
        self._alone: dict[tuple[str, float | None, int], list[Row]] = {}

    def rows(self, job: Job) -> dict[str, list[Row]]:
        """The rows of a job by file, as many as `sizes_of` says."""
        who = {"variant": job.variant.name, "seed": job.seed}
        if job.seed is None:
            return {"answers": [{**who, **row} for row in self._upstream_alone(job)]}
        lm = self.corrector(job)
        told = {"parameters": lm.model.num_parameters(), "model_organism": bool(lm.card.get("model_organism", True))}
        told |= {"trained_tokens": lm.card.get("trained_tokens", 0), "weights": lm.card.get("weights_sha256", "")}
        found: dict[str, list[Row]] = {}
        if job.variant.group != "upstream":
            task = in_units(self.task, job.variant.unit)
            vector, layer, read = self._direction(lm, task)
            told |= {"layer": layer, **{k: vector.card["layers"][str(layer)][k] for k in ("auroc", "dose")}}
            found |= {"directions": read}
            if job.variant.trained:
                pairs = task.pairs("test", self.config.pairs, self.config.seed)
                found |= {"edits": edits(lm, task, pairs), "steered": self._steered(lm, task, vector, layer, pairs)}
        found["models"] = [{"corrector": job.corrector or lm.ref.rpartition("/")[2], **told}]
        if "answers" in sizes_of(self.config, job):
            found["answers"] = self._answers(job, lm)
        return {name: [{**who, **row} for row in rows] for name, rows in found.items()}

    def corrector(self, job: Job) -> LanguageModel:
        """The corrector of a job; trained, or its training resumed, where it is not finished."""
        if job.corrector:
            return load(job.corrector)
        assert job.seed is not None, "the upstream alone has no corrector"
        start = trained(start_of(self.config, job.seed))
        if job.variant.group == "untrained":
            return load(start)
        return load(trained(recipe_of(self.config, job.variant, job.seed)))

    def _direction(self, lm: LanguageModel, task: Task) -> tuple[SteeringVector, int, list[Row]]:
        """The difference of means by the annotator's labels, the layer that validation chose, and test projections.

        The labels are the annotator's, since a corrector that never copies has none of its own. The last block is
        left out, whose output is one norm away from the logits.
        """
        n, seed = self.config, self.config.seed
        sizes: dict[Split, int] = {"train": n.fit, "validation": min(VALIDATION, n.fit), "test": n.problems}
        train, validation, test = (contrast_of("annotated", lm, task, split, k, seed) for split, k in sizes.items())
        vector = extract_vectors(lm, train, validation, ("diff_means",), (SPAN,), seed=seed)["diff_means", SPAN]
        candidates = vector.layers[:-1] or vector.layers
        layer = max(candidates, key=lambda k: vector.card["layers"][str(k)]["auroc"])
        unit = vector.at(layer) / vector.at(layer).norm()
        sides = [capture_all(lm, s, layers=[layer], spans=(SPAN,))["resid_post", SPAN] for s in test.sequences(lm)]
        rewritten, copied = ((side.at(layer) @ unit).tolist() for side in sides)
        return (
            vector,
            layer,
            [
                {"problem": problem, "rewritten": high, "copied": low}
                for problem, high, low in zip(test.problems, rewritten, copied, strict=True)
            ],
        )

    def _steered(
        self, lm: LanguageModel, task: Task, vector: SteeringVector, layer: int, every: list[Pair]
    ) -> list[Row]:
        """The first pairs at COEFS along the direction and random ones of its norm; one row a pair."""
        pairs, setting = every[: self.config.items], Setting((layer,), SPAN)
        nulls = random_controls(vector, [layer], self.config.controls, self.config.seed)
        cells = [
            Cell(name, coef, v if coef else None)
            for name, v in [("correction", vector), *nulls.items()]
            for coef in COEFS
        ]
        by_cell = cross(lm, task, pairs, cells, setting, unsteered(lm, task, pairs))
        curves: list[Row] = [{"problem": pair.problem, "edit_ratio": {}, "well_formed": {}} for pair in pairs]
        for cell, rows in zip(cells, by_cell, strict=True):
            for curve, row in zip(curves, rows, strict=True):
                for name in ("edit_ratio", "well_formed"):
                    curve[name].setdefault(cell.direction, []).append(row[name])
        return curves

    def _answers(self, job: Job, lm: LanguageModel | None) -> list[Row]:
        """The align loop with a corrector, or (None) the upstream alone."""
        variant, config = job.variant, self.config
        whole = variant.unit == WHOLE
        task = self.task if whole else in_units(self.task, variant.unit)
        name = variant.upstream or task.upstream or f"{task.name}-upstream"
        if name not in self._models:
            self._models[name] = load(name)
        temperature = task.temperature if variant.temperature is None else variant.temperature
        upstream = LocalUpstream(self._models[name], task, temperature, config.seed, batch_size=config.batch_size)
        answers = align(
            self.problems,
            upstream,
            lm,
            task=task,
            mode="upstream" if lm is None else "aligner" if whole else "stream",
            max_rounds=config.max_rounds if whole else -(-config.max_rounds // variant.unit),
            max_tokens=config.max_tokens,
            batch_size=config.batch_size,
            progress=f"{variant.name}, {'upstream alone' if lm is None else f'seed {job.seed}'}",
        )
        return [answer_row(a, upstream.lm.tokenizer) for a in answers]

    def _upstream_alone(self, job: Job) -> list[Row]:
        variant = job.variant
        key = (variant.upstream, variant.temperature, 1 if variant.unit == WHOLE else variant.unit)
        if key not in self._alone:
            self._alone[key] = self._answers(job, None)
        return self._alone[key]


def trained(config: Train) -> Path:
    """The finished checkpoint of a config; trained, or its training resumed, where it is not there.

    Raises UserError where another config made it.
    """
    card = config.out / CARD
    if not card.is_file():
        run_resolved(config)
    # A field that came later had its default.
    made, wanted = identity_of(Train()) | json.loads(card.read_text())["recipe"], identity_of(config)
    if other := [k for k in wanted if made[k] != wanted[k]]:
        raise UserError(f"{config.out} was trained with another {other[0]}; delete it, or choose another --out")
    return config.out


def edits(lm: LanguageModel, task: Task, pairs: list[Pair]) -> list[Row]:
    """What the corrector makes of test pairs, greedily; `clear` is good or bad where the badness leaves no doubt."""
    rows = correct(lm, task, pairs, Cell("none", 0.0), Setting((0,), SPAN))
    return [
        {
            **{name: row[name] for name in KEPT},
            "valid": task.is_valid(pair, row["correction"]),
            "clear": clear(pair.badness),
        }
        for pair, row in zip(pairs, rows, strict=True)
    ]


def clear(badness: float | None) -> str | None:
    """Whether a sentence should clearly be copied (good) or rewritten (bad); None between, and without badness."""
    if badness is None or CLEARLY_GOOD <= badness <= CLEARLY_BAD:
        return None
    return "good" if badness < CLEARLY_GOOD else "bad"
