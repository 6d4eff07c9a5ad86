"""Token sequences with named spans, and the resolution of a span's name to absolute token positions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.tasks.base import Pair

_SLICE = re.compile(r"(\w+)\[(\d*):(\d*)\]")


@dataclass(frozen=True)
class Sequence:
    """Token ids of one item with absolute spans `name -> (start, end)`; `problem` is the id bootstraps go by."""

    ids: tuple[int, ...]
    spans: Mapping[str, tuple[int, int]]
    problem: str = ""

    def __len__(self) -> int:
        return len(self.ids)


def sequence(lm: LanguageModel, pair: Pair, target: str | None = None, rival: str | None = None) -> Sequence:
    """The prompt of a pair, with `target` teacher-forced behind it where one is given.

    Spans: `question`, `prefix`, `last` (the suffix y1), `prompt`, `prompt_last` (its final token); with a target also
    `output` (its tokens, end token included). With a `rival` only the output tokens that target and rival share are
    kept, and `first_divergence` is the final position, where the first differing token is about to be written;
    UserError when the two are the same tokens.
    """
    encoded = lm.encode(pair.question, pair.prefix, pair.last)
    spans, n_prompt = dict(encoded.spans), len(encoded)
    if target is None:
        return Sequence(encoded.ids, spans, pair.problem)
    output = lm.encode_target(target)
    if rival is not None:
        output = output[: n_common(output, lm.encode_target(rival))]
        if output and output[-1] == lm.eos_id:
            raise UserError(
                f"problem={pair.problem!r}: target and rival are the same tokens ({target!r}); "
                "give two texts that differ"
            )
    ids = (*encoded.ids, *output)
    if rival is not None:
        spans["first_divergence"] = (len(ids) - 1, len(ids))
    return Sequence(ids, {**spans, "output": (n_prompt, len(ids))}, pair.problem)


def n_common(a: list[int], b: list[int]) -> int:
    """Length of the longest common prefix of two token lists."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def resolve_span(spans: Mapping[str, tuple[int, int]], name: str) -> tuple[int, int]:
    """Absolute token range (start, end) of a span: a name of `spans`, or `name[a:b]`, tokens a..b-1 of that span.

    A slice that reaches past its span is cut to it, since outputs have unlike lengths.
    Raises UserError where the name is unknown or the range is empty.
    """
    match = _SLICE.fullmatch(name)
    base = match[1] if match else name
    if base not in spans:
        raise UserError(
            f"span={name!r} not among {', '.join(sorted(spans))}; choose --span there, or a slice such as output[0:4] "
            "(output spans need a teacher-forced target)"
        )
    start, end = spans[base]
    if match:
        first = start + int(match[2] or 0)
        end = min(end, start + int(match[3])) if match[3] else end
        start = first
    if start >= end:
        raise UserError(f"span={name!r} holds no token; choose a --span that every item has")
    return start, end
