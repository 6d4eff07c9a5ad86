"""`python -m corrector.align` runs the align loop over a task's problems; `corrector.align(...)` is the loop itself."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from corrector import tasks
from corrector.decoding import EVERY, Trick, Tricks
from corrector.errors import UserError, run_cli
from corrector.loop import Alignment, Mode, Round, align
from corrector.memory import check_fits
from corrector.memory.loops import looping
from corrector.models import LanguageModel, load
from corrector.records import RunFolder, default_name
from corrector.records.kept import Kept
from corrector.servers.endpoint import Traffic, traffic_line
from corrector.statistics import bootstrap_mean
from corrector.tasks.base import Problem, Split, Task
from corrector.upstreams import Served, ServerUpstream, Upstream, upstream_of

__all__ = ["Align", "Alignment", "Round", "align", "run", "show"]


@dataclass(frozen=True)
class Align:
    """Run the align loop over a task's problems and write the answers; the same command again resumes."""

    task: str = "dialogue"
    """A name of corrector.tasks.NAMES: dialogue, arithmetic, gsm8k, jsonl, prm800k, hh-rlhf, ..."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    problems: int = 50
    """Problems to answer."""
    split: Split = "test"
    """Which questions they are drawn from."""
    mode: Mode = "stream"
    """stream: sentence by sentence; continue: the corrector finishes the answer after the last corrected round;
    aligner: the whole answer is corrected at once; upstream: no corrector."""
    upstream: str = ""
    """Upstream (reference, folder, hub id, `replay` of recorded answers, or `server`); empty: the task's own."""
    upstream_server: Served = field(default=Served())
    """server: where and what it is."""
    traffic: Traffic = field(default=Traffic(), metadata={"identity": False})
    """server: how it is asked."""
    corrector: str = ""
    """Corrector model (reference, folder or hub id); empty: the task's reference."""
    template: str = ""
    """Prompt template of models whose card names none."""
    temperature: float | None = None
    """The upstream's temperature, 0 is greedy; None: the task's own. The corrector is always greedy."""
    rounds: int | None = None
    """Correct the first so many sentences only; None: all."""
    max_rounds: int = 12
    """Sentences of an answer at most."""
    max_tokens: int = 512
    """Tokens of an answer at most, counted by the upstream's tokenizer."""
    seed: int = 0
    """Seed of the choice of problems and of the upstream's draws."""
    batch_size: int = 64
    """Rows decoded together, and problems between two writes."""
    tricks: tuple[Trick, ...] = EVERY
    """What spares the decoders work without changing a token; `--tricks` with nothing behind it decodes plainly."""
    device: str = field(default="cpu", metadata={"identity": False})
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run; default runs/align-<hash of this configuration>."""


def run(config: Align) -> list[dict[str, Any]]:
    """Answer the problems in the run's folder, print the summary, return the rows of alignments.jsonl."""
    task = tasks.get(config.task, config.data)
    if config.problems < 1:
        raise UserError(f"problems={config.problems} is below 1; choose --problems 1 or more")
    problems = task.problems(config.split, config.problems, config.seed)
    corrector = None
    if config.mode != "upstream":
        corrector = load(config.corrector or config.task, config.template, config.device, config.dtype)
    out = Path("runs") / default_name("align", config) if config.out == Path() else config.out
    upstream = upstream_of(config, task, problems, Kept(out / "replies"))
    with RunFolder(out, config, config.device) as folder:
        if not folder.done:
            _tell_memory(config, task, problems, upstream, corrector)
        for start in range(0, len(problems), config.batch_size):
            stop = min(start + config.batch_size, len(problems))
            if (n_done := folder.count("alignments")) >= stop:
                continue
            answers = align(
                problems[start:stop],
                upstream,
                corrector,
                task=task,
                mode=config.mode,
                rounds=config.rounds,
                max_rounds=config.max_rounds,
                max_tokens=config.max_tokens,
                batch_size=config.batch_size,
                tricks=Tricks.of(config.tricks),
                progress=f"problems {start}..{stop - 1}",
            )
            rows = [{"task": config.task, **a.row()} for a in answers]
            folder.append("alignments", rows[max(n_done - start, 0) :])
        if not folder.done:
            folder.finish()
        rows = folder.rows("alignments")
    show(rows, config.seed)
    if isinstance(upstream, ServerUpstream):
        print(traffic_line(upstream.counts))
    print(f"rows are in {out}/alignments.jsonl")
    return rows


def _tell_memory(
    config: Align, task: Task, problems: Sequence[Problem], upstream: Upstream, corrector: LanguageModel | None
) -> None:
    """Say what the run will need; UserError where that is not free."""
    models = [lm for lm in (corrector, getattr(upstream, "lm", None)) if lm is not None]
    if not models:
        return
    need = looping(
        [p.question for p in problems],
        upstream,
        corrector,
        rows=config.batch_size,
        max_rounds=config.max_rounds,
        max_tokens=config.max_tokens,
        sentence=task.max_sentence_tokens,
        tricks=Tricks.of(config.tricks),
        batch_size=config.batch_size,
    )
    cure = "a smaller --batch-size, fewer --max-tokens or --tricks (prefix keeps keys and values), --dtype bfloat16"
    said = check_fits(need, [device for lm in models for device in lm.devices], cure)
    print(f"memory: {said}", file=sys.stderr)


def show(rows: Sequence[Mapping[str, Any]], seed: int = 0, console: Console | None = None) -> None:
    """Print outcomes with 95 % intervals over problems, why rows stopped, and how many corrections are copies."""
    out = console or Console()
    table = Table("outcome", "mean", "95 % interval", "n")
    for name in rows[0]["outcomes"]:
        mean = bootstrap_mean([r["outcomes"][name] for r in rows], [r["problem"] for r in rows], seed=seed)
        table.add_row(name, f"{mean.mean:.3f}", f"{mean.low:.3f} .. {mean.high:.3f}", str(mean.n))
    out.print(table)
    stopped = Counter(row["stopped"] for row in rows)
    reasons = ", ".join(f"{reason} {n}" for reason, n in stopped.most_common())
    out.print(f"stopped by {reasons}", highlight=False, soft_wrap=True)
    corrected = [r for row in rows for r in row["rounds"] if r["correction"] is not None]
    copies = sum(r["correction"] == r["last"] for r in corrected)
    if corrected:
        share = f"({100 * copies / len(corrected):.1f} %)"
        out.print(f"copied {copies} of {len(corrected)} sentences {share}", highlight=False, soft_wrap=True)


class _Callable(ModuleType):
    """Lets `corrector.align(...)` call the function although `python -m corrector.align` needs the module."""

    def __call__(self, *args: Any, **kwargs: Any) -> list[Alignment]:
        return align(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    run_cli(Align, run, "corrector.align")
