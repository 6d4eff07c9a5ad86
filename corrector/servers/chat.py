"""Ask any OpenAI-compatible chat server, patiently and once: retries are counted, and replies are kept on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.records.kept import Kept
from corrector.servers.endpoint import Client, Endpoint, Reply, Traffic, traffic_line

__all__ = ["Chat", "Message", "Reply", "Server", "Traffic", "traffic_line"]

Message = dict[str, str]


@dataclass(frozen=True)
class Server(Endpoint):
    """An OpenAI-compatible chat server."""

    temperature: float | None = 0.0
    """Sampling temperature; None: not sent, for models that take none."""
    max_tokens: int = 1024
    """Tokens of a reply at most; 0: not sent."""


class Chat:
    """A server with its kept replies; use it as a context manager.

    `counts`: `kept` replies that were there already, `requests` sent, `retries` among them, `retry_after` waits that
    the server asked for, and of the distinct prompts those `ok`, `rejected` and `failed`.
    Raises UserError for a url, key or setting that cannot work, and where httpx is not installed.
    """

    def __init__(self, server: Server, traffic: Traffic, kept: Kept) -> None:
        self.server, self.traffic, self.kept = server, traffic, kept
        self.counts: Counter[str] = Counter()
        least = {"max_tokens": server.max_tokens, "temperature": server.temperature or 0.0}
        if bad := [f"server.{name}={n} is below 0" for name, n in least.items() if n < 0]:
            raise UserError(f"{bad[0]}; choose a larger one")
        self._client = Client(server, traffic, "/chat/completions")

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._client.close()

    def ask(self, prompts: Sequence[Sequence[Message]], progress: str = "") -> list[Reply]:
        """A reply to each prompt, in their order; equal prompts are asked once.

        Raises UserError where the server refuses the key, or is none: then nothing that is asked can succeed.
        """
        sent = [self._sent(prompt) for prompt in prompts]
        keys = [self.kept.key(s) for s in sent]
        replies: dict[str, Reply] = {}
        open_: dict[str, dict[str, Any]] = {}
        for key, s in zip(keys, sent, strict=True):
            if key in replies or key in open_:
                continue
            if (there := self.kept.get(key)) is None:
                open_[key] = s
            else:
                replies[key] = Reply(**there)
                self.counts["kept"] += 1
        pool = ThreadPoolExecutor(self.traffic.concurrency, thread_name_prefix="chat")
        try:
            asked = {pool.submit(self._answer, key, s): key for key, s in open_.items()}
            for done in tqdm(
                as_completed(asked), progress, len(asked), unit="reply", disable=not progress or not asked
            ):
                replies[asked[done]], counts = done.result()
                self.counts += counts
        finally:
            pool.shutdown(cancel_futures=True)
        self.counts.update(reply.status for reply in replies.values())
        return [replies[key] for key in keys]

    def _sent(self, prompt: Sequence[Message]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.server.model, "messages": list(prompt)}
        if self.server.temperature is not None:
            body["temperature"] = self.server.temperature
        if self.server.max_tokens:
            body["max_tokens"] = self.server.max_tokens
        return {"url": self._client.url, "body": body}

    def _answer(self, key: str, sent: dict[str, Any]) -> tuple[Reply, Counter[str]]:
        """The server's reply; what is final is kept. Runs in a thread."""
        reply, counts = self._client.post(sent["body"], key, _content)
        if reply.status != "failed":
            self.kept.keep(key, sent, vars(reply))
        return reply, counts


def _content(response: Any) -> str:
    response.read()
    text = response.json()["choices"][0]["message"]["content"]
    return text if isinstance(text, str) else ""
