"""Named spans as absolute token positions: 0 is a row's first real token, whatever the padding and the cache.

The phases are the spans `prompt` (what is read), `output` (what is written) and `all`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from corrector.errors import UserError
from corrector.prompts import FIELDS

END = 2**31
"""Beyond every position: the end of an open range."""
CUT = re.compile(r"(output|tokens)\[(\d+):(\d*)\]")
PHASES = ("prompt", "output", "all")
NAMES = ("prompt_last", "prompt", *FIELDS)

Range = tuple[int, int]


def check_span(span: str) -> None:
    """Raise UserError unless `span` is a phase, a named span, `output[a:b]`, `tokens[a:b]`, or some joined by `+`."""
    for name in span.split("+"):
        cut = CUT.fullmatch(name)
        if name not in PHASES and name not in NAMES and not cut:
            raise UserError(
                f"span={span!r}: {name!r} is not one of all, {', '.join(NAMES)}, output, output[a:b], tokens[a:b]; "
                "choose --span among them, joined by +"
            )
        if cut and cut[3] and int(cut[2]) >= int(cut[3]):
            raise UserError(f"span={span!r} is empty, since {cut[2]} >= {cut[3]}; write {cut[1]}[a:b] with a < b")


def resolve(span: str, spans: Mapping[str, Range]) -> list[Range]:
    """Disjoint half-open ranges of absolute positions of `span` in a prompt with these token `spans`.

    `tokens[a:b]` counts from the row's first token. Output token i stands at n_prompt + i, so `output[a:b]` is
    (n_prompt + a, n_prompt + b). The first output token is predicted at `prompt_last`; `output` alone can first change
    the second one. Overlapping spans count once.
    Raises UserError for a field that the prompt has not.
    """
    found: list[Range] = []
    n_prompt = spans["prompt"][1]
    for name in span.split("+"):
        if cut := CUT.fullmatch(name):
            start = n_prompt if cut[1] == "output" else 0
            found.append((start + int(cut[2]), start + int(cut[3]) if cut[3] else END))
        elif name in ("output", "all"):
            found.append((n_prompt if name == "output" else 0, END))
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
