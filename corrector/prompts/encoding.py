"""Tokens of a prompt and the token spans of its fields, found through character offsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from corrector.errors import UserError
from corrector.prompts.templates import Prompt


@dataclass(frozen=True)
class Encoded:
    """Token ids with the token range of every field; `prompt_last` and `prompt` are always there."""

    ids: tuple[int, ...]
    spans: Mapping[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.ids)


def encode(tokenizer: Any, prompt: Prompt) -> Encoded:
    """Tokenise a prompt once and find each field's token range by character offsets.

    The begin token stands first, once, where the tokenizer by itself would put it there. A token that straddles a
    field's edge counts to the field. An empty field has an empty range. Raises UserError where the tokenizer knows no
    token for some text, since an unknown token cannot be copied, and where a field's text spells a special token, since
    that would move the fields and be lost in decoding.
    """
    out = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = out["input_ids"], out["offset_mapping"]
    check_known(tokenizer, ids, lambda i: prompt.text[slice(*offsets[i])])
    spans: dict[str, tuple[int, int]] = {}
    for name, (start, end) in prompt.fields.items():
        hit = [i for i, (a, b) in enumerate(offsets) if start < end and a < end and b > start]
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
    begin = _begin(tokenizer, ids)
    n = len(begin)
    spans = {name: (start + n, end + n) for name, (start, end) in spans.items()}
    whole = (*begin, *ids)
    return Encoded(whole, {**spans, "prompt": (0, len(whole)), "prompt_last": (len(whole) - 1, len(whole))})


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """A prompt's text as tokens, as `encode` does but unchecked and without spans."""
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [*_begin(tokenizer, ids), *ids]


def continuation(tokenizer: Any, before: str, text: str) -> list[int]:
    """Tokens of a text that follows `before`: both are tokenised at once, since some tokenizers put a space before
    whatever comes first; where that would change the tokens of `before`, the text alone.

    Raises UserError for text of which the tokenizer knows no token.
    """
    there = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    n, at = len(there), len(before)
    out = tokenizer(before + text, add_special_tokens=False, return_offsets_mapping=True)
    if list(out["input_ids"][:n]) != there:
        n = at = 0
        out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = list(out["input_ids"][n:]), out["offset_mapping"][n:]
    check_known(tokenizer, ids, lambda i: text[max(offsets[i][0] - at, 0) : offsets[i][1] - at])
    return ids


def _begin(tokenizer: Any, ids: list[int]) -> list[int]:
    """The begin token where the tokenizer by itself puts one and the text did not spell it."""
    bos = tokenizer.bos_token_id
    if bos is None or ids[:1] == [bos]:
        return []
    return [bos] if list(tokenizer("a")["input_ids"][:1]) == [bos] else []


def check_known(tokenizer: Any, ids: list[int], text_of: Callable[[int], str]) -> None:
    """Raise UserError for the first unknown token; `text_of(i)` is the text that became token i.

    GPT-2's kind of tokenizer, which knows every byte, has its begin or end token set as the unknown one.
    """
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids and unknown not in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        i = ids.index(unknown)
        raise UserError(
            f"{text_of(i)!r} is not in this model's vocabulary of {len(tokenizer)} tokens; "
            "use text of its task, or another --corrector"
        )
