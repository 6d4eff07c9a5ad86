"""Read a completion as it streams in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from corrector.errors import UserError


def completion_of(response: Any, complete: Callable[[str], bool], cure: str) -> str:
    """The text of an open response, read no further than `complete` says; also of one that does not stream.

    Raises ValueError, LookupError or TypeError for what is no whole completion, and UserError where a model spent its
    tokens on something else than text; `cure` is the option to change then.
    """
    if "event-stream" not in response.headers.get("content-type", ""):
        response.read()
        choice = response.json()["choices"][0]
        return _whole(_text(choice), choice.get("finish_reason"), choice, cure)
    text = ""
    for data in _events(response):
        if data == "[DONE]":
            return text
        event = json.loads(data)
        for choice in event["choices"]:
            text += _text(choice)
            if (reason := choice.get("finish_reason")) is not None:
                return _whole(text, reason, choice, cure)
        if complete(text):
            return text
    raise ValueError("the stream broke off")


def _whole(text: str, reason: Any, choice: dict[str, Any], cure: str) -> str:
    if not text.strip() and reason == "length" and "text" not in choice:
        raise UserError(
            "the server spent all tokens of a sentence without text, as models do that think first; turn thinking off, "
            f"for vLLM and SGLang by {cure} " + """'{"chat_template_kwargs": {"enable_thinking": false}}'"""
        )
    return text


def _text(choice: dict[str, Any]) -> str:
    """What a choice of either API adds, streamed or whole."""
    if "text" in choice:
        return choice["text"] or ""
    return (choice["delta"] if "delta" in choice else choice["message"]).get("content") or ""


def _events(response: Any) -> Iterator[str]:
    """The data of server-sent events; lines end at line feeds only, since texts may hold U+2028."""
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[len(b"data:") :].strip().decode()
