"""HTML tables: what is text stays text, whatever it holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.display.table import Html, card, framed, paragraph, table, text

OWN = {"div", "style", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
EVIL = "<script>alert('x')</script>"


@given(st.text(alphabet="ab <>&\"'/script=", max_size=40))
def test_no_tag_comes_out_of_text(words: str) -> None:
    shown = framed(table((words, "b"), [(words, 1)], words), card(words, {words: words}), paragraph(words))
    assert {tag.lower() for tag in re.findall(r"</?(\w+)", shown)} <= OWN
    assert text(words) in shown


def test_text_is_escaped_once() -> None:
    once = text(EVIL)
    assert "<script" not in once and text(once) == once
    assert isinstance(once, Html)


def test_numbers_stand_right_and_dim_rows_step_back() -> None:
    shown = table(("name", "n"), [("a", 1), ("b", 2)], numbers=[1], dim=[1])
    assert '<tr><td>a</td><td class="number">1</td></tr>' in shown
    assert '<tr class="dim"><td>b</td><td class="number">2</td></tr>' in shown


def test_a_card_leaves_out_what_is_missing() -> None:
    shown = card("vector", {"task": "dialogue", "data": None, "of": "", "n": 0})
    assert "task" in shown and "<td>0</td>" in shown
    assert "data" not in shown and ">of<" not in shown


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 headings"):
        table(("a", "b"), [(1, 2), (1,)])
