"""Outcome and cost of the loop by corrector size and corrected rounds, as a run folder; `analysis.sizes` reads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from analysis.experiments.meter import metered
from analysis.loops import Bed, about, beds, row
from corrector.decoding import EVERY, Trick, Tricks
from corrector.errors import UserError
from corrector.loop import align
from corrector.records import RunFolder, default_name
from corrector.records.canonical import SIGNIFICANT_DIGITS, to_plain
from corrector.tasks.base import Problem, Split
from corrector.upstreams import LocalUpstream


@dataclass(frozen=True)
class Sizes:
    """Gain against inference cost by corrector size and corrected rounds (Fig 6); the same command again resumes.

    One problem at a time, as for one who waits. Rows are measurements: a second run gives other seconds.
    """

    task: tuple[str, ...] = ("arithmetic",)
    """One task."""
    corrector: tuple[str, ...] = ("arithmetic-s", "arithmetic-m", "arithmetic-l")
    """Correctors of different size (reference, folder or hub id)."""
    rounds: int = 4
    """R: corrected rounds are 0, 1, ..., R and all."""
    problems: int = 100
    """Problems."""
    split: Split = "test"
    """Which questions they are drawn from."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    upstream: str = ""
    """Upstream; empty: the task's own."""
    template: str = ""
    """Prompt template of models whose card names none."""
    temperature: float | None = None
    """The upstream's temperature, 0 is greedy; None: the task's own."""
    max_rounds: int = 12
    """Sentences of an answer at most."""
    max_tokens: int = 512
    """Tokens of an answer at most."""
    tricks: tuple[Trick, ...] = EVERY
    """What spares the decoders work; `--tricks` with nothing behind it decodes plainly."""
    seed: int = 0
    """Seed of the choice of problems, of the upstream's draws and of the bootstrap."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run; default runs/sizes-<hash of this configuration>."""

    @property
    def batch_size(self) -> int:
        """Rows decoded together."""
        return 1


def run(config: Sizes) -> Path:
    """Answer every problem with every corrector and number of rounds, interleaved; answers.jsonl, about.json, DONE.

    A row is a corrector, `k` (None: all rounds) and problem, with outcomes, `seconds`, and the tokens fed to the
    upstream and to the corrector.
    """
    if config.rounds < 1 or config.problems < 2 or len(config.task) != 1 or not config.corrector:
        raise UserError(
            f"rounds={config.rounds}, problems={config.problems}, task={config.task}, corrector={config.corrector}; "
            "choose 1 and 2 at least, one task, and a corrector"
        )
    out = Path("runs") / default_name("sizes", config) if config.out == Path() else config.out
    ks = [*range(config.rounds + 1), None]
    with RunFolder(out, config, config.device) as folder:
        each = len(config.corrector) * len(ks)
        folder.expect("answers", each * config.problems)
        if folder.done:
            return out
        found = [bed for _, bed in beds(config)]
        _answer(found[0], found[0].problems[0], None, config)  # what runs first pays for what runs once
        for i, problem in enumerate(tqdm(found[0].problems, desc="sizes", unit="problem")):
            if folder.count("answers") >= (i + 1) * each:
                continue
            rows = [_answer(bed, problem, k, config) for bed in found for k in ks]
            folder.append("answers", rows[max(folder.count("answers") - i * each, 0) :])
        told = [{**about(config.task[0], bed), "n_upstream": _upstream_size(bed)} for bed in found]
        folder.write_once("about", to_plain({"correctors": told}, "about", SIGNIFICANT_DIGITS))
        folder.finish()
    return out


def _answer(bed: Bed, problem: Problem, k: int | None, config: Sizes) -> dict[str, Any]:
    tricks = Tricks.of(config.tricks)
    upstream = replace(_local(bed), tricks=tricks)
    with metered([upstream.lm, bed.corrector]) as cost:
        (answer,) = align(
            [problem],
            upstream,
            bed.corrector,
            task=bed.task,
            rounds=k,
            max_rounds=config.max_rounds,
            max_tokens=config.max_tokens,
            batch_size=1,
            tricks=tricks,
        )
    measured = {"seconds": cost.seconds, "upstream_tokens": cost.tokens[0], "corrector_tokens": cost.tokens[1]}
    return {"corrector": bed.corrector.ref, "k": k, **row(answer, upstream.lm.tokenizer), **measured}


def _local(bed: Bed) -> LocalUpstream:
    if not isinstance(bed.upstream, LocalUpstream):
        raise UserError("the upstream is no model in this process, so its cost cannot be measured; choose a model")
    return bed.upstream


def _upstream_size(bed: Bed) -> int:
    return int(_local(bed).lm.model.num_parameters())
