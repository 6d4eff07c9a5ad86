"""A report printed on an HtmlConsole: the same words as on a terminal, escaped, and nothing on the screen."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from corrector.display.console import HtmlConsole, of_table

EVIL = "<script>alert(1)</script>"


def test_lines_and_tables_become_html(capsys: pytest.CaptureFixture[str]) -> None:
    console = HtmlConsole()
    console.print()
    console.print("plain \\[95 %]", style="dim")
    console.print("a [b] c", markup=False)
    console.print(Text.assemble(("steers: ", "bold green"), f"slope 1 {EVIL}"))
    found = Table("coef", title="curve")
    console.print("above", found)
    assert console.parts[:2] == ['<p class="dim">plain [95 %]</p>', "<p>a [b] c</p>"]
    assert console.parts[2] == "<p><b>steers: </b>slope 1 &lt;script&gt;alert(1)&lt;/script&gt;</p>"
    assert console.parts[3] == "<p>above</p>" and "<caption>curve</caption>" in console.parts[4]
    assert capsys.readouterr().out == ""


def test_a_table_keeps_cells_alignment_and_dim_rows() -> None:
    made = Table(title="[bold]what[/bold]")
    made.add_column("name\n\\[95 %]")
    made.add_column("n", justify="right")
    made.add_row(EVIL, "1")
    made.add_row(Text("b"), "2", style="dim")
    shown = of_table(made)
    assert "<caption>what</caption>" in shown and "<th>name\n[95 %]</th>" in shown
    assert "<script" not in shown and '<td class="number">1</td>' in shown
    assert '<tr class="dim"><td>b</td>' in shown
