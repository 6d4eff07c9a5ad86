"""Named spans as absolute token positions: 0 is a row's first real token, whatever the padding and the cache."""

from __future__ import annotations

import re
from collections.abc import Mapping

from corrector.errors import UserError
from corrector.prompts import FIELDS

END = 2**31
"""Beyond every position: the end of an open range."""
OUTPUT = re.compile(r"output(?:\[(\d+):(\d*)\])?")
NAMES = ("prompt_last", "prompt", *FIELDS)

Range = tuple[int, int]


def check_span(span: str) -> None:
    """Raise UserError unless `span` is `all`, a named span, `output`, `output[a:b]`, or several joined by `+`."""
    for name in span.split("+"):
        output = OUTPUT.fullmatch(name)
        if name != "all" and name not in NAMES and not output:
            raise UserError(
                f"span={span!r}: {name!r} is not one of all, {', '.join(NAMES)}, output, output[a:b]; "
                "choose --span among them, joined by +"
            )
        if output and output[2] and int(output[1]) >= int(output[2]):
            raise UserError(f"span={span!r} is empty, since {output[1]} >= {output[2]}; write output[a:b] with a < b")


def resolve(span: str, spans: Mapping[str, Range]) -> list[Range]:
    """Disjoint half-open ranges of absolute positions of `span` in a prompt with these token `spans`.

    Output token i stands at n_prompt + i, so `output[a:b]` is (n_prompt + a, n_prompt + b). The first output token
    is predicted at `prompt_last`; `output` alone can first change the second one. Overlapping spans count once.
    Raises UserError for a field that the prompt has not.
    """
    found: list[Range] = []
    n_prompt = spans["prompt"][1]
    for name in span.split("+"):
        if output := OUTPUT.fullmatch(name):
            found.append((n_prompt + int(output[1] or 0), n_prompt + int(output[2]) if output[2] else END))
        elif name == "all":
            found.append((0, END))
        elif name in spans:
            found.append(spans[name])
        else:
            raise UserError(
                f"span={name!r} is no part of this prompt, which has {', '.join(spans)}; choose another --span"
            )
    merged: list[Range] = []
    for start, end in sorted(r for r in found if r[0] < r[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def overlap(ranges: list[Range], n: int) -> int:
    """How many of the positions 0..n-1 lie in disjoint ranges."""
    return sum(max(0, min(end, n) - start) for start, end in ranges)
