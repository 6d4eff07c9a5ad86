"""What the lab's decoder saves: the sweep, the loop, the first token, capture, and how cost grows.

python -m benchmarks.run
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace

import torch
from rich.console import Console

from benchmarks import bed, capture, latency, loop, prefix, report, scaling, sweep
from benchmarks.config import BINS, QUICK, Run, check
from benchmarks.results import Row, Spread
from corrector.errors import run_cli

FEW = 16
"""Items on which coefficients are counted, at most."""


def measure(config: Run) -> list[Row]:
    """Rows of all parts in their order."""
    strict, only = config.dtype == "float32", config.only
    where = (config.device, config.dtype)
    stage = loop.stage("dialogue", config.upstream, config.corrector, config.loop_rounds, *where)
    rows: list[Row] = []
    b = bed.bed(config.corrector, "dialogue", config.items, *where, config.seed, config.controls, config.fitted)
    if "sweep" in only:
        rows += sweep.measure(b, config.plain_items, config.others, config.cells, config.batches, config.rounds, strict)
    if "loop" in only:
        rows += loop.measure(stage, config.problems, config.singles, config.rounds, config.seed, strict)
    if "first-token" in only:
        sums = loop.stage("arithmetic", "arithmetic-upstream", "arithmetic-l", config.loop_rounds, *where)
        natural, long = latency.Answers(stage, stage.task.temperature), latency.Answers(stage, 0.0, config.loop_rounds)
        for answers in (natural, latency.Answers(sums, 0.0), long):
            rows += latency.measure(answers, config.waits, config.rounds, config.seed)
    if "capture" in only:
        rows += captured(config)
    if "scaling" in only:
        few = b.first(min(config.scaled_items[-1], FEW))
        rows += scaling.coefficients(few, config.scaled, config.batches, config.rounds)
        rows += scaling.items(b, config.scaled_items, config.batches, config.rounds)
        rows += scaling.rounds_of_loop(
            stage, config.scaled_rounds, config.scaled_problems, config.rounds, config.seed, strict
        )
        long_stage = replace(stage, rounds=config.prefix_rounds)
        rows += prefix.measure(long_stage, config.singles, BINS, config.rounds, config.seed)
    return rows


def captured(config: Run) -> list[Row]:
    """`benchmarks.capture` as it is, less often and without its stream to disk."""
    bench = capture.Bench(rows=32, rounds=max(config.rounds, 2), stream=0, threads=config.threads, seed=config.seed)
    if config.quick:
        bench = replace(bench, d=64, layers=2, rows=4, tokens=8, batches=(4,))
    record = capture.measure(bench)
    where = f"random Llama of {record['parameters'] / 1e6:.1f}M weights, {bench.tokens} tokens a row"
    first = record["speed"][0]["what"]
    return [
        Row(
            "capture",
            f"{where}, batch {row['batch']}",
            row["what"],
            "ms a thousand tokens",
            _turned(row["tokens_per_second"], 1e6),
            _turned(row["ratio"], 1.0),
            first,
            bench.rows * bench.tokens * bench.rounds,
        )
        for row in record["speed"]
    ]


def _turned(found: dict[str, float], over: float) -> Spread:
    """A speed as a cost."""
    return Spread(over / found["median"], over / found["high"], over / found["low"])


def main(config: Run) -> list[Row]:
    """Measure, show, and write where asked."""
    if config.quick:
        config = replace(config, **QUICK)
    check(config)
    torch.set_num_threads(config.threads)
    rows, about = measure(config), report.machine(config.device, config.dtype)
    report.show(rows, about, Console())
    if config.out:
        report.write_json(config.out, rows, about, asdict(config) | {"out": str(config.out)})
    if config.readme:
        text = report.readme(rows, about, _command(sys.argv[1:]), config.rounds)
        (report.HOME / "README.md").write_text(text, encoding="utf-8")
        print("README.md is written; draw its figure by python -m figures.build cost")
    return rows


def _command(flags: list[str]) -> str:
    """The command line that was given, without the file that one machine keeps."""
    at = flags.index("--out") if "--out" in flags else len(flags)
    return shlex.join(["python", "-m", "benchmarks.run", *flags[:at], *flags[at + 2 :]])


if __name__ == "__main__":
    run_cli(Run, main, "benchmarks.run")
