"""The engine of a Ray cluster.

The driver chooses vector and controls, keeps the run folder and gives out blocks; workers hold models and compute.
No file system is shared: a worker loads a shipped reference with the installed package, and a folder or a hub id from
where it runs.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from corrector.errors import UserError
from steering.engines.crew import share
from steering.engines.local import Engine, Results
from steering.engines.worker import Worker, send
from steering.sweeping.grid import Grid
from steering.sweeping.plan import Sweep
from steering.sweeping.rows import Block
from steering.sweeping.work import Work

STORE = 256 * 2**20
"""Bytes of shared memory of a cluster that is started here: items, vectors and rows are what passes through."""
KNOCK_SECONDS = 10.0
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


@contextmanager
def connected(config: Sweep) -> Generator[Engine]:
    """The engine on the cluster at `config.address`, or on one that is started here and ends with this context.

    Raises UserError where Ray is not installed, no cluster answers, or it has no room for a single worker.
    """
    _check(config)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"engine ray is not installed ({error}); pip install corrector-lab[ray], or choose --engine local"
        ) from error
    needs = {"num_cpus": 1.0, "num_gpus": config.gpus_per_worker if config.device == "cuda" else 0.0}
    with _cluster(ray, config):
        if not (room := _room(ray.nodes(), needs["num_gpus"])):
            has = {k: n for k, n in ray.cluster_resources().items() if k in ("CPU", "GPU")}
            raise UserError(f"the cluster has {has}, no room for a worker of {needs}; choose another --device")

        def engine(
            config: Sweep, works: Mapping[str, Work], grids: Mapping[str, Grid], todo: Sequence[Block]
        ) -> Results:
            sent = ray.put(send(config, works, grids))
            if config.device == "cuda":
                _clear_gpu(works)
            alone = {"env_vars": ONE_THREAD} if config.device == "cpu" else {}
            options: dict[str, Any] = {**needs, "runtime_env": alone, "scheduling_strategy": "SPREAD"}
            remote: Any = ray.remote(Worker).options(**options)
            return share(lambda: remote.remote(sent), config.workers or room, todo)

        yield engine


def _clear_gpu(works: Mapping[str, Work]) -> None:
    """Take the driver's models off the GPU, on which a worker may have to find room."""
    import torch

    for work in works.values():
        for holder in (work, work.upstream):
            if lm := getattr(holder, "lm", None):
                lm.model.to("cpu")
    torch.cuda.empty_cache()


def _check(config: Sweep) -> None:
    if config.workers < 0:
        raise UserError(f"workers={config.workers} is below 0; choose --workers 1 or more, or 0 for all that fit")
    if not config.gpus_per_worker > 0:
        raise UserError(f"gpus_per_worker={config.gpus_per_worker} is not above 0; choose --gpus-per-worker 1, or 0.5")
    if config.device not in ("cpu", "cuda"):
        raise UserError(f"device={config.device!r}, but Ray gives each worker its GPU; choose --device cuda, or cpu")


@contextmanager
def _cluster(ray: Any, config: Sweep) -> Generator[None]:
    """Be connected while the context lasts; a connection that was there before (a notebook's) is used and kept."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    folder = ""
    if config.address:
        where: dict[str, Any] = {"address": config.address}
        cure = "give --address that of a running one (ray start --head tells it), or none to start one here"
    else:
        # Sockets lie in this folder, and their paths may have 107 bytes, so it is not made in a long $TMPDIR.
        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp" if os.access("/tmp", os.W_OK) else None)
        where = {"address": "local", "_temp_dir": folder, "include_dashboard": False}
        where |= {"num_cpus": config.workers or None, "object_store_memory": STORE}
        cure = "choose --engine local, or give the --address of a running one"
    try:
        try:
            _knock(config.address)
            ray.init(**where, **quiet)
        except (OSError, RuntimeError, ValueError, AssertionError) as error:
            text = " ".join(str(error).split())[:200]
            raise UserError(f"no Ray cluster at {config.address or 'this machine'} ({text}); {cure}") from error
        yield
    finally:
        ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at host:port, which Ray would find out after minutes only."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


def _room(nodes: Sequence[Mapping[str, Any]], gpus: float) -> int:
    """How many workers of one CPU and so many GPUs the living nodes hold."""
    room = 0
    for node in nodes:
        if node["Alive"]:
            has: Mapping[str, float] = node["Resources"]
            room += int(min(has.get("CPU", 0), has.get("GPU", 0) / gpus if gpus else float("inf")))
    return room
