"""What is said of a server that writes answers: where it is, how it is asked, how its tokens are counted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from corrector.errors import UserError
from corrector.loading.hub import explained, hub_answers
from corrector.models import CARD
from corrector.prompts import Template, template
from corrector.servers.endpoint import Endpoint

FLAG = "upstream-server"


@dataclass(frozen=True)
class Served(Endpoint):
    """An OpenAI-compatible server that writes the answers."""

    api: Literal["completions", "chat", "chat-continue"] = "completions"
    """completions: raw text by --template, which any model continues; chat: the answer so far is the assistant's last
    message, and nothing guarantees that the server goes on behind it; chat-continue: the same with vLLM's and SGLang's
    fields that make it go on (add_generation_prompt, continue_final_message)."""
    template: str = ""
    """completions: its prompt template; empty: --template, else that of the model's card where the model is a folder
    here, else plain."""
    tokenizer: str = ""
    """Folder or hub id of its tokenizer, by which --max-tokens counts and templates with /chat are made; empty: the
    model's own where it is a folder here, else 4 characters count as a token."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer, for models that write on (such as a next question); the server is told, and what it
    writes is cut there whether it keeps them or not."""
    extra: str = ""
    """Further fields of every request as a JSON object, such as '{"top_k": 20}'."""


def tokenizer_of(served: Served) -> Any:
    """The tokenizer that is named, or the model's own where the model is a folder here; None: not known."""
    name = served.tokenizer or (served.model if Path(served.model).is_dir() else "")
    if not name:
        return None
    from transformers import AutoTokenizer

    local = Path(name).is_dir() or not hub_answers()
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, local_files_only=local)
    except (OSError, ValueError) as error:
        said = explained(error, name) or f"cannot be loaded ({' '.join(str(error).split())[:160]})"
        raise UserError(f"tokenizer {name!r} {said}; or give --{FLAG}.tokenizer another") from error


def template_of(served: Served, name: str, tokenizer: Any) -> Template:
    """The template of its prompts (see `Served.template`); `name` is that of --template."""
    card = Path(served.model) / CARD
    own = json.loads(card.read_text()).get("template", "") if card.is_file() else ""
    return template(served.template or name or own or "plain", tokenizer)


def extra_of(served: Served) -> dict[str, Any]:
    """`extra` as an object; UserError for what is none."""
    try:
        extra = json.loads(served.extra or "{}")
    except ValueError as error:
        raise UserError(f"--{FLAG}.extra={served.extra!r} is no JSON ({error}); give an object") from None
    if not isinstance(extra, dict):
        raise UserError(f"--{FLAG}.extra={served.extra!r} is no JSON object; give one with names and values")
    return extra
