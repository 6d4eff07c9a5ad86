"""A terminal's report as HTML: the tables and lines that a `rich` console is given, for a notebook."""

from __future__ import annotations

import html
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from corrector.display.table import Html, paragraph, table, text

RIGHT = "right"


class HtmlConsole(Console):
    """Takes what is printed on it as HTML, in `parts`; nothing reaches the screen.

    The same function that prints a report so shows it in a notebook, with the same words and digits.
    """

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.parts: list[Html] = []

    def print(self, *objects: Any, **options: Any) -> None:
        """Take tables as tables, and all else as a paragraph; `style="dim"` and `markup=False` are understood."""
        markup = options.get("markup") is not False
        kind = "dim" if options.get("style") == "dim" else ""
        for thing in objects:
            if isinstance(thing, Table):
                self.parts.append(of_table(thing))
                continue
            line = _text(thing, markup)
            if line.plain.strip():
                self.parts.append(paragraph(_marked(line), kind or "dim" * (str(line.style) == "dim")))


def of_table(shown: Table) -> Html:
    """A table of `rich` as HTML: headings, cells, dim rows and what stands flush right."""
    columns = shown.columns
    cells = [[_text(cell).plain for cell in column.cells] for column in columns]
    return table(
        [_text(column.header).plain for column in columns],
        [list(row) for row in zip(*cells, strict=True)],
        _text(shown.title or "").plain,
        [i for i, column in enumerate(columns) if column.justify == RIGHT],
        [i for i, row in enumerate(shown.rows) if row.style == "dim"],
    )


def _text(value: Any, markup: bool = True) -> Text:
    if isinstance(value, Text):
        return value
    return Text.from_markup(str(value)) if markup else Text(str(value))


def _marked(line: Text) -> Html:
    """A line with what is bold in it."""
    out, at = "", 0
    for span in sorted(s for s in line.spans if "bold" in str(s.style)):
        if span.start >= at:
            out += html.escape(line.plain[at : span.start]) + f"<b>{html.escape(line.plain[span.start : span.end])}</b>"
            at = span.end
    return Html(out + text(line.plain[at:]))
