"""Answers of every method to the same problems, as a run folder; `analysis.methods` reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.experiments.standins import SHIPPED, refusal
from analysis.experiments.systems import (
    UNTRAINED,
    Method,
    Stage,
    best_of,
    chosen_alpha,
    names,
    outcomes_of,
    sizes,
    trained,
)
from corrector import tasks
from corrector.decoding.proxy import proxy
from corrector.errors import UserError
from corrector.loop import Alignment
from corrector.records import RunFolder, default_name, read_rows
from corrector.records.canonical import SIGNIFICANT_DIGITS, to_plain
from corrector.tasks.base import Problem, Split
from corrector.upstreams import LocalUpstream, upstream_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Methods:
    """Compare correctors and their rivals on the same problems (Fig 7); the same command again resumes."""

    task: str = "dialogue"
    """dialogue or arithmetic; other tasks need --checkpoint for every method and seed."""
    method: tuple[Method, ...] = ("upstream", "best-of-n", "stream", "aligner", "sft", "dpo", "proxy")
    """What answers; upstream is what all are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Training seeds of every trained method."""
    checkpoint: tuple[str, ...] = ()
    """Models of your own, as METHOD-SEED=REF, such as stream-0=runs/mine; proxy has expert-SEED and antiexpert-SEED."""
    cache: Path = field(default=Path(), metadata={"identity": False})
    """Finished run of this command whose rows stand in for models that are not here; default the one that ships."""
    retrain: bool = field(default=False, metadata={"identity": False})
    """Train what runs/ does not hold yet (hours), and use no shipped baseline and no cached row."""
    partial: bool = False
    """Leave out a method's training seeds that are neither here nor cached, and say so, instead of refusing."""
    problems: int = 200
    """Problems."""
    split: Split = "test"
    """Which questions they are drawn from."""
    validation: int = 80
    """Validation problems that choose proxy-tuning's alpha."""
    alphas: tuple[float, ...] = (0.25, 0.4, 0.6, 1.0)
    """Weights of expert less antiexpert to choose from; 1 is the published one."""
    n: int = 8
    """Answers that best-of-n chooses from."""
    sampling: float = 0.7
    """Temperature at which they are drawn."""
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
    """Seed of the choice of problems, of the draws and of the bootstrap."""
    batch_size: int = field(default=64, metadata={"identity": False})
    """Rows decoded together."""
    device: str = field(default="cpu", metadata={"identity": False})
    """Torch device, such as cpu or cuda."""
    dtype: str = "float32"
    """Precision of the models: float32, bfloat16 or float16."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the run; default runs/methods-<hash of this configuration>."""


@dataclass(frozen=True)
class Entry:
    """A method with its training seed (0 where nothing is trained) and where its checkpoints are, None: nowhere."""

    method: Method
    seed: int
    refs: tuple[str, ...] | None


def run(config: Methods) -> Path:
    """Let every method answer; answers.jsonl, systems.jsonl (one row a method and seed), DONE. Returns the folder."""
    if config.problems < 2 or not config.seeds or "upstream" not in config.method:
        raise UserError(
            f"problems={config.problems}, seeds={config.seeds}, method={config.method}; choose 2 problems, a seed and "
            "the method upstream at least"
        )
    out = Path("runs") / default_name("methods", config) if config.out == Path() else config.out
    with RunFolder(out, config, config.device) as folder:
        if folder.done:
            return out
        task = tasks.get(config.task, config.data)
        problems = task.problems(config.split, config.problems, config.seed)
        entries = list(_entries(config))
        cache = _cache(config, [p.id for p in problems], [e for e in entries if e.refs is None])
        entries = [e for e in entries if e.refs is not None or _key(e) in cache]
        stage = stage_of(config, problems)
        for i, entry in enumerate(entries):
            if folder.count("systems") > i:
                continue
            told, rows = _answered(config, stage, problems, entry) if entry.refs is not None else cache[_key(entry)]
            folder.append("answers", rows[max(folder.count("answers") - i * config.problems, 0) :])
            folder.append("systems", [to_plain(told, "systems", SIGNIFICANT_DIGITS)])
            print(f"{i + 1} of {len(entries)}: {entry.method} {entry.seed} ({told['source']})", flush=True)
        folder.expect("answers", len(entries) * config.problems)
        folder.finish()
    return out


def _entries(config: Methods) -> Iterator[Entry]:
    given = dict(_given(config))
    for method in dict.fromkeys(config.method):
        for seed in (0,) if method in UNTRAINED else config.seeds:
            wanted = names(method, config.task, seed)
            keys = [f"{m}-{seed}" for m in (("expert", "antiexpert") if method == "proxy" else (method,))]
            refs = [
                given.get(key) or trained(name, config.retrain)
                for key, name in zip(keys if wanted else (), wanted, strict=True)
            ]
            yield Entry(method, seed, None if None in refs else tuple(r for r in refs if r))


def _given(config: Methods) -> Iterator[tuple[str, str]]:
    for text in config.checkpoint:
        key, is_there, ref = text.partition("=")
        method, _, seed = key.rpartition("-")
        if not is_there or not ref or not seed.isdigit() or not method:
            raise UserError(f"--checkpoint {text!r} is not METHOD-SEED=REF; write for example stream-0=runs/mine")
        yield key, ref


def _cache(config: Methods, problems: list[str], absent: list[Entry]) -> dict[tuple[str, int], tuple[Row, list[Row]]]:
    """Systems and answers of a finished run for the entries without checkpoint; UserError where it lacks one.

    With `partial` those that it lacks are not there.
    """
    if not absent:
        return {}
    folder = SHIPPED / f"methods-{config.task}" if config.cache == Path() else config.cache
    out, reason = _cached(config, problems, folder)
    if (missing := [e for e in absent if _key(e) not in out]) and not config.partial:
        raise UserError(
            f"no checkpoint of {', '.join(f'{e.method} {e.seed}' for e in missing)}, and {reason}; train them by "
            "--retrain, name them by --checkpoint, choose fewer by --method and --seeds, or leave them out by --partial"
        )
    return {_key(e): out[_key(e)] for e in absent if _key(e) in out}


def _cached(
    config: Methods, problems: list[str], folder: Path
) -> tuple[dict[tuple[str, int], tuple[Row, list[Row]]], str]:
    """What a finished run has for these problems, by method and seed, and why it lacks the others."""
    if reason := refusal(folder, config, ("method", "seeds", "partial")):
        return {}, reason
    answers = read_rows(folder, "answers")
    out: dict[tuple[str, int], tuple[Row, list[Row]]] = {}
    for told in read_rows(folder, "systems"):
        key = (told["method"], told["seed"])
        rows = [r for r in answers if (r["method"], r["seed"]) == key]
        if [r["problem"] for r in rows] == problems:
            out[key] = ({**told, "source": "cache"}, rows)
    return out, f"no answers of it in {folder}"


def _key(entry: Entry) -> tuple[str, int]:
    return entry.method, entry.seed


def stage_of(config: Methods, problems: list[Problem]) -> Stage:
    """The task and upstream of a configuration; UserError where the upstream is no model in this process."""
    task = tasks.get(config.task, config.data)
    upstream = upstream_of(config, task, problems)
    if not isinstance(upstream, LocalUpstream):
        raise UserError(f"upstream={config.upstream!r} is no model in this process, which best-of-n and proxy read")
    return Stage(task, upstream, config.max_rounds, config.max_tokens, config.template, config.device, config.dtype)


def _answered(config: Methods, stage: Stage, problems: list[Problem], entry: Entry) -> tuple[Row, list[Row]]:
    """What is said of a system, and its answers."""
    models = [stage.load(ref) for ref in entry.refs or ()]
    extra: Row = {}
    mode = entry.method if entry.method in ("stream", "aligner") else "upstream"
    if entry.method == "best-of-n":
        answers = best_of(stage, problems, config.n, config.sampling)
        extra = {"n": config.n, "temperature": config.sampling}
    elif entry.method == "proxy":
        chosen_on = stage.task.problems("validation", config.validation, config.seed)
        alpha, sums = chosen_alpha(stage, models, config.alphas, chosen_on)
        extra = {"alpha": alpha, "validation": sums}
        answers = stage.answers(problems, mode, proxy(stage.upstream.lm, models[0], models[1], alpha))
    else:
        answers = stage.answers(problems, mode, models[0] if models else None)
    told: Row = {
        **{"method": entry.method, "seed": entry.seed, "source": "run"},
        **{"models": list(entry.refs or ()), "upstream": stage.upstream.lm.ref, **sizes(stage, models, mode)},
        "model_organism": any(bool(lm.card.get("model_organism")) for lm in [stage.upstream.lm, *models]),
        "data": [str(lm.card.get("answers_hash", "")) for lm in models],
        **extra,
    }
    return told, [_row(stage, entry, answer) for answer in answers]


def _row(stage: Stage, entry: Entry, answer: Alignment) -> Row:
    tokens = stage.upstream.lm.tokenizer(answer.answer, add_special_tokens=False)["input_ids"]
    return {
        **{"method": entry.method, "seed": entry.seed, "problem": answer.problem.id},
        **{"outcomes": outcomes_of(stage.task, answer), "tokens": len(tokens), "sentences": len(answer.rounds)},
        **{"stopped": answer.stopped, "answer": answer.answer},
    }
