"""Workers of a Ray cluster that share a list of blocks: who is free gets the next, who is lost is replaced."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError
from steering.engines.local import Results
from steering.engines.worker import Refusal
from steering.sweeping.rows import Block

MAX_RETRIES = 3
"""Times that a block is tried again after its worker was lost."""
PATIENCE = 60.0
"""Seconds without a word from any worker, after which the user is told what is waited for."""


def share(hire: Callable[[], Any], size: int, todo: Sequence[Block]) -> Results:
    """Compute blocks on up to `size` actors of `Worker` made by `hire`, and give each once it is back.

    A worker is lost when its process, its node or what it had computed is gone. Its block is tried again by whoever is
    free, MAX_RETRIES times, and another worker is hired, which starts once the cluster has room. Every loss is told on
    stderr. All workers are dismissed when this ends, in whatever way.

    Raises UserError where a worker refuses (`Refusal`), and where blocks or workers are lost too often; an exception of
    another kind in a worker is a fault of the lab, raised here as Ray reports it.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    waiting = deque(todo)
    busy: dict[Any, tuple[Any, Block | None]] = {}  # by what it will answer; no block: it loads its models
    retries: Counter[Block] = Counter()
    unborn = 0
    try:
        while unfinished := len(waiting) + sum(block is not None for _, block in busy.values()):
            while len(busy) < min(size, unfinished):
                worker = hire()
                busy[worker.load.remote()] = worker, None
            answered, _ = ray.wait([*busy], num_returns=1, timeout=PATIENCE)
            if not answered and not any(block for _, block in busy.values()):
                tqdm.write(f"no worker runs yet: {len(busy)} wait for room, or load their models", file=sys.stderr)
            for ref in answered:
                worker, block = busy[ref]
                try:
                    answer = ray.get(ref)
                except RayTaskError:
                    raise
                except RayError as error:
                    del busy[ref]
                    ray.kill(worker)  # it may be only out of reach, and would keep its place
                    if block:
                        retries[block] += 1
                        waiting.appendleft(block)
                        _tell(f"{block} lost its worker", error, retries[block], MAX_RETRIES)
                    else:
                        unborn += 1
                        _tell("a worker was lost while it loaded", error, unborn, size + MAX_RETRIES)
                    continue
                if isinstance(answer, Refusal):
                    raise UserError(answer.text)
                del busy[ref]
                if waiting:
                    following = waiting.popleft()
                    busy[worker.compute.remote(following)] = worker, following
                else:
                    ray.kill(worker)
                if block:
                    unborn = 0
                    yield block, answer
    finally:
        for worker, _ in busy.values():
            ray.kill(worker)
    if retries:
        text = f"{retries.total()} blocks were computed again, for their workers were lost"
        tqdm.write(text, file=sys.stderr)


def _tell(what: str, error: Exception, n: int, most: int) -> None:
    """Say what was lost, and why, for the n-th time; UserError beyond `most`."""
    # Ray's text begins with what happened; that of an actor that could not be made ends with why.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    reason = f"{type(error).__name__}: {lines[-1 if 'creation task' in lines[0] else 0][:160]}"
    if n > most:
        raise UserError(f"{what}, {n} times now ({reason}); see the cluster's logs, or go on with --engine local")
    tqdm.write(f"{what} ({reason}); retry {n} of {most}", file=sys.stderr)
