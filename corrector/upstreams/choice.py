"""The upstream that a configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from corrector.errors import UserError
from corrector.models import load
from corrector.records.kept import Kept
from corrector.servers.endpoint import Traffic
from corrector.tasks.base import Problem, Task
from corrector.upstreams.base import Upstream
from corrector.upstreams.local import LocalUpstream
from corrector.upstreams.replay import ReplayUpstream
from corrector.upstreams.served import Served, template_of, tokenizer_of
from corrector.upstreams.server import ServerUpstream

REPLAY, SERVER = "replay", "server"


@runtime_checkable
class Choosing(Protocol):
    """The fields by which a configuration chooses its upstream; an empty `upstream` and a temperature of None are the
    task's own.
    """

    @property
    def upstream(self) -> str: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def template(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def batch_size(self) -> int: ...


@runtime_checkable
class TakingServers(Protocol):
    """The further fields of a configuration whose upstream may be a server."""

    @property
    def upstream_server(self) -> Served: ...
    @property
    def traffic(self) -> Traffic: ...


@dataclass(frozen=True)
class Choice:
    """A choice that no command makes: by default the task's own upstream."""

    upstream: str = ""
    temperature: float | None = None
    seed: int = 0
    template: str = ""
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = 64


def upstream_of(config: Choosing, task: Task, problems: Sequence[Problem], kept: Kept | None = None) -> Upstream:
    """The upstream that a configuration names: a model, `replay` of the task's recorded answers, or `server`.

    What a server writes is kept in `kept`. Raises UserError for what is not there.
    """
    name = config.upstream or task.upstream or f"{task.name}-upstream"
    if name == REPLAY:
        return ReplayUpstream({p.id: task.recorded(p, config.seed) for p in problems})
    temperature = task.temperature if config.temperature is None else config.temperature
    if name == SERVER:
        if not isinstance(config, TakingServers):
            raise UserError("--upstream server is no choice here; give a reference, a folder, a hub id or replay")
        served = config.upstream_server
        tokenizer = tokenizer_of(served)
        prompts = template_of(served, config.template, tokenizer)
        return ServerUpstream(served, config.traffic, task, temperature, config.seed, prompts, tokenizer, kept)
    lm = load(name, config.template, config.device, config.dtype)
    return LocalUpstream(lm, task, temperature, config.seed, batch_size=config.batch_size)
