"""An OpenAI-compatible server as upstream: each sentence is asked for behind the answer so far.

`/v1/completions` continues a text by its nature. `/v1/chat/completions` does so only where the server goes on with an
assistant's last message, which the API does not promise.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.prompts import Template, template
from corrector.records.kept import Kept
from corrector.sentences import complete_sentence
from corrector.servers.endpoint import Client, Reply, Traffic
from corrector.tasks.base import Task
from corrector.upstreams.base import Request, State, derived_seed
from corrector.upstreams.local import LOOKAHEAD
from corrector.upstreams.served import FLAG, Served, extra_of
from corrector.upstreams.streams import completion_of

PATHS = {"completions": "/completions", "chat": "/chat/completions", "chat-continue": "/chat/completions"}
CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
"""What makes vLLM and SGLang go on with the last message."""
SEEDS = 2**31
"""llama.cpp takes seeds of 32 bits."""
CHARACTERS = 4
"""Characters that count as a token where no tokenizer is known."""


@dataclass(frozen=True)
class ServerUpstream:
    """Greedy, or drawn from (seed, problem id, round), as far as the server honours temperature and seed.

    Sentences are read as they stream in and cut by the task's own rule; the connection is dropped behind the first.
    Those that came are kept in `kept`, under the model and the request but not the url, so that a run goes on behind a
    server that has moved. `counts` as in `Client.post`, with those `kept` before, `ok`, `rejected` and `failed`.
    """

    served: Served
    traffic: Traffic
    task: Task
    temperature: float = 0.0
    seed: int = 0
    template: Template = field(default_factory=lambda: template("plain"))
    tokenizer: Any = field(default=None, compare=False)
    kept: Kept | None = None
    counts: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature={self.temperature:g} is below 0; choose 0 (greedy) or more")
        self.client().close()
        _ = self._extra
        if self.served.api == "chat":
            warnings.warn(
                f"{self.served.url}: nothing guarantees that a chat server goes on behind the answer so far; prefer "
                f"--{FLAG}.api completions, or chat-continue where the server takes it (vLLM, SGLang)",
                stacklevel=3,
            )

    def writer(self) -> ServerWriter:
        return ServerWriter(self)

    def client(self) -> Client:
        """A connection to it; UserError for a url, key or setting that cannot work."""
        return Client(self.served, self.traffic, PATHS[self.served.api], FLAG)

    def fits(self, request: Request, max_tokens: int) -> bool:
        """Whether `prefix` has fewer than `max_tokens` tokens; whether it fits the window only the server knows."""
        if self.tokenizer is None:
            return len(request.prefix) < CHARACTERS * max_tokens
        return len(self.tokenizer(request.prefix, add_special_tokens=False)["input_ids"]) < max_tokens

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent for a sentence."""
        question, prefix = request.problem.question, request.prefix
        body: dict[str, Any] = {"model": self.served.model}
        if self.served.api == "completions":
            body["prompt"] = self.template.render_upstream(question, prefix).text.removeprefix(self._begin)
        else:
            body["messages"] = [{"role": "user", "content": question}]
            if prefix:
                body["messages"].append({"role": "assistant", "content": prefix})
                body |= CONTINUE if self.served.api == "chat-continue" else {}
        body |= {"max_tokens": self.task.max_sentence_tokens + LOOKAHEAD, "temperature": self.temperature}
        if self.temperature:
            body["seed"] = derived_seed(self.seed, request.problem.id, request.round) % SEEDS
        if self.served.stop:
            body["stop"] = list(self.served.stop)
        return body | {"stream": True} | self._extra

    def sentence(self, request: Request, text: str) -> str:
        """The first sentence of what was written behind the prefix, with its leading whitespace."""
        first = next(iter(self.task.sentences(self.cut(text))), "")
        prefix = request.prefix
        if self.served.api == "completions" or not prefix or not first.strip() or first[0].isspace():
            return first
        if first.strip() == next(iter(self.task.sentences(prefix))).strip():
            warnings.warn(
                f"{self.served.url} wrote the first sentence of problem {request.problem.id!r} again behind it; where "
                f"it begins anew instead of going on, use --{FLAG}.api completions or chat-continue",
                stacklevel=2,
            )
        # A chat reply begins without the space that the text wants: one, or a line end where lines are the sentences.
        n = len(self.task.sentences(prefix))
        return (" " if len(self.task.sentences(f"{prefix} {first}")) > n else "\n") + first

    def cut(self, text: str) -> str:
        """The text before the first of the stop strings."""
        for stop in self.served.stop:
            text = text.split(stop, 1)[0]
        return text

    @cached_property
    def _extra(self) -> dict[str, Any]:
        return extra_of(self.served)

    @cached_property
    def _begin(self) -> str:
        """The begin token where the tokenizer by itself, and so the server, puts one."""
        if self.tokenizer is None or not self.tokenizer.bos_token or self._extra.get("add_special_tokens") is False:
            return ""
        first = list(self.tokenizer("a")["input_ids"][:1])
        return self.tokenizer.bos_token if first == [self.tokenizer.bos_token_id] else ""


class ServerWriter:
    """Requests on their way: as many as the traffic allows are under way at a time, while other stations work."""

    def __init__(self, upstream: ServerUpstream) -> None:
        self.upstream = upstream
        self._asked: dict[Future[tuple[Reply, Counter[str]]], Request] = {}
        self._client: Client | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def load(self) -> int:
        return len(self._asked)

    @property
    def state(self) -> State:
        return "answered" if any(future.done() for future in self._asked) else "waits"

    @contextmanager
    def running(self) -> Generator[None]:
        """The connection and its threads, until the loop ends; what is under way then is dropped."""
        self._client = self.upstream.client()
        self._pool = ThreadPoolExecutor(self.upstream.traffic.concurrency, thread_name_prefix="upstream")
        try:
            yield
        finally:
            self._client.close()
            self._pool.shutdown(cancel_futures=True)

    def submit(self, request: Request) -> None:
        if self._pool is None:
            raise RuntimeError("a writer is asked inside its `running` block")
        self._asked[self._pool.submit(self._answer, request)] = request

    def step(self) -> list[tuple[Request, str | None]]:
        """What has come, or the first that comes; UserError where the server takes no such request, or is gone."""
        done = wait(self._asked, return_when=FIRST_COMPLETED).done
        return [self._received(future) for future in [f for f in self._asked if f in done]]

    def forget(self, problem: str) -> None:
        """Nothing is remembered here."""

    def _received(self, future: Future[tuple[Reply, Counter[str]]]) -> tuple[Request, str | None]:
        request, up = self._asked.pop(future), self.upstream
        reply, counts = future.result()
        up.counts.update(counts)
        up.counts[reply.status] += 1
        if reply.status == "ok":
            return request, up.sentence(request, reply.text)
        if reply.status == "rejected" and "context" in reply.reason.lower():  # as vLLM, SGLang and llama.cpp all say
            return request, None
        assert self._client is not None
        at = f"sentence {request.round + 1} of problem {request.problem.id!r}"
        if reply.status == "rejected":
            raise UserError(f"{self._client.url} refuses {at} ({reply.reason}); check --{FLAG}.api and --{FLAG}.extra")
        come = [future.result()[0] for future in self._asked if future.done() and not future.exception()]
        n = up.counts["ok"] + sum(reply.status == "ok" for reply in come)
        there = "; none is kept" if up.kept is None else f"; sentences kept in {up.kept.folder}: {n}"
        raise UserError(
            f"{self._client.url} does not give {at} ({reply.reason}, asked {counts['requests']} times){there}; when it "
            "is back, the same command goes on"
        )

    def _answer(self, request: Request) -> tuple[Reply, Counter[str]]:
        """The server's reply, kept where it is one. Runs in a thread."""
        up, body = self.upstream, self.upstream.body(request)
        sent = {"api": up.served.api, "body": body}
        kept = up.kept or Kept(Path())
        key = kept.key(sent)
        if up.kept and (there := kept.get(key)) is not None:
            return Reply(**there), Counter(kept=1)
        assert self._client is not None
        reply, counts = self._client.post(body, key, self._read)
        if up.kept and reply.status == "ok":
            kept.keep(key, sent, vars(reply))
        return reply, counts

    def _read(self, response: Any) -> str:
        """Text up to where the first sentence is certain; the rest is never asked for."""
        up = self.upstream

        def complete(text: str) -> bool:
            cut = up.cut(text)
            return cut != text or complete_sentence(cut, up.task.sentences) is not None

        return completion_of(response, complete, f"--{FLAG}.extra")
