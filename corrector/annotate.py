"""`python -m corrector.annotate`: sentence-level correction pairs from problems, an upstream and an annotator.

The upstream writes a sentence, the annotator corrects it, and the upstream goes on from the corrected answer. The pairs
are in the fields of Stream Aligner's release and load by `--task jsonl --data <run>/pairs.jsonl`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm.auto import tqdm

from corrector import tasks
from corrector.annotators import (
    Annotator,
    ModelAnnotator,
    RuleAnnotator,
    ServerAnnotator,
    make,
    pairs_of,
    read_instruction,
    statistics_of,
)
from corrector.annotators.questions import Questions
from corrector.annotators.shares import REWRITTEN
from corrector.errors import UserError, run_cli
from corrector.models import load
from corrector.records import WAITING, RunFolder, default_name
from corrector.records.blocks import Blocks
from corrector.records.canonical import canonical
from corrector.records.kept import Kept
from corrector.records.rowfiles import complete_rows
from corrector.servers.chat import Chat, Server, Traffic, traffic_line
from corrector.tasks.base import Split, Task
from corrector.upstreams import Served, ServerUpstream, upstream_of

ROWS, PAIRS = "annotations", "pairs"
LINE = 120
"""Characters of a line of the tables where they are not printed to a terminal."""


@dataclass(frozen=True)
class Annotate:
    """Make correction pairs; the same command again resumes and pays for nothing twice."""

    task: str = "dialogue"
    """Where the questions come from: a name of corrector.tasks.NAMES (dialogue, gsm8k, jsonl, hh-rlhf, ...)."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    questions: Path = Path()
    """JSONL file of bare questions (fields question or prompt, or HH-RLHF's) to take in place of a task's."""
    problems: int = 100
    """Questions to answer."""
    split: Split = "train"
    """Which questions they are drawn from."""
    upstream: str = ""
    """Upstream (reference, folder, hub id, `replay` of recorded answers, or `server`); empty: the task's own."""
    upstream_server: Served = field(default=Served())
    """upstream server: where and what it is."""
    temperature: float | None = None
    """The upstream's temperature, 0 is greedy; None: the task's own."""
    template: str = ""
    """Prompt template of models whose card names none."""
    annotator: Literal["rule", "model", "server"] = "rule"
    """rule: the task's own; model: a local corrector or language model; server: a chat server."""
    model: str = ""
    """model: a reference, folder or hub id."""
    prompt: Literal["auto", "corrector", "instruction"] = "auto"
    """model: how it is asked; auto: as a corrector where its card says it is one, else by instruction."""
    instruction: Path = Path()
    """model, server: text file with the instruction; default: rewrite the bad, improve the neutral, keep the good."""
    server: Server = field(default=Server())
    """annotator server: where and what it is."""
    traffic: Traffic = field(default=Traffic(), metadata={"identity": False})
    """How servers are asked."""
    drop_failed: bool = field(default=False, metadata={"identity": False})
    """server: finish without the answers in which a request failed, instead of asking again by the next command."""
    max_rounds: int = 12
    """Sentences of an answer at most."""
    max_tokens: int = 512
    """Tokens of an answer at most, counted by the upstream's tokenizer."""
    seed: int = 0
    """Seed of the choice of problems, of the upstream's draws and of the rules'."""
    batch_size: int = 64
    """Answers that grow together, and problems between two writes."""
    device: str = field(default="cpu", metadata={"identity": False})
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run; default runs/annotate-<hash of this configuration>."""


def run(config: Annotate) -> dict[str, Any]:
    """Make what was not made yet, write annotations.jsonl and pairs.jsonl, print and return the statistics."""
    limits = {name: getattr(config, name) for name in ("problems", "max_rounds", "max_tokens", "batch_size")}
    if low := [f"{name}={n} is below 1" for name, n in limits.items() if n < 1]:
        raise UserError(f"{low[0]}; choose --{low[0].split('=')[0].replace('_', '-')} 1 or more")
    task = Questions(config.questions) if config.questions != Path() else tasks.get(config.task, config.data)
    if isinstance(task, Questions) and not config.upstream:
        raise UserError(f"nobody answered the questions of {config.questions} yet; give --upstream a model")
    problems = task.problems(config.split, config.problems, config.seed)
    out = Path("runs") / default_name("annotate", config) if config.out == Path() else config.out
    with ExitStack() as stack:
        kept = Kept(out / "replies")
        annotator = annotator_of(config, task, kept, stack)
        upstream = upstream_of(config, task, problems, kept)
        folder = stack.enter_context(RunFolder(out, config, config.device))
        asked = hashlib.sha256(canonical([(p.id, p.question, p.gold) for p in problems]).encode()).hexdigest()
        folder.write_once("inputs", {"instruction": getattr(annotator, "instruction", ""), "problems": asked})
        blocks = Blocks(folder, ROWS, [1] * len(problems))
        todo, failed = blocks.missing, 0
        with tqdm(total=len(problems), initial=len(problems) - len(todo), desc="annotating", unit="problem") as bar:
            for start in range(0, len(todo), config.batch_size):
                chunk = todo[start : start + config.batch_size]
                made = make([problems[i] for i in chunk], upstream, annotator, config.max_rounds, config.max_tokens)
                for i, m in zip(chunk, made, strict=True):
                    if m.failed and not config.drop_failed:
                        failed += 1
                    else:
                        blocks.add(i, [m.row()])
                bar.update(len(chunk))
        rows = rows_so_far(folder)
        statistics = statistics_of(rows, config.seed) if rows else {}
        if not failed and not folder.done:
            pairs = [pair for row in rows for pair in pairs_of(row)]
            if not pairs:
                reasons = ", ".join(f"{k} {n}" for k, n in statistics["dropped"].items()) or "no sentence was written"
                raise UserError(f"no pair could be made of {len(rows)} answers ({reasons}); see {out}/{ROWS}.jsonl")
            folder.append(PAIRS, pairs[folder.count(PAIRS) :])
            folder.expect(PAIRS, len(pairs))
            folder.write_once("statistics", statistics)
            folder.finish()
    if statistics:
        show(statistics)
    if said := annotator.said():
        print(said)
    if isinstance(upstream, ServerUpstream):
        print("upstream " + traffic_line(upstream.counts))
    if failed:
        print(f"{failed} answers wait for requests that failed; the same command again asks for these only")
    else:
        print(f"pairs are in {out}/{PAIRS}.jsonl")
    return statistics


def annotator_of(config: Annotate, task: Task, kept: Kept, stack: ExitStack) -> Annotator:
    """The annotator that a configuration names."""
    if config.annotator == "rule":
        if type(task).annotate is Task.annotate:
            raise UserError(
                f"task={task.name!r} has no annotator of its own, since nothing says what is right in its sentences; "
                "choose --annotator model or server"
            )
        return RuleAnnotator(task, config.seed)
    if config.annotator == "server":
        chat = stack.enter_context(Chat(config.server, config.traffic, kept))
        return ServerAnnotator(chat, read_instruction(config.instruction))
    if not config.model:
        raise UserError("--annotator model needs a model; name a corrector or language model by --model")
    lm = load(config.model, config.template, config.device, config.dtype)
    corrector = config.prompt == "corrector" or (config.prompt == "auto" and lm.card.get("role") == "corrector")
    instruction = "" if corrector else read_instruction(config.instruction)
    return ModelAnnotator(lm, task.max_sentence_tokens, instruction, config.batch_size)


def rows_so_far(folder: RunFolder) -> list[dict[str, Any]]:
    """The answers that are finished, also those that wait for their turn in the file."""
    waiting = sorted((folder.path / f"{ROWS}{WAITING}").glob("*.jsonl"))
    return [*folder.rows(ROWS), *(row for file in waiting for row in complete_rows(file)[0])]


def show(statistics: Mapping[str, Any]) -> None:
    """Print the shares of all pairs with intervals, those of each round, and what was dropped."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, LINE)
    if statistics["pairs"]:
        table = Table("of all pairs", "mean", "95 % interval", "questions")
        for name, label in LABELS.items():
            if name in statistics["all"]:
                table.add_row(label, *_cells(statistics["all"][name]))
        console.print(table)
        table = Table("round", "pairs", "copy", "improve", "rewrite", "edit ratio", "quartiles", "EOS")
        for k, of in [("all", statistics["all"]), *statistics["rounds"].items()]:
            means = [f"{of[name]['mean']:.3f}" for name in ("copy", "improve", "rewrite", "edit_ratio")]
            quartiles = "/".join(f"{q:.2f}" for q in of["edit_ratio"]["quartiles"])
            table.add_row(k, str(of["n"]), *means, quartiles, f"{of['eos']['mean']:.3f}")
        console.print(table)
    print(f"{statistics['pairs']} pairs of {statistics['problems']} questions")
    for name in ("stopped", "dropped"):
        if counts := statistics[name]:
            said = ", ".join(f"{reason} {n}" for reason, n in counts.items())
            console.print(escape(f"{name} by {said}" if name == "stopped" else f"sentences left out: {said}"))


LABELS = {
    "copy": "copied",
    "improve": f"improved (norm_distance < {REWRITTEN})",
    "rewrite": f"rewritten (norm_distance >= {REWRITTEN})",
    "is_wrong": "wrong, where it is known",
    "eos": "answer complete (EOS)",
    "edit_ratio": "edit ratio",
}


def _cells(of: Mapping[str, Any]) -> Sequence[str]:
    interval = "" if of["low"] is None else f"{of['low']:.3f} .. {of['high']:.3f}"
    return f"{of['mean']:.3f}", interval, str(of["n"])


if __name__ == "__main__":
    run_cli(Annotate, run, "corrector.annotate")
