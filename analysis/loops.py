"""Answers of the align loop by the number of corrected rounds, as a run folder; `analysis.rounds` reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from corrector import tasks
from corrector.errors import UserError
from corrector.loop import Alignment, align
from corrector.models import ALIASES, LanguageModel, load
from corrector.records import RunFolder, default_name
from corrector.records.canonical import SIGNIFICANT_DIGITS, to_plain
from corrector.records.kept import Kept
from corrector.servers.endpoint import Traffic
from corrector.tasks.base import Problem, Split, Task
from corrector.upstreams import LocalUpstream, Served, ServerUpstream, Upstream, upstream_of

LoopMode = Literal["stream", "continue"]


@dataclass(frozen=True)
class Rounds:
    """Outcome, win rate and length of answers by corrected rounds (Fig 3, 4 and 5); the same command again resumes."""

    task: tuple[str, ...] = ("dialogue", "arithmetic")
    """Tasks."""
    corrector: tuple[str, ...] = ()
    """Correctors (reference, folder or hub id), each for the task that its name begins with, or for the one task that
    is given; empty: each task's reference."""
    mode: tuple[LoopMode, ...] = ("stream",)
    """stream: the upstream goes on after the last corrected round; continue: the corrector does."""
    rounds: int = 6
    """R: corrected rounds are 0, 1, ..., R and all."""
    problems: int = 100
    """Problems of each task."""
    split: Split = "test"
    """Which questions they are drawn from."""
    data: str = ""
    """Local path or hub id for the tasks that read data."""
    upstream: str = ""
    """Upstream (reference, folder, hub id, `replay` of recorded answers, or `server`); empty: the task's own."""
    upstream_server: Served = field(default=Served())
    """server: where and what it is."""
    traffic: Traffic = field(default=Traffic(), metadata={"identity": False})
    """server: how it is asked."""
    template: str = ""
    """Prompt template of models whose card names none."""
    temperature: float | None = None
    """The upstream's temperature, 0 is greedy; None: the task's own."""
    max_rounds: int = 12
    """Sentences of an answer at most."""
    max_tokens: int = 512
    """Tokens of an answer at most."""
    seed: int = 0
    """Seed of the choice of problems, of the upstream's draws and of the bootstrap."""
    block: int = 25
    """Problems between two writes."""
    batch_size: int = field(default=64, metadata={"identity": False})
    """Rows decoded together."""
    device: str = field(default="cpu", metadata={"identity": False})
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run; default runs/rounds-<hash of this configuration>."""


@dataclass(frozen=True)
class Bed:
    """A task with its problems, upstream and one corrector."""

    task: Task
    problems: list[Problem]
    upstream: Upstream
    corrector: LanguageModel


def by_task(given: Sequence[str], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The correctors of each task: all where one task is given, else by the beginning of their names.

    Raises UserError for a corrector that belongs to none of several tasks.
    """
    if not names:
        raise UserError("no task was given; choose --task dialogue arithmetic, or one of them")
    if not given:
        return {name: (ALIASES.get(name, name),) for name in names}
    if len(names) == 1:
        return {names[0]: tuple(given)}
    out: dict[str, tuple[str, ...]] = {name: () for name in names}
    for ref in given:
        if (task := next((n for n in names if Path(ref).name.startswith(n)), None)) is None:
            raise UserError(f"corrector {ref!r} begins with none of {', '.join(names)}; give it with its --task alone")
        out[task] += (ref,)
    if bare := [name for name, refs in out.items() if not refs]:
        raise UserError(f"task {bare[0]} has no corrector among {', '.join(given)}; give one, or leave the task out")
    return out


def beds(config: Any, kept: Kept | None = None) -> Iterator[tuple[str, Bed]]:
    """Each task and corrector of a configuration, loaded in turn.

    `config` is a Rounds, or has its fields that name tasks, models and problems; what a server writes is `kept`.
    """
    for name, refs in by_task(config.corrector, config.task).items():
        task = tasks.get(name, config.data)
        problems = task.problems(config.split, config.problems, config.seed)
        upstream = upstream_of(config, task, problems, kept)
        for ref in refs:
            yield name, Bed(task, problems, upstream, load(ref, config.template, config.device, config.dtype))


def about(name: str, bed: Bed) -> dict[str, Any]:
    """What a run records of a task and corrector."""
    upstream = bed.upstream
    known: dict[str, Any] = {}
    if isinstance(upstream, LocalUpstream):
        known = {"upstream": upstream.lm.ref, "temperature": upstream.temperature}
    elif isinstance(upstream, ServerUpstream):
        known = {"upstream": upstream.served.model, "temperature": upstream.temperature}
    return {
        **{"task": name, "corrector": bed.corrector.ref, "outcomes": list(bed.task.outcomes)},
        **{"n_parameters": int(bed.corrector.model.num_parameters())},
        "model_organism": bool(bed.corrector.card.get("model_organism")),
        **known,
    }


def run(config: Rounds) -> Path:
    """Answer every problem with 0..R and all rounds corrected; answers.jsonl, about.json, DONE. Returns the folder.

    A row is a task, corrector, mode, problem and `k` (None: all rounds), with outcomes and length. One call of the
    loop serves all k of a block of problems, which share what they have in common.
    """
    if config.rounds < 1 or config.problems < 2 or config.block < 1 or not config.mode:
        raise UserError(
            f"rounds={config.rounds}, problems={config.problems}, block={config.block}, mode={config.mode}; choose 1, "
            "2 and 1 at least, and a mode"
        )
    out = Path("runs") / default_name("rounds", config) if config.out == Path() else config.out
    ks = [*range(config.rounds + 1), None]
    refs = by_task(config.corrector, config.task)
    with RunFolder(out, config, config.device) as folder:
        total = sum(map(len, refs.values())) * len(config.mode) * config.problems * len(ks)
        folder.expect("answers", total)
        if folder.done:
            return out
        told: list[dict[str, Any]] = []
        at = 0
        for name, bed in beds(config, Kept(out / "replies")):
            told.append(about(name, bed))
            for mode in config.mode:
                for start in range(0, config.problems, config.block):
                    problems = bed.problems[start : start + config.block]
                    n = len(problems) * len(ks)
                    if (done := folder.count("answers")) < at + n:
                        rows = _rows(name, bed, mode, problems, ks, config)
                        folder.append("answers", rows[max(done - at, 0) :])
                    at += n
        folder.write_once("about", to_plain({"correctors": told}, "about", SIGNIFICANT_DIGITS))
        folder.finish()
    return out


def _rows(
    name: str, bed: Bed, mode: LoopMode, problems: list[Problem], ks: list[int | None], config: Rounds
) -> list[dict[str, Any]]:
    each = [p for p in problems for _ in ks]
    answers = align(
        each,
        bed.upstream,
        bed.corrector,
        task=bed.task,
        mode=mode,
        rounds=[k for _ in problems for k in ks],
        max_rounds=config.max_rounds,
        max_tokens=config.max_tokens,
        batch_size=config.batch_size,
        progress=f"{name}, {bed.corrector.ref}, {mode}",
    )
    of = [k for _ in problems for k in ks]
    same = {"task": name, "corrector": bed.corrector.ref, "mode": mode}
    return [{**same, "k": k, **row(a, tokenizer(bed))} for k, a in zip(of, answers, strict=True)]


def row(answer: Alignment, tokens: Any) -> dict[str, Any]:
    """The outcomes and the length of an answer."""
    n = len(tokens(answer.answer, add_special_tokens=False)["input_ids"])
    corrected = [r for r in answer.rounds if r.correction is not None]
    return {
        **{"problem": answer.problem.id, "outcomes": answer.outcomes, "tokens": n, "sentences": len(answer.rounds)},
        **{"corrected": len(corrected), "edited": sum(r.correction != r.last for r in corrected)},
        **{"stopped": answer.stopped, "answer": answer.answer},
    }


def tokenizer(bed: Bed) -> Any:
    """The upstream's, so that correctors are measured alike; the corrector's where answers are replayed."""
    return (bed.upstream.lm if isinstance(bed.upstream, LocalUpstream) else bed.corrector).tokenizer
