"""Token diffs of a sentence and its correction, and the HTML that shows one."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import Levenshtein

Kind = Literal["equal", "delete", "insert", "replace"]


@dataclass(frozen=True)
class Part:
    """One run of tokens of a diff."""

    kind: Kind
    """`equal`, `delete` (in `last` only), `insert` (in `correction` only), `replace` (both, and they differ)."""
    last: tuple[str, ...]
    """The tokens of `last`; empty for `insert`."""
    correction: tuple[str, ...]
    """The tokens of `correction`; empty for `delete`."""


def words(text: str) -> list[str]:
    """Words, each with the blanks before it, and marks one by one; joined they are `text` again."""
    return re.findall(r"\s*\w+|\s*[^\w\s]|\s+$", text)


def diff(last: Sequence[str], correction: Sequence[str]) -> list[Part]:
    """The shortest token edit script (Levenshtein) from `last` to `correction`, in order.

    The `last` of all parts joined is `last`, and the `correction` of all parts joined is `correction`.
    """
    return [
        Part(cast(Kind, op), tuple(last[a:b]), tuple(correction[c:d]))
        for op, a, b, c, d in Levenshtein.opcodes(list(last), list(correction))
    ]


def joined(parts: Sequence[Part]) -> list[Part]:
    """The same diff with changes that stand side by side as one `replace`, which reads as one rewording."""
    out: list[Part] = []
    for part in parts:
        if out and part.kind != "equal" and out[-1].kind != "equal":
            last, correction = out[-1].last + part.last, out[-1].correction + part.correction
            kind: Kind = "replace" if last and correction else part.kind
            out[-1] = Part(kind, last, correction)
        else:
            out.append(part)
    return out


def marked(parts: Sequence[Part]) -> str:
    """HTML of a diff: `<del>` around what was taken out, `<ins>` around what was put in, every token escaped."""
    out: list[str] = []
    for part in parts:
        before, after = html.escape("".join(part.last)), html.escape("".join(part.correction))
        if part.kind == "equal":
            out.append(after)
            continue
        out += [f"<del>{before}</del>"] if before else []
        out += [f"<ins>{after}</ins>"] if after else []
    return "".join(out)
