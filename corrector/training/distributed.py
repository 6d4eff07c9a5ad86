"""Processes that train one model together, as torchrun and accelerate launch start them.

Replicated weights go through DistributedDataParallel, sharded ones through `fully_shard` (FSDP2). Both average
gradients over the processes, so that a loss is multiplied by their number to be summed instead.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from corrector.errors import UserError

CPU = torch.device("cpu")
OTHER_ENGINES = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}
"""What accelerate launch asks its own Accelerator to do, which the lab's loop does not use."""


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together, and the device that it trains on."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def sums(self, *numbers: int | float) -> list[int | float]:
        """Each number summed over the processes, in float64; with one process the numbers as they are."""
        if self.size == 1:
            return list(numbers)
        total = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.tolist()

    def agree(self, **what: object) -> None:
        """Raise UserError, in every process, for something that is not equal in all of them."""
        if self.size == 1:
            return
        all_of_them: list[Any] = [None] * self.size
        dist.all_gather_object(all_of_them, what)
        for rank, other in enumerate(all_of_them):
            if unlike := [name for name in what if other[name] != all_of_them[0][name]]:
                raise UserError(
                    f"process {rank} and process 0 have different {', '.join(unlike)}; "
                    "give all the same command, files and folder"
                )


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Generator[Ranks]:
    """Join the processes that WORLD_SIZE, RANK and LOCAL_RANK tell of; alone where they tell of none.

    On cuda, a process takes the GPU of its LOCAL_RANK. UserError where there is none, and where accelerate launch was
    told to shard by an engine that is not used here.
    """
    rank, size, local = (int(os.environ.get(k, d)) for k, d in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    for name, engine in OTHER_ENGINES.items():
        if os.environ.get(name, "").lower() == "true":
            raise UserError(f"accelerate launch asks for its own {engine}; leave that out, and give --shard to shard")
    at = torch.device(device)
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(
                f"device='cuda' and {torch.cuda.device_count()} GPUs, none of which is number {local}; "
                "start as many processes as there are GPUs, or give --device cpu"
            )
        at = torch.device("cuda", local)
        torch.cuda.set_device(at)
    if size == 1:
        yield Ranks(device=at)
        return
    # With a GPU, gloo carries what lies on the CPU: the optimiser's step counts and `agree`.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", rank=rank, world_size=size)
    yield Ranks(rank, size, at)
    # Not after an exception: the other processes still wait in a collective, and the launcher ends them.
    dist.destroy_process_group()


def leave() -> None:
    """End a process that trained with others, at once and with exit code 0; return where there was only this one.

    A thread of gloo may still be letting go of the last message, for which it needs the interpreter: when that is
    being torn down already, the thread aborts the process ("terminate called without an active exception").
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def spread(module: nn.Module, parts: Iterable[nn.Module], ranks: Ranks, shard: bool) -> nn.Module:
    """A module on the device of each process: as it is (one process), replicated, or each of `parts` and it sharded.

    Its parameters may be new objects afterwards, so an optimiser is made after it.
    """
    if ranks.size == 1:
        return module.to(ranks.device)
    if not shard:
        return DistributedDataParallel(module.to(ranks.device), gradient_as_bucket_view=True)
    mesh = init_device_mesh(ranks.device.type, (ranks.size,))
    for part in parts:
        fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module.to(ranks.device)


def unsynced(module: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """A backward pass whose gradients replicas add up on their own, unless it is a step's last."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its shards, on every process; all must ask at once."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as a parameter has it: the shard of this process on its device, without a message."""
    if not isinstance(parameter, DTensor):
        return tensor.to(parameter.device)
    at = tensor.to(parameter.to_local().device)
    return distribute_tensor(at, parameter.device_mesh, parameter.placements, src_data_rank=None)
