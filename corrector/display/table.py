"""Small HTML tables that read well in light and dark notebooks; all text is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

STYLE = """
.corrector-lab { color: inherit; font-size: 13px; line-height: 1.5; overflow-x: auto; }
.corrector-lab table { border-collapse: collapse; margin: .5em 0; color: inherit; font-size: inherit; }
.corrector-lab caption { caption-side: top; text-align: left; font-weight: 600; color: inherit; padding: .2em 0; }
.corrector-lab tr, .corrector-lab tbody tr:nth-child(odd) { background: none; }
.corrector-lab th, .corrector-lab td { text-align: left; vertical-align: top; white-space: pre-line; color: inherit;
  background: none; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .35); padding: .15em .8em .15em 0; }
.corrector-lab thead th { vertical-align: bottom; }
.corrector-lab .number { text-align: right; white-space: pre; font-variant-numeric: tabular-nums; }
.corrector-lab .dim { opacity: .65; }
.corrector-lab p { margin: .3em 0; }
.corrector-lab .sentence { white-space: pre-wrap; }
.corrector-lab ins { background: rgba(46, 160, 67, .28); color: inherit; text-decoration: underline; }
.corrector-lab del { background: rgba(248, 81, 73, .28); color: inherit; text-decoration: line-through; }
.corrector-lab img { max-width: 100%; background: white; }
"""
"""Colours are thin layers over whatever background there is; what they say, underline and strike-through say too."""


class Html(str):
    """Text that is HTML already, so that it is not escaped again."""

    __slots__ = ()


def text(value: object) -> Html:
    """A value as HTML: what is HTML already stays, all else is escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def framed(*parts: object) -> Html:
    """What a notebook shows: the parts one below the other, in the lab's style."""
    return Html(f'<div class="corrector-lab"><style>{STYLE}</style>{"".join(map(text, parts))}</div>')


def paragraph(value: object, kind: str = "") -> Html:
    """A paragraph; `kind` is a class of STYLE, such as dim."""
    return Html(f"<p{_class(kind)}>{text(value)}</p>")


def table(
    headings: Sequence[object],
    rows: Iterable[Sequence[object]],
    caption: object = "",
    numbers: Iterable[int] = (),
    dim: Iterable[int] = (),
) -> Html:
    """A table; the columns `numbers` stand flush right, the rows `dim` step back, both counted from 0.

    Raises ValueError for a row with another number of cells than there are headings.
    """
    right, back, lines = {*numbers}, {*dim}, list[str]()
    for i, row in enumerate(rows):
        if len(row) != len(headings):
            raise ValueError(f"row {i} has {len(row)} cells for {len(headings)} headings")
        lines.append(f"<tr{_class('dim' * (i in back))}>{_cells('td', row, right)}</tr>")
    above = f"<caption>{text(caption)}</caption>" if caption else ""
    head = f"<thead><tr>{_cells('th', headings, right)}</tr></thead>"
    return Html(f"<table>{above}{head}<tbody>{''.join(lines)}</tbody></table>")


def card(title: object, fields: Mapping[str, object]) -> Html:
    """A name with its fields below, one a line; fields without a value ("" or None) are left out."""
    lines = [f"<tr><th>{text(k)}</th><td>{text(v)}</td></tr>" for k, v in fields.items() if v not in ("", None)]
    return Html(f"<table><caption>{text(title)}</caption><tbody>{''.join(lines)}</tbody></table>")


def _cells(tag: str, values: Sequence[object], right: set[int]) -> str:
    return "".join(f"<{tag}{_class('number' * (i in right))}>{text(v)}</{tag}>" for i, v in enumerate(values))


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
