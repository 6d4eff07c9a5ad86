"""Named prompt templates, and the token spans of their fields found through offsets."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from corrector.errors import UserError

FIELDS = ("question", "prefix", "last")


@dataclass(frozen=True)
class Prompt:
    """Rendered text with the character range of every field, `fields[name] = (start, end)`."""

    text: str
    fields: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Encoded:
    """Token ids with the token range of every field; `prompt_last` and `prompt` are always there."""

    ids: tuple[int, ...]
    spans: Mapping[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Template:
    """How a question, prefix and last sentence become a prompt; the correction follows the text at once.

    `upstream` is the prompt behind which the upstream writes on; `correction_prefix` is put before a correction
    when it is teacher-forced (" " where the tokenizer wants a space before a word).
    """

    name: str
    corrector: str
    upstream: str
    correction_prefix: str = ""

    def render(self, question: str, prefix: str, last: str) -> Prompt:
        """The corrector's prompt."""
        return _render(self.corrector, {"question": question, "prefix": prefix, "last": last})

    def render_upstream(self, question: str, prefix: str) -> Prompt:
        """The upstream's prompt."""
        return _render(self.upstream, {"question": question, "prefix": prefix})


TEMPLATES = {
    t.name: t
    for t in (
        Template("lab", "<q>{question}<p>{prefix}<y1>{last}<y2>", "<q>{question}<p>{prefix}"),
        Template(
            "plain",
            "Question: {question}\nAnswer: {prefix}\nSentence: {last}\nCorrection:",
            "Question: {question}\nAnswer: {prefix}",
            " ",
        ),
        Template(
            "stream-aligner",
            "##Question: {question} | ##Answer_Prefix: {prefix} | ##Answer_Last_Sentence: {last} | ##Your_Revision: ",
            "##Question: {question} | ##Answer: {prefix}",
        ),
    )
}


def template(name: str) -> Template:
    """A template by name; UserError names the ones there are."""
    if name not in TEMPLATES:
        raise UserError(f"template={name!r} is not one of {', '.join(TEMPLATES)}; choose --template among them")
    return TEMPLATES[name]


def _render(pattern: str, values: Mapping[str, str]) -> Prompt:
    text, fields = "", {}
    for literal, name, _, _ in string.Formatter().parse(pattern):
        text += literal
        if name:
            fields[name] = (len(text), len(text) + len(values[name]))
            text += values[name]
    return Prompt(text, fields)


def encode(tokenizer: Any, prompt: Prompt) -> Encoded:
    """Tokenise a prompt once and find each field's token range by character offsets.

    A token that straddles a field's edge counts to the field. An empty field has an empty range. Raises UserError
    where the tokenizer knows no token for some text, since an unknown token cannot be copied, and where a field's
    text spells a special token, since that would move the fields and be lost in decoding.
    """
    out = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = out["input_ids"], out["offset_mapping"]
    check_known(tokenizer, ids, lambda i: prompt.text[slice(*offsets[i])])
    spans: dict[str, tuple[int, int]] = {}
    for name, (start, end) in prompt.fields.items():
        hit = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        at = next((i for i, (a, _) in enumerate(offsets) if a >= start), len(ids))
        spans[name] = (hit[0], hit[-1] + 1) if hit else (at, at)
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for name, (start, end) in spans.items():
        for i in range(start, end):
            if ids[i] in special:
                raise UserError(
                    f"the {name} holds {prompt.text[slice(*offsets[i])]!r}, a special token of this model; "
                    "write it in another way"
                )
    return Encoded(tuple(ids), {**spans, "prompt": (0, len(ids)), "prompt_last": (len(ids) - 1, len(ids))})


def check_known(tokenizer: Any, ids: list[int], text_of: Callable[[int], str]) -> None:
    """Raise UserError for the first unknown token; `text_of(i)` is the text that became token i."""
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        i = ids.index(unknown)
        raise UserError(
            f"{text_of(i)!r} is not in this model's vocabulary of {len(tokenizer)} tokens; "
            "use text of its task, or another --corrector"
        )
