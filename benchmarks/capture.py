"""What a capture costs: beside the bare forward, by the last layer asked for, and in memory as prompts stream.

python -m benchmarks.capture

Everything that is compared runs interleaved in one process and is timed in process CPU time, so that another job on
the machine moves all of it alike; numbers are medians over rounds with their quartiles.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tqdm.auto import tqdm

from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel
from corrector.prompts import template
from corrector.records.environment import environment
from probes.backends import BACKENDS, pad
from probes.capture import capture
from probes.spans import Sequence
from probes.storage import capture_to

N_VOCABULARY = 2048
WARM_UP = 2048
"""Prompts streamed before memory is first looked at: two shards, so that buffers have their full size."""


@dataclass(frozen=True)
class Bench:
    """Measure capture against the bare forward of a random Llama of about ten million weights."""

    d: int = 320
    """Width of the model."""
    layers: int = 6
    """Blocks of the model."""
    rows: int = 64
    """Rows captured in one measurement."""
    tokens: int = 64
    """Tokens a row."""
    batches: tuple[int, ...] = (8, 32)
    """Batch sizes."""
    rounds: int = 9
    """Measurements of everything; medians are over these."""
    stream: int = 20_000
    """Short prompts streamed to disk through a tiny model (0: none); --stream 100000 takes minutes."""
    threads: int = 1
    """Threads that torch may use."""
    seed: int = 0
    """Seed of weights and tokens."""
    out: Path | None = None
    """JSON file to write the numbers to."""


def random_lm(d: int, layers: int, seed: int) -> LanguageModel:
    from tokenizers import Tokenizer, models
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = {"<eos>": 0, **{f"w{i}": i for i in range(1, N_VOCABULARY)}}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "<eos>")), eos_token="<eos>")
    llama: Any = CONFIG_MAPPING["llama"]
    config = llama(
        vocab_size=N_VOCABULARY,
        hidden_size=d,
        intermediate_size=3 * d,
        num_hidden_layers=layers,
        num_attention_heads=max(d // 64, 1),
        max_position_embeddings=512,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    return LanguageModel(model, tokenizer, template("plain"), f"random-llama-{d}")


def prompts(n: int, low: int, high: int, seed: int) -> Iterator[Sequence]:
    """N rows of low to high random tokens, made one by one."""
    rng = random.Random(seed)
    for i in range(n):
        length = rng.randint(low, high)
        ids = tuple(rng.randrange(1, N_VOCABULARY) for _ in range(length))
        yield Sequence(ids, {"prompt": (0, length), "prompt_last": (length - 1, length)}, f"p{i}")


@torch.no_grad()
def bare(lm: LanguageModel, sequences: list[Sequence], batch_size: int) -> None:
    """The forward of all blocks and nothing else: no head, no cache, no hook."""
    for at in range(0, len(sequences), batch_size):
        batch = pad([s.ids for s in sequences[at : at + batch_size]], "right", lm.device)
        lm.model.base_model(**batch.inputs(), use_cache=False)


def interleaved(jobs: dict[str, Callable[[], Any]], rounds: int, progress: str) -> dict[str, list[float]]:
    """Process CPU seconds of every job in every round, each round in another order."""
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for r in tqdm(range(rounds), desc=progress, unit="round"):
        names = list(jobs)
        random.Random(r).shuffle(names)
        for name in names:
            start = time.process_time()
            jobs[name]()
            seconds[name].append(time.process_time() - start)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def speed(config: Bench, lm: LanguageModel, batch_size: int) -> list[dict[str, Any]]:
    """All layers: tokens a second, and the ratio to the bare forward of the same round."""
    rows = list(prompts(config.rows, config.tokens, config.tokens, config.seed))
    jobs: dict[str, Callable[[], Any]] = {"bare forward": partial(bare, lm, rows, batch_size)}
    for name in BACKENDS:
        for span, what in (("prompt_last", "last token"), ("prompt", "row mean")):
            if name == "torch" or span == "prompt":
                jobs[f"{name}, {what}"] = partial(capture, lm, rows, span=span, batch_size=batch_size, backend=name)
    seconds = interleaved(jobs, config.rounds, f"batch {batch_size}")
    n, base = sum(map(len, rows)), seconds["bare forward"]
    return [
        {
            "batch": batch_size,
            "what": name,
            "tokens_per_second": spread([n / s for s in took]),
            "ratio": spread([b / s for b, s in zip(base, took, strict=True)]),
        }
        for name, took in seconds.items()
    ]


def depth(config: Bench, lm: LanguageModel) -> list[dict[str, Any]]:
    """The cost of layer k alone, over that of the last layer: (k + 1) / L where a capture stops early."""
    rows = list(prompts(config.rows, config.tokens, config.tokens, config.seed))
    jobs: dict[str, Callable[[], Any]] = {
        str(k): partial(capture, lm, rows, layers=[k], batch_size=max(config.batches)) for k in range(config.layers)
    }
    seconds = interleaved(jobs, config.rounds, "up to layer k")
    whole = seconds[str(config.layers - 1)]
    return [
        {
            "layer": k,
            "expected": (k + 1) / config.layers,
            "ratio": spread([s / w for s, w in zip(seconds[str(k)], whole, strict=True)]),
        }
        for k in range(config.layers)
    ]


def memory(n: int, seed: int) -> dict[str, Any]:
    """`stream` in a process of its own, whose memory has known nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(stream, n, seed).result()


def stream(n: int, seed: int) -> dict[str, Any]:
    """Stream n prompts to disk: growth of the peak resident size (MB) over its level after WARM_UP prompts."""
    torch.set_num_threads(1)
    lm = random_lm(64, 4, seed)
    with tempfile.TemporaryDirectory() as folder:
        # Importing libraries peaks higher than the capture does, and would hide growth.
        _forget_peak()
        capture_to(Path(folder) / "warm", lm, prompts(WARM_UP, 4, 12, seed), batch_size=256)
        before, start = _peak(), time.process_time()
        stored = capture_to(Path(folder) / "all", lm, prompts(n, 4, 12, seed), batch_size=256)
        seconds, after = time.process_time() - start, _peak()
        size = sum(file.stat().st_size for file in stored.folder.iterdir())
    return {
        "prompts": len(stored),
        "peak_mb_before": before,
        "growth_mb": after - before,
        "on_disk_mb": size / 2**20,
        "seconds": seconds,
        "prompts_per_second": n / seconds,
    }


def _forget_peak() -> None:
    """Start the peak anew from what is resident now; only Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Peak resident size of this process in MB."""
    with contextlib.suppress(OSError):
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(config: Bench) -> dict[str, Any]:
    torch.set_num_threads(config.threads)
    lm = random_lm(config.d, config.layers, config.seed)
    record: dict[str, Any] = {
        "config": asdict(config) | {"out": str(config.out or "")},
        "environment": environment("cpu") | {"machine": platform.machine(), "cpus": os.cpu_count()},
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "parameters": sum(w.numel() for w in lm.model.parameters()),
        "speed": [row for batch_size in config.batches for row in speed(config, lm, batch_size)],
        "depth": depth(config, lm),
    }
    if config.stream:
        record["memory"] = memory(config.stream, config.seed)
    return record


def show(record: dict[str, Any], console: Console) -> None:
    """Print what `measure` found."""
    packages = record["environment"]["packages"]
    console.print(
        f"{record['environment']['platform']}, {record['environment']['cpus']} CPUs, {record['threads']} thread(s), "
        f"load {record['load_average']:.1f}; torch {packages['torch']}, transformers {packages['transformers']}, "
        f"transformer-lens {packages['transformer-lens']}, nnsight {packages['nnsight']}; Llama of "
        f"{record['parameters'] / 1e6:.1f}M weights; CPU time, median (quartiles) over {record['config']['rounds']} "
        f"rounds, {record['config']['tokens']} tokens a row"
    )
    table = Table("batch", "all layers", "tokens/s", "x bare forward")
    for row in record["speed"]:
        table.add_row(str(row["batch"]), row["what"], _text(row["tokens_per_second"], ".0f"), _text(row["ratio"]))
    console.print(table)
    table = Table("layer alone", "cost / last layer's", "(k+1)/L")
    for row in record["depth"]:
        table.add_row(str(row["layer"]), _text(row["ratio"]), f"{row['expected']:.3f}")
    console.print(table)
    if found := record.get("memory"):
        console.print(
            f"{found['prompts']} prompts streamed to {found['on_disk_mb']:.0f} MB on disk at "
            f"{found['prompts_per_second']:.0f} a CPU second: peak memory grew by {found['growth_mb']:.1f} MB "
            f"over {found['peak_mb_before']:.0f} MB"
        )


def _text(found: dict[str, float], form: str = ".2f") -> str:
    return f"{found['median']:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def main(config: Bench) -> None:
    """Measure, show, and write where asked."""
    if (least := min(config.d, config.layers, config.rows, config.tokens, config.rounds, *config.batches)) < 1:
        raise UserError(f"a size or number of rounds is {least}; give 1 or more")
    record = measure(config)
    show(record, Console())
    if config.out:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_cli(Bench, main, "benchmarks.capture")
