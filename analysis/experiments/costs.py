"""Outcome and cost of the loop by corrector size and corrected rounds, as a run folder; `analysis.sizes` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tqdm.auto import tqdm

from analysis.experiments.meter import metered
from analysis.experiments.standins import SHIPPED, refusal
from analysis.experiments.systems import trained
from analysis.loops import Bed, about, beds, row
from corrector.decoding import EVERY, Trick, Tricks
from corrector.errors import UserError
from corrector.loop import align
from corrector.recipes import KNOWN
from corrector.records import RunFolder, default_name, read_json, read_rows
from corrector.records.canonical import SIGNIFICANT_DIGITS, to_plain
from corrector.tasks.base import Problem, Split
from corrector.upstreams import LocalUpstream

MINIATURES = ("arithmetic-s", "arithmetic-m", "arithmetic-l")


@dataclass(frozen=True)
class Sizes:
    """Gain against inference cost by corrector size and corrected rounds (Fig 6); the same command again resumes.

    One problem at a time, as for one who waits. Rows are measurements: a second run gives other seconds.
    """

    task: tuple[str, ...] = ("arithmetic",)
    """One task."""
    corrector: tuple[str, ...] = tuple(",".join((size, f"{size}-1", f"{size}-2")) for size in MINIATURES)
    """Correctors of different size; training seeds of one size joined by commas, its name first. Each is a reference,
    a recipe trained in runs/, a folder or a hub id."""
    rounds: int = 4
    """R: corrected rounds are 0, 1, ..., R and all."""
    cache: Path = field(default=Path(), metadata={"identity": False})
    """Finished run of this command whose answers stand in, without its seconds, for recipes that are not here; default
    the one that ships."""
    retrain: bool = field(default=False, metadata={"identity": False})
    """Train what runs/ does not hold yet (hours), and use no shipped corrector and no cached answer."""
    problems: int = 200
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
    def stand_in(self) -> Path:
        """The run of `cache`."""
        return SHIPPED / "sizes" if self.cache == Path() else self.cache

    @property
    def batch_size(self) -> int:
        """Rows decoded together."""
        return 1


@dataclass(frozen=True)
class Entry:
    """A corrector of a size, both by the names that were given, and where it is; None: nowhere."""

    size: str
    name: str
    ref: str | None


def run(config: Sizes) -> Path:
    """Answer every problem with every corrector and number of rounds, interleaved; answers.jsonl, about.json, DONE.

    A row is a size, corrector, `k` (None: all rounds) and problem, with outcomes, `seconds`, and the tokens fed to the
    upstream and to the corrector. Rows of a stand-in have no seconds: those of another machine compare with none here.
    """
    if config.rounds < 1 or config.problems < 2 or len(config.task) != 1 or not config.corrector:
        raise UserError(
            f"rounds={config.rounds}, problems={config.problems}, task={config.task}, corrector={config.corrector}; "
            "choose 1 and 2 at least, one task, and a corrector"
        )
    out = Path("runs") / default_name("sizes", config) if config.out == Path() else config.out
    ks = [*range(config.rounds + 1), None]
    with RunFolder(out, config, config.device) as folder:
        if folder.done:
            return out
        entries = _entries(config)
        each = len(entries) * len(ks)
        folder.expect("answers", each * config.problems)
        cached = _cached(config, [e.name for e in entries if e.ref is None])
        here = {e.name: e.ref for e in entries if e.ref is not None}
        if not here:
            raise UserError(f"none of {', '.join(config.corrector)} is here, so nothing can be measured; train one")
        loaded = [bed for _, bed in beds(replace(config, corrector=tuple(here.values())))]
        at = dict(zip(here, loaded, strict=True))
        problems = loaded[0].problems
        _answer(loaded[0], problems[0], None, config)  # what runs first pays for what runs once
        for i, problem in enumerate(tqdm(problems, desc="sizes", unit="problem")):
            if folder.count("answers") >= (i + 1) * each:
                continue
            rows = [
                {"size": e.size, "corrector": e.name, "k": k}
                | (_answer(at[e.name], problem, k, config) if e.ref else cached[e.name, k, problem.id])
                for e in entries
                for k in ks
            ]
            folder.append("answers", rows[max(folder.count("answers") - i * each, 0) :])
        told = [_told(config, e, at.get(e.name)) for e in entries]
        folder.write_once("about", to_plain({"correctors": told}, "about", SIGNIFICANT_DIGITS))
        folder.finish()
    return out


def _entries(config: Sizes) -> list[Entry]:
    """Every corrector that is asked for; a name of no recipe is taken as a model's own. UserError where one repeats."""
    groups = [[name for name in of.split(",") if name] for of in config.corrector]
    flat = [name for of in groups for name in of]
    if len(set(flat)) < len(flat) or not all(groups):
        raise UserError(f"corrector={config.corrector} names one twice, or none; give every corrector once")
    return [
        Entry(of[0], name, trained(name, config.retrain) if name in KNOWN else name) for of in groups for name in of
    ]


def _cached(config: Sizes, absent: Sequence[str]) -> dict[tuple[str, int | None, str], dict[str, Any]]:
    """Rows of a finished run for what is not here, by corrector, k and problem; UserError where it has none."""
    if not absent:
        return {}
    reason = refusal(config.stand_in, config, ("corrector",))
    rows = [] if reason else read_rows(config.stand_in, "answers")
    if missing := [name for name in absent if name not in {r["corrector"] for r in rows}]:
        raise UserError(
            f"no checkpoint of {', '.join(missing)}, and {reason or f'no answers of it in {config.stand_in}'}; train "
            "them by --retrain, or leave them out of --corrector"
        )
    return {
        (r["corrector"], r["k"], r["problem"]): {**{key: r[key] for key in r if key != "size"}, "seconds": None}
        for r in rows
        if r["corrector"] in absent
    }


def _told(config: Sizes, entry: Entry, bed: Bed | None) -> dict[str, Any]:
    """What the run records of a corrector; of a stand-in what its own run recorded."""
    if bed is not None:
        known = about(config.task[0], bed)
        return {**known, "n_upstream": _upstream_size(bed), **_named(entry, "run"), "model": bed.corrector.ref}
    (known,) = (c for c in read_json(config.stand_in, "about")["correctors"] if c["corrector"] == entry.name)
    return {**known, **_named(entry, "cache")}


def _named(entry: Entry, source: str) -> dict[str, str]:
    return {"size": entry.size, "corrector": entry.name, "source": source}


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
    return {**row(answer, upstream.lm.tokenizer), **measured}


def _local(bed: Bed) -> LocalUpstream:
    if not isinstance(bed.upstream, LocalUpstream):
        raise UserError("the upstream is no model in this process, so its cost cannot be measured; choose a model")
    return bed.upstream


def _upstream_size(bed: Bed) -> int:
    return int(_local(bed).lm.model.num_parameters())
