"""The chat turn that a tokenizer's own chat template makes, found by rendering marked text with it."""

from __future__ import annotations

from typing import Any

from corrector.errors import UserError
from corrector.prompts.templates import Turn

ASKED, REPLIED = "Text-of-the-User", "Text-of-the-Reply"


def chat_turn(tokenizer: Any, system: str = "") -> Turn:
    """The turn, with a generation prompt: `around` then equals what the chat template gives for the same text.

    Raises UserError where there is no chat template, where it refuses a lone question (or the system prompt), and
    where it does not write the user's text once and unchanged.
    """
    if not tokenizer.chat_template:
        raise UserError(
            "the tokenizer has no chat template; choose a --template without /chat, or with the turn of its family"
        )
    before = [{"role": "system", "content": system}] if system else []
    asked = _rendered(tokenizer, [*before, _message("user", ASKED)], True)
    spaced = _rendered(tokenizer, [*before, _message("user", f" {ASKED} ")], True)
    whole = spaced in (asked, asked.replace(ASKED, f" {ASKED} "))
    if asked.count(ASKED) != 1 or not whole or (system and system.strip() not in asked):
        raise UserError(
            "the tokenizer's chat template does not write the user's text (or the system prompt) once and unchanged; "
            "give --template a file with the turn written out"
        )
    head, tail = asked.split(ASKED)
    try:
        replied = _rendered(tokenizer, [*before, _message("user", ASKED), _message("assistant", REPLIED)], False)
    except UserError:  # a template that renders questions only
        replied = ""
    lead, end = _reply(tokenizer, asked, replied)
    return Turn("chat", head, tail, lead, end, trim=spaced == asked)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(tokenizer: Any, messages: list[dict[str, str]], generate: bool) -> str:
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))
    except (TemplateError, ValueError) as error:
        roles = ", ".join(m["role"] for m in messages)
        raise UserError(
            f"the tokenizer's chat template refuses the roles {roles} ({' '.join(str(error).split())[:120]}); "
            "give --template a file with the turn written out"
        ) from error


def _reply(tokenizer: Any, asked: str, replied: str) -> tuple[str, str]:
    """What stands before a reply's text and the token behind it; empty where the chat template does not show it."""
    if replied.count(REPLIED) != 1:
        return "", ""
    before, behind = replied.split(REPLIED)
    lead = before.removeprefix(asked) if before.startswith(asked) else ""
    special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
    closing = [token for token in special if behind.lstrip().startswith(token)]
    return lead if lead.isspace() else "", max(closing, key=len, default="")
