"""What a template is: patterns with named fields, and the chat turn that their text may stand in."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = ("question", "prefix", "last")


@dataclass(frozen=True)
class Prompt:
    """Rendered text with the character range of every field, `fields[name] = (start, end)`."""

    text: str
    fields: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Turn:
    """A chat turn: `head + the user's text + tail + lead + the reply + end`."""

    name: str
    head: str
    tail: str
    """Up to where the model begins to write."""
    lead: str = ""
    """Whitespace that the model writes before the reply's own text, such as the space behind Llama-2's [/INST]."""
    end: str = ""
    """Token that closes a reply; empty: the tokenizer's own end token."""
    trim: bool = False
    """Whether outer whitespace is taken off the user's text, as most chat templates do."""
    markers: tuple[str, ...] = ()
    """What the tokenizer must know as one token each."""

    def around(self, prompt: Prompt) -> Prompt:
        """The prompt's text as the user's, followed by the head of the reply."""
        text, cut = prompt.text, 0
        if self.trim:
            cut = len(text) - len(text.lstrip())
            text = text.strip()
        at = len(self.head)
        fields = {
            name: (at + min(max(start - cut, 0), len(text)), at + min(max(end - cut, 0), len(text)))
            for name, (start, end) in prompt.fields.items()
        }
        return Prompt(self.head + text + self.tail, fields)


@dataclass(frozen=True)
class Template:
    """How a question, prefix and last sentence become a prompt; the correction follows the text at once.

    `upstream` is the prompt behind which the upstream writes on; it ends with {prefix}, which in a chat turn is the
    begun reply. `correction_prefix` is put before a correction when it is teacher-forced (" " where the tokenizer wants
    a space before a word). In a pattern `{prefix:+ }` is the prefix and a space where the prefix is not empty.
    """

    name: str
    corrector: str
    upstream: str
    correction_prefix: str = ""
    turn: Turn | None = None
    markers: tuple[str, ...] = ()
    """What the tokenizer must know as one token each, beside the turn's."""
    whole: bool = False
    """Of a model that corrects a whole answer: prefix and last together."""

    def render(self, question: str, prefix: str, last: str) -> Prompt:
        """The corrector's prompt."""
        prompt = _render(self.corrector, {"question": question, "prefix": prefix, "last": last})
        return self.turn.around(prompt) if self.turn else prompt

    def render_upstream(self, question: str, prefix: str) -> Prompt:
        """The upstream's prompt."""
        if self.turn is None:
            return _render(self.upstream, {"question": question, "prefix": prefix})
        asked = self.turn.around(_render(self.upstream.removesuffix("{prefix}"), {"question": question}))
        begun = self.turn.lead if prefix and not prefix[0].isspace() else ""
        start = len(asked.text) + len(begun)
        return Prompt(asked.text + begun + prefix, {**asked.fields, "prefix": (start, start + len(prefix))})

    @property
    def tail(self) -> str:
        """The text behind the last field of the corrector's prompt."""
        prompt = self.render("q", "p", "l")
        return prompt.text[max(end for _, end in prompt.fields.values()) :]

    @property
    def all_markers(self) -> tuple[str, ...]:
        """Its own markers and its turn's."""
        return (*self.markers, *(self.turn.markers if self.turn else ()))


def parts(pattern: str) -> list[tuple[str, str, str]]:
    """(literal, field, what follows the field where it is not empty) in order; the last may have no field.

    Raises ValueError for braces that do not match.
    """
    out: list[tuple[str, str, str]] = []
    for literal, name, spec, conversion in string.Formatter().parse(pattern):
        if conversion or (spec and not spec.startswith("+")):
            raise ValueError(f"{{{name}}} takes nothing but +TEXT behind a colon")
        out.append((literal, name or "", (spec or "")[1:]))
        if name == "":
            raise ValueError("{} names no field")
    return out


def _render(pattern: str, values: Mapping[str, str]) -> Prompt:
    text, fields = "", {}
    for literal, name, behind in parts(pattern):
        text += literal
        if name:
            fields[name] = (len(text), len(text) + len(values[name]))
            text += values[name]
            if values[name] and not values[name][-1].isspace():
                text += behind
    return Prompt(text, fields)
