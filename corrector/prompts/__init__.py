"""Prompts: named templates and those of a user's file, chat turns, and the token spans of the fields.

`template("stream-aligner/chat", tokenizer)`: the part behind the slash is the chat turn that the text stands in.
"""

from __future__ import annotations

from corrector.prompts.encoding import Encoded, check_known, continuation, encode, token_ids
from corrector.prompts.growth import Growth, growth
from corrector.prompts.named import TEMPLATES, TURNS, template
from corrector.prompts.templates import FIELDS, Prompt, Template, Turn

__all__ = [
    "FIELDS",
    "TEMPLATES",
    "TURNS",
    "Encoded",
    "Growth",
    "Prompt",
    "Template",
    "Turn",
    "check_known",
    "continuation",
    "encode",
    "growth",
    "template",
    "token_ids",
]
