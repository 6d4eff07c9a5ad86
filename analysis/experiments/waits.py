"""How long one waits for Stream Aligner and for Aligner, as a run folder; `analysis.latency` reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import trange

from analysis.experiments.meter import metered
from corrector import tasks
from corrector.decoding import EVERY, PLAIN, Tricks, decode
from corrector.errors import UserError
from corrector.loop import Alignment, Mode, align
from corrector.models import LanguageModel, load
from corrector.records import RunFolder, default_name
from corrector.records.canonical import SIGNIFICANT_DIGITS, to_plain
from corrector.tasks.base import Problem, Split, Task
from corrector.upstreams import LocalUpstream, Request, ask, upstream_of

Kind = Literal["stream", "aligner"]
KINDS: tuple[Kind, ...] = ("stream", "aligner")
Row = dict[str, Any]


@dataclass(frozen=True)
class Latency:
    """Time to the first corrected token, and time a token, of Stream Aligner and Aligner, one problem at a time.

    Rows are measurements: a second run gives other seconds. The same command again resumes.
    """

    task: str = "dialogue"
    """Task."""
    stream: str = "dialogue-0"
    """Corrector of sentences (reference, folder or hub id)."""
    aligner: str = "dialogue-aligner-0"
    """Corrector of whole answers, of the same size."""
    lengths: tuple[int, ...] = (0, 100, 300)
    """Tokens by which the question is made longer, for prompts of several lengths."""
    decoding: tuple[Literal["fast", "plain"], ...] = ("fast", "plain")
    """The lab's decoder, and plain cached decoding."""
    problems: int = 40
    """Problems at each length."""
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
    seed: int = 0
    """Seed of the choice of problems, of the upstream's draws and of the bootstrap."""
    device: str = "cpu"
    """Torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the models."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run; default runs/latency-<hash of this configuration>."""

    @property
    def batch_size(self) -> int:
        """Rows decoded together."""
        return 1


@dataclass(frozen=True)
class Bench:
    """The models whose answers are waited for."""

    task: Task
    upstream: LocalUpstream
    correctors: dict[Kind, LanguageModel]
    config: Latency

    def answer(self, problem: Problem, mode: Mode, lm: LanguageModel | None, tricks: Tricks) -> Alignment:
        """One problem's answer by the loop."""
        (found,) = align(
            [problem],
            replace(self.upstream, tricks=tricks),
            lm,
            task=self.task,
            mode=mode,
            max_rounds=self.config.max_rounds,
            max_tokens=self.config.max_tokens,
            batch_size=1,
            tricks=tricks,
        )
        return found


def run(config: Latency) -> Path:
    """Measure every problem with both methods at every length, interleaved; waits.jsonl, about.json, DONE.

    A row is a method, way of decoding, length and problem: `first` and `whole` in seconds (to the first token of the
    first correction, to the end of the answer), tokens of the answer, of the question, and those that the upstream
    wrote before the corrector could begin.
    """
    if config.problems < 2 or not config.lengths or not config.decoding or min(config.lengths) < 0:
        raise UserError(
            f"problems={config.problems}, lengths={config.lengths}, decoding={config.decoding}; choose 2 problems, a "
            "length of 0 or more and a decoding at least"
        )
    out = Path("runs") / default_name("latency", config) if config.out == Path() else config.out
    cells = [(how, n) for how in config.decoding for n in config.lengths]
    each = len(cells) * len(KINDS)
    with RunFolder(out, config, config.device) as folder:
        folder.expect("waits", each * config.problems)
        if folder.done:
            return out
        task = tasks.get(config.task, config.data)
        problems = task.problems(config.split, config.problems, config.seed)
        upstream = upstream_of(config, task, problems)
        if not isinstance(upstream, LocalUpstream):
            raise UserError(f"upstream={config.upstream!r} is no model in this process; choose one, since it is timed")
        models = (load(ref, config.template, config.device, config.dtype) for ref in (config.stream, config.aligner))
        bench = Bench(task, upstream, dict(zip(KINDS, models, strict=True)), config)
        for how in config.decoding:  # what runs first pays for what runs once
            _rows(bench, problems, 0, [(how, 0)])
        for i in trange(len(problems), desc="latency", unit="problem"):
            if folder.count("waits") < (i + 1) * each:
                rows = _rows(bench, problems, i, cells)
                folder.append("waits", rows[max(folder.count("waits") - i * each, 0) :])
        folder.write_once("about", to_plain(_about(bench), "about", SIGNIFICANT_DIGITS))
        folder.finish()
    return out


def _about(bench: Bench) -> Row:
    models = {kind: lm.ref for kind, lm in bench.correctors.items()}
    sizes = {kind: int(lm.model.num_parameters()) for kind, lm in bench.correctors.items()}
    organism = any(bool(lm.card.get("model_organism")) for lm in bench.correctors.values())
    return {"models": models, "n_parameters": sizes, "upstream": bench.upstream.lm.ref, "model_organism": organism}


def lengthened(problem: Problem, n_tokens: int, tokens: Callable[[str], int]) -> Problem:
    """The problem with its own question said again, without the first word, until it is `n_tokens` longer or more.

    Words of its own, since a closed vocabulary may know no other sentence behind it. UserError for one word.
    """
    _, _, rest = problem.question.partition(" ")
    if n_tokens and not rest:
        raise UserError(f"question {problem.question!r} is one word and cannot be made longer; choose --lengths 0")
    text = problem.question
    while tokens(text) < tokens(problem.question) + n_tokens:
        text += f" {rest}"
    return replace(problem, question=text)


def _rows(bench: Bench, problems: list[Problem], i: int, cells: list[tuple[str, int]]) -> list[Row]:
    out: list[Row] = []
    for how, n in cells:
        problem = lengthened(problems[i], n, lambda text: _count(bench.upstream.lm, text))
        tricks = Tricks.of(EVERY) if how == "fast" else PLAIN
        for kind in KINDS if i % 2 else KINDS[::-1]:  # in turn, so that neither always runs behind the other
            out.append({"method": kind, "decoding": how, "length": n, **_waited(bench, kind, problem, tricks)})
    return out


def _waited(bench: Bench, kind: Kind, problem: Problem, tricks: Tricks) -> Row:
    upstream, lm = replace(bench.upstream, tricks=tricks), bench.correctors[kind]
    models = [upstream.lm, lm]
    with metered(models) as first:
        if kind == "stream":
            written = (ask(upstream, [Request(problem, "", 0)])[0] or "").strip()
        else:
            written = bench.answer(problem, "upstream", None, tricks).answer.strip()
        prompt = lm.encode(problem.question, "", written)
        decode(lm, [prompt], max_new_tokens=1, batch_size=1, tricks=tricks)
    with metered(models) as whole:
        answer = bench.answer(problem, kind, lm, tricks)
    return {
        **{"problem": problem.id, "first": first.seconds, "whole": whole.seconds, "stopped": answer.stopped},
        **{"question_tokens": _count(upstream.lm, problem.question), "waited_tokens": _count(upstream.lm, written)},
        **{"tokens": _count(upstream.lm, answer.answer), "sentences": len(answer.rounds)},
    }


def _count(lm: LanguageModel, text: str) -> int:
    return len(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
