"""Post to any OpenAI-compatible server, patiently: what may succeed is asked again, with growing waits."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

from corrector.errors import UserError

Status = Literal["ok", "rejected", "failed"]
TRANSIENT = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same request may succeed."""
REJECTED = (400, 413, 422)
"""Statuses that say something about this one request: too long, or refused."""


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server and a model there."""

    url: str = field(default="", metadata={"identity": False})
    """Base url, such as http://localhost:8000/v1; a run goes on behind a server that has moved."""
    model: str = ""
    """Name of the model there."""
    key_env: str = ""
    """Environment variable that holds the API key; empty: none is sent. The key itself is written nowhere."""


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


class Client:
    """Posts to one path of a server, from any number of threads; use `close` at the end.

    `flag` is the option under which the user gave the endpoint, for the errors. Raises UserError for a url, key or
    setting that cannot work, and where httpx is not installed.
    """

    def __init__(self, endpoint: Endpoint, traffic: Traffic, path: str, flag: str = "server") -> None:
        self.traffic, self.flag = traffic, flag
        _check(endpoint, traffic, flag)
        self._key = _key(endpoint, flag)
        self.url = endpoint.url.rstrip("/") + path
        try:
            import httpx
        except ImportError:
            raise UserError("a server needs httpx; pip install 'corrector-lab[server]'") from None
        self._transport_error = httpx.RequestError
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx.Limits(max_connections=traffic.concurrency, max_keepalive_connections=traffic.concurrency)
        self._client = httpx.Client(timeout=traffic.timeout, headers=headers, limits=limits)
        self._closing = threading.Event()

    def close(self) -> None:
        """Send nothing more, and wait for nothing more."""
        self._closing.set()
        self._client.close()

    def post(self, body: dict[str, Any], identity: str, read: Callable[[Any], str]) -> tuple[Reply, Counter[str]]:
        """Ask until there is a reply or the retries are used up.

        `read` makes the text of an open response of status 200; what it raises as ValueError, LookupError or TypeError
        is no completion, and asked again. The jitter of the waits is drawn from (seed, identity). Counts `requests`,
        `retries` among them, and `retry_after`, waits that the server asked for. Raises UserError where the server
        refuses the key, or is none: then nothing that is asked can succeed.
        """
        counts: Counter[str] = Counter()
        rng = random.Random(f"{self.traffic.seed}/{identity}")
        reply = Reply("failed", reason="not asked")
        for attempt in range(self.traffic.retries + 1):
            if self._closing.is_set():
                break
            counts["requests"] += 1
            reply, after = self._once(body, read)
            if reply.status != "failed":
                break
            if attempt < self.traffic.retries:
                counts["retries"] += 1
                counts["retry_after"] += after is not None
                wait = self.traffic.backoff * 2**attempt * (1 - rng.random() / 2)
                self.wait(min(max(wait, after or 0.0), self.traffic.longest_wait))
        return reply, counts

    def wait(self, seconds: float) -> None:
        """Let some time pass, unless it is closed."""
        self._closing.wait(seconds)

    def _once(self, body: dict[str, Any], read: Callable[[Any], str]) -> tuple[Reply, float | None]:
        """One request: the reply, and the seconds that the server asks to wait."""
        try:
            with self._client.stream("POST", self.url, json=body) as response:
                if response.status_code == 200:
                    return Reply("ok", self._clean(read(response))), None
                response.read()
        except self._transport_error as error:
            return Reply("failed", reason=type(error).__name__), None
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            return Reply("failed", reason="no completion"), None
        said = self._clean(" ".join(response.text.split())[:200])
        if response.status_code in REJECTED:
            return Reply("rejected", reason=f"{response.status_code} {said}"), None
        if response.status_code in TRANSIENT or response.status_code >= 500:
            return Reply("failed", reason=str(response.status_code)), _seconds(response.headers.get("Retry-After"))
        raise UserError(
            f"{self.url} answers {response.status_code} {said!r}; check --{self.flag}.url, --{self.flag}.model and the "
            f"key in the variable of --{self.flag}.key-env"
        )

    def _clean(self, text: str) -> str:
        """Some servers repeat the key in their errors."""
        return text.replace(self._key, "[key]") if self._key else text


def traffic_line(counts: Counter[str]) -> str:
    """What was asked, in one line."""
    names = ("requests", "retries", "retry_after", "kept", "rejected", "failed")
    return "server: " + ", ".join(f"{name.replace('_', '-')} {counts[name]}" for name in names)


def _check(endpoint: Endpoint, traffic: Traffic, flag: str) -> None:
    try:
        url = urlsplit(endpoint.url)
        whole = url.scheme in ("http", "https") and url.hostname
    except ValueError:
        raise UserError(f"--{flag}.url cannot be read as a url; give one such as http://localhost:8000/v1") from None
    if url.username or url.password or url.query:
        raise UserError(f"--{flag}.url holds a user, password or query; name the key's variable by --{flag}.key-env")
    if not whole:
        raise UserError(f"--{flag}.url={endpoint.url!r} is no http url; give one such as http://localhost:8000/v1")
    if not endpoint.model:
        raise UserError(f"--{flag}.model is empty; name the model that the server serves")
    least = {
        "concurrency": (traffic.concurrency, 1),
        "retries": (traffic.retries, 0),
        "backoff": (traffic.backoff, 0),
        "longest_wait": (traffic.longest_wait, 0),
    }
    if bad := [f"traffic.{name}={n} is below {low}" for name, (n, low) in least.items() if n < low]:
        raise UserError(f"{bad[0]}; choose a larger one")
    if traffic.timeout <= 0:
        raise UserError(f"traffic.timeout={traffic.timeout} is no time; choose seconds above 0")


def _key(endpoint: Endpoint, flag: str) -> str:
    if not endpoint.key_env:
        return ""
    if not (key := os.environ.get(endpoint.key_env, "").strip()):
        raise UserError(f"the environment variable of --{flag}.key-env is not set; put the API key there")
    if not key.isascii() or not key.isprintable():
        raise UserError(f"the environment variable of --{flag}.key-env holds no API key; set it again")
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
