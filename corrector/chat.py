"""Ask any OpenAI-compatible chat server, patiently and once: retries are counted, and replies are kept on disk."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import sleep
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.kept import Kept

Message = dict[str, str]
Status = Literal["ok", "rejected", "failed"]
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same request may succeed."""
REJECTED = (400, 413, 422)
"""Statuses that say something about this one request: too long, or refused."""


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible chat server."""

    url: str = ""
    """Base url, such as http://localhost:8000/v1; `/chat/completions` is put behind it."""
    model: str = ""
    """Name of the model there."""
    key_env: str = ""
    """Environment variable that holds the API key; empty: none is sent. The key itself is written nowhere."""
    temperature: float | None = 0.0
    """Sampling temperature; None: not sent, for models that take none."""
    max_tokens: int = 1024
    """Tokens of a reply at most; 0: not sent."""


@dataclass(frozen=True)
class Traffic:
    """How requests are made; none of it changes what is asked."""

    concurrency: int = 8
    """Requests under way at a time."""
    timeout: float = 60.0
    """Seconds to wait for a reply."""
    retries: int = 5
    """How often a request is made again after 429, 5xx, a timeout or a lost connection."""
    backoff: float = 1.0
    """Seconds before the first retry; doubled each time, less up to a half by seeded jitter."""
    longest_wait: float = 60.0
    """Seconds of one wait at most, whatever Retry-After says."""
    seed: int = 0
    """Seed of the jitter."""


@dataclass(frozen=True)
class Reply:
    """What came back: `text` where status is ok, else the `reason`.

    `rejected` is final (the server will not take this request); `failed` is not: asking again may help.
    """

    status: Status
    text: str = ""
    reason: str = ""


class Chat:
    """A server with its kept replies; use it as a context manager.

    `counts`: `kept` replies that were there already, `requests` sent, `retries` among them, `retry_after` waits that
    the server asked for, and of the distinct prompts those `ok`, `rejected` and `failed`.
    Raises UserError for a url, key or setting that cannot work, and where httpx is not installed.
    """

    def __init__(self, server: Server, traffic: Traffic, kept: Kept) -> None:
        self.server, self.traffic, self.kept = server, traffic, kept
        self.counts: Counter[str] = Counter()
        _check(server, traffic)
        self._key = _key(server)
        self._url = server.url.rstrip("/") + "/chat/completions"
        try:
            import httpx
        except ImportError:
            raise UserError("a chat server needs httpx; pip install 'corrector-lab[server]'") from None
        self._transport_error = httpx.RequestError
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(timeout=traffic.timeout, headers=headers)

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
        return {"url": self._url, "body": body}

    def _answer(self, key: str, sent: dict[str, Any]) -> tuple[Reply, Counter[str]]:
        """Ask until there is a reply or the retries are used up; what is final is kept. Runs in a thread."""
        counts: Counter[str] = Counter()
        rng = random.Random(f"{self.traffic.seed}/{key}")
        reply = Reply("failed")
        for attempt in range(self.traffic.retries + 1):
            counts["requests"] += 1
            reply, after = self._once(sent)
            if reply.status != "failed":
                self.kept.keep(key, sent, vars(reply))
                break
            if attempt < self.traffic.retries:
                counts["retries"] += 1
                counts["retry_after"] += after is not None
                wait = self.traffic.backoff * 2**attempt * (1 - rng.random() / 2)
                sleep(min(max(wait, after or 0.0), self.traffic.longest_wait))
        return reply, counts

    def _once(self, sent: dict[str, Any]) -> tuple[Reply, float | None]:
        """One request: the reply, and the seconds that the server asks to wait."""
        try:
            response = self._client.post(self._url, json=sent["body"])
        except self._transport_error as error:
            return Reply("failed", reason=type(error).__name__), None
        said = self._clean(" ".join(response.text.split())[:200])
        if response.status_code in REJECTED:
            return Reply("rejected", reason=f"{response.status_code} {said}"), None
        if response.status_code in TRANSIENT or response.status_code >= 500:
            return Reply("failed", reason=str(response.status_code)), _seconds(response.headers.get("Retry-After"))
        if response.status_code != 200:
            raise UserError(
                f"{self._url} answers {response.status_code} {said!r}; check --server.url, --server.model and the key "
                "in the variable of --server.key-env"
            )
        try:
            text = response.json()["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            return Reply("failed", reason="no chat completion"), None
        return Reply("ok", self._clean(text if isinstance(text, str) else "")), None

    def _clean(self, text: str) -> str:
        """Some servers repeat the key in their errors."""
        return text.replace(self._key, "[key]") if self._key else text


def traffic_line(counts: Counter[str]) -> str:
    """What was asked, in one line."""
    names = ("requests", "retries", "retry_after", "kept", "rejected", "failed")
    return "server: " + ", ".join(f"{name.replace('_', '-')} {counts[name]}" for name in names)


def _check(server: Server, traffic: Traffic) -> None:
    try:
        url = urlsplit(server.url)
        whole = url.scheme in ("http", "https") and url.hostname
    except ValueError:
        raise UserError("--server.url cannot be read as a url; give one such as http://localhost:8000/v1") from None
    if url.username or url.password or url.query:
        raise UserError("--server.url holds a user, password or query; name the key's variable by --server.key-env")
    if not whole:
        raise UserError(f"--server.url={server.url!r} is no http url; give one such as http://localhost:8000/v1")
    if not server.model:
        raise UserError("--server.model is empty; name the model that the server serves")
    least = {
        "server.max_tokens": (server.max_tokens, 0),
        "server.temperature": (server.temperature or 0.0, 0),
        "traffic.concurrency": (traffic.concurrency, 1),
        "traffic.retries": (traffic.retries, 0),
        "traffic.backoff": (traffic.backoff, 0),
        "traffic.longest_wait": (traffic.longest_wait, 0),
    }
    if bad := [f"{name}={n} is below {low}" for name, (n, low) in least.items() if n < low]:
        raise UserError(f"{bad[0]}; choose a larger one")
    if traffic.timeout <= 0:
        raise UserError(f"traffic.timeout={traffic.timeout} is no time; choose seconds above 0")


def _key(server: Server) -> str:
    if not server.key_env:
        return ""
    if not (key := os.environ.get(server.key_env, "").strip()):
        raise UserError("the environment variable of --server.key-env is not set; put the API key there")
    if not key.isascii() or not key.isprintable():
        raise UserError("the environment variable of --server.key-env holds no API key; set it again")
    return key


def _seconds(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, written as a number or as a date; None where it says neither."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
