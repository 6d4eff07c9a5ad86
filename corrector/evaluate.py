"""`python -m corrector.evaluate RUN --against RUN2`: how good the answers of a run are, alone and against another's.

RUN and RUN2 are folders of `corrector.align` over the same questions, RUN2 usually the upstream alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corrector import tasks
from corrector.errors import UserError, run_cli
from corrector.judges import (
    Answer,
    Duel,
    Judge,
    ModelJudge,
    ServerJudge,
    TaskJudge,
    check_pattern,
    load_reward_model,
    read_rubric,
)
from corrector.judges.findings import Finding, outcome_findings, plain, verdict_findings
from corrector.records import RunFolder, default_name, read_json, read_rows
from corrector.records.canonical import SIGNIFICANT_DIGITS, canonical, to_plain
from corrector.records.kept import Kept
from corrector.records.rowfiles import write_whole
from corrector.servers.chat import Chat, Server, Traffic

LINE = 140
"""Characters of a line of the table where it is not printed to a terminal."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a run of corrector.align; the same command again resumes and pays for nothing twice."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""
    against: Path = Path()
    """Folder of the run to compare with, over the same questions, usually the upstream alone."""
    judge: Literal["task", "model", "server"] = "task"
    """task: its own scorer; model: a reward or cost model; server: a chat server, which needs --against."""
    data: str = field(default="", metadata={"identity": False})
    """Data of the run's task, where they are no longer where the run found them."""
    model: str = ""
    """model: sequence classifier with one output (folder or hub id, safetensors only)."""
    lower_is_better: bool = False
    """model: it is a cost model."""
    pattern: str = ""
    """model: text to score, with {question} and {answer}; empty: its chat template, else a pair of texts."""
    rubric: tuple[str, ...] = ("helpful", "harmless")
    """server: what to judge by; shipped rubrics or text files."""
    server: Server = field(default=Server())
    """server: where and what it is."""
    traffic: Traffic = field(default=Traffic(), metadata={"identity": False})
    """server: how it is asked."""
    batch_size: int = 16
    """model: answers scored together."""
    device: str = field(default="cpu", metadata={"identity": False})
    """model: torch device, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """model: precision."""
    seed: int = 0
    """Seed of the bootstrap."""
    out: Path = field(default=Path(), metadata={"identity": False})
    """Folder of the evaluation; default runs/evaluate-<hash of this configuration>."""


def run(config: Evaluate) -> list[Finding]:
    """Judge what was not judged yet, write verdicts.jsonl and findings.json, print one line a finding."""
    own = read_run(config.run)
    other = read_run(config.against) if config.against != Path() else None
    duels, unpaired = pair_up(own, other)
    scored = tasks.get(own.task, config.data or own.data).outcomes
    if config.judge == "server" and other is None:
        raise UserError("--judge server compares the answers of two runs; give the second one by --against")
    out = Path("runs") / default_name("evaluate", config) if config.out == Path() else config.out
    with ExitStack() as stack:
        kept = Kept(out / "replies")
        judge = judge_of(config, scored, kept, stack)
        folder = stack.enter_context(RunFolder(out, config, config.device))
        folder.write_once("inputs", inputs_of(own, other, judge))
        done = folder.done
        verdicts = judge.verdicts(duels)
        failed = sum(v.outcome == "failed" for v in verdicts)
        findings = [
            *outcome_findings(duels, scored, config.seed),
            *verdict_findings(config.judge, verdicts, config.seed),
        ]
        if not done:
            record: dict[str, Any] = {"findings": plain(findings), "unpaired": unpaired, "failed": failed}
            text = canonical(to_plain(record, "findings", SIGNIFICANT_DIGITS))
            write_whole(out / "findings.json", text.encode())
        if not failed and not done:
            folder.append("verdicts", [vars(v) for v in verdicts[folder.count("verdicts") :]])
            folder.expect("verdicts", len(verdicts))
            folder.finish()
    show(findings)
    if unpaired:
        print(f"left out: {unpaired} questions that only one of the runs answered")
    for reason, n in Counter(v.reason for v in verdicts if v.outcome in ("failed", "rejected")).most_common():
        print(f"not judged: {n}, since {' '.join(reason.split())}")
    if said := judge.said():
        print(said)
    if failed:
        print(f"{failed} verdicts failed and are not counted; the same command again asks for these only")
    print(f"findings are in {out}/findings.json")
    return findings


@dataclass(frozen=True)
class Recorded:
    """A finished run of corrector.align; `digest` is of its alignments."""

    path: Path
    task: str
    data: str
    digest: str
    rows: list[dict[str, Any]]


def read_run(path: Path) -> Recorded:
    """The alignments of a run; UserError unless they are there, finished, and one a problem."""
    if not (path / "config.json").is_file():
        raise UserError(f"{path} is no run folder; give one that corrector.align wrote")
    digest = read_json(path, "DONE", "").get("alignments", {}).get("sha256")
    if digest is None:
        raise UserError(f"{path} is not a finished run with alignments; run its corrector.align command again")
    rows, config = read_rows(path, "alignments"), read_json(path, "config")
    if not rows:
        raise UserError(f"{path} has no alignments; run its corrector.align command again")
    name, n = Counter(row["problem"] for row in rows).most_common(1)[0]
    if n > 1:
        raise UserError(f"{path} answers problem {name!r} {n} times, as a sweep does; give a run of corrector.align")
    return Recorded(path, str(rows[0]["task"]), str(config.get("data", "")), digest, rows)


def pair_up(own: Recorded, other: Recorded | None) -> tuple[list[Duel], int]:
    """The questions of both runs in the first one's order, and how many only one of them answered.

    UserError where none is shared, or a shared problem is another question, has another gold or other outcomes.
    """
    if other is None:
        return [Duel(r["problem"], r["question"], _answer(r), None) for r in own.rows], 0
    there = {row["problem"]: row for row in other.rows}
    duels: list[Duel] = []
    for row in own.rows:
        if (match := there.get(row["problem"])) is None:
            continue
        for name in ("question", "gold"):
            if row[name] != match[name]:
                raise UserError(f"problem {row['problem']!r} has another {name} in {other.path}; give runs of one task")
        if row["outcomes"].keys() != match["outcomes"].keys():
            raise UserError(f"problem {row['problem']!r} has other outcomes in {other.path}; give runs of one task")
        duels.append(Duel(row["problem"], row["question"], _answer(row), _answer(match)))
    if not duels:
        raise UserError(f"{own.path} and {other.path} share no question; give runs with the same task, split and seed")
    return duels, len(own.rows) + len(other.rows) - 2 * len(duels)


def judge_of(config: Evaluate, outcomes: Sequence[str], kept: Kept, stack: ExitStack) -> Judge:
    """The judge that a configuration names."""
    if config.judge == "server":
        rubrics = dict(read_rubric(name) for name in config.rubric)
        if len(rubrics) != len(config.rubric) or not rubrics:
            raise UserError(f"--rubric {' '.join(config.rubric)}: give one rubric an aspect, each of another name")
        return ServerJudge(stack.enter_context(Chat(config.server, config.traffic, kept)), rubrics)
    if config.judge == "model":
        if config.pattern:
            check_pattern(config.pattern)
        reward = load_reward_model(config.model, config.device, config.dtype)
        return ModelJudge(reward, kept, config.pattern, config.lower_is_better, config.batch_size)
    return TaskJudge(tuple(outcomes))


def inputs_of(own: Recorded, other: Recorded | None, judge: Judge) -> dict[str, Any]:
    """What the verdicts depend on beside the configuration, so that other runs or rubrics do not mix with these."""
    out: dict[str, Any] = {"run": own.digest, "against": other.digest if other else None}
    if isinstance(judge, ServerJudge):
        out["rubrics"] = dict(judge.rubrics)
    if isinstance(judge, ModelJudge):
        out["model"] = judge.reward.fingerprint
    return out


def show(findings: Sequence[Finding]) -> None:
    """One line a finding, with its interval and n."""
    table = Table("finding", "value", "95 % interval", "n", "note")
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, LINE)
    for f in findings:
        value = "no verdict" if f.value is None else f"{f.value:.4g}" if "p" == f.name[-1] else f"{f.value:.3f}"
        interval = "" if f.low is None or f.high is None else f"{f.low:.3f} .. {f.high:.3f}"
        table.add_row(escape(f.name), value, interval, str(f.n), escape(f.note))
    console.print(table)


def _answer(row: dict[str, Any]) -> Answer:
    return Answer(row["answer"], row["outcomes"])


if __name__ == "__main__":
    run_cli(Evaluate, run, "corrector.evaluate")
