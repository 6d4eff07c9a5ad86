"""How the cost of a round grows with the prefix: lab, naive loop, and attention alone."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from tqdm.auto import tqdm

from benchmarks import naive
from benchmarks.clocked import Clocked
from benchmarks.loop import TOKENS, Stage
from benchmarks.results import Row, Spread
from corrector.loop import align
from corrector.models import LanguageModel
from corrector.tasks.base import Problem
from corrector.upstreams import LocalUpstream

FED = 16
"""Forwards behind a cache of each length."""
LAB, NAIVE, ALONE = "lab pipeline", "naive, one sentence", "bare forward behind a cache"


Forwards = list[tuple[float, int]]
"""When each began, and how many tokens of a row it was fed."""


def measure(s: Stage, n: int, bins: int, rounds: int, seed: int) -> list[Row]:
    """Cost a forward by the length of the corrector's prompt: n problems one at a time, greedy, rounds in `bins`.

    All that a round costs is divided by its forwards of both models, since later rounds may write more. `ratio` is to
    the first bin; what a bare forward of as many tokens grows by is attention's share.
    """
    problems, size = s.task.problems("test", n, seed), s.rounds // bins
    cpu = {name: list[list[float]]() for name in (LAB, NAIVE, ALONE)}
    at, width = list[float](), 1
    with naive.endless(s.upstream), _forwards(s) as forwards:
        for r in tqdm(range(rounds + 1), desc="prefix", unit="round"):
            clocks: dict[str, list[list[float]]] = {LAB: [], NAIVE: []}
            lengths: list[list[int]] = []
            forwards.clear()
            fed: list[int] = []
            for p in problems:
                start = len(forwards)
                answer, clock = _lab(s, p)
                fed += [n for _, n in forwards[start:]]
                loop = naive.run([p], s.upstream, s.corrector, s.task, s.rounds, "sentence")
                if loop.answers != [answer]:
                    raise RuntimeError(f"{p.id}: the naive loop's answer is another than the lab's")
                clocks[LAB].append(clock)
                clocks[NAIVE].append(loop.clock)
                lengths.append(loop.prompts)
            at = [sum(sum(v[b * size : (b + 1) * size]) for v in lengths) / n / size for b in range(bins)]
            width = max(round(sum(fed) / len(fed)), 1)
            if r:  # the first one warms up
                for name, found in clocks.items():
                    cpu[name].append([_a_forward(found, forwards, b * size, (b + 1) * size) for b in range(bins)])
                cpu[ALONE].append([_alone(s.corrector, round(x), width) for x in at])
    return [
        Row(
            "scaling",
            f"prefix, batch 1, {s.rounds} rounds",
            name,
            "ms a forward",
            Spread.of([1e3 * c[b] for c in found]),
            Spread.of([c[b] / c[0] for c in found]),
            f"prompts of {at[0]:.0f} tokens",
            n * size * rounds,
            note=f"{width} tokens a forward" if name == ALONE else "",
            x=at[b],
        )
        for name, found in cpu.items()
        for b in range(bins)
    ]


@contextmanager
def _forwards(s: Stage) -> Generator[Forwards]:
    """When the forwards of both models began, and how many tokens of a row they were fed."""
    times: Forwards = []

    def note(_: Any, __: Any, given: dict[str, Any]) -> None:
        times.append((time.process_time(), given["input_ids"].shape[1]))

    with ExitStack() as stack:
        for model in {id(lm.model): lm.model for lm in (s.upstream, s.corrector)}.values():
            handle = model.register_forward_pre_hook(note, with_kwargs=True)
            stack.callback(handle.remove)
        yield times


def _lab(s: Stage, problem: Problem) -> tuple[str, list[float]]:
    """The pipeline's answer, and when its rounds began and ended."""
    clocked = Clocked(LocalUpstream(s.upstream, s.task, batch_size=1))
    (done,) = align([problem], clocked, s.corrector, task=s.task, max_rounds=s.rounds, max_tokens=TOKENS, batch_size=1)
    return done.answer, [*clocked.asked, time.process_time()]


def _a_forward(clocks: Sequence[Sequence[float]], forwards: Forwards, first: int, last: int) -> float:
    """Seconds a forward in the rounds first..last-1 of every problem."""
    ends = [(clock[first], clock[last]) for clock in clocks]
    return sum(b - a for a, b in ends) / sum(a <= t < b for t, _ in forwards for a, b in ends)


@torch.no_grad()
def _alone(lm: LanguageModel, length: int, width: int) -> float:
    """Seconds of a forward of `width` tokens behind a cache of so many."""
    from transformers import DynamicCache

    cache, ids = DynamicCache(config=lm.model.config), torch.full((1, length), lm.eos_id, device=lm.device)
    lm.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    start = time.process_time()
    for _ in range(FED):
        lm.model(input_ids=ids[:, :width], past_key_values=cache, use_cache=True, logits_to_keep=1)
    return (time.process_time() - start) / FED
