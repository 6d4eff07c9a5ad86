"""Token diffs: they lose nothing, are as short as can be, and show text as text."""

from __future__ import annotations

import re
from itertools import pairwise

import Levenshtein
from hypothesis import given
from hypothesis import strategies as st

from corrector.display.diff import Part, diff, joined, marked, words

tokens = st.lists(st.sampled_from(["a", " b", "<", "&", " c"]), max_size=8)


@given(st.text(max_size=60))
def test_words_join_to_the_text(text: str) -> None:
    assert "".join(words(text)) == text


@given(tokens, tokens)
def test_a_diff_holds_both_sides_and_is_shortest(last: list[str], correction: list[str]) -> None:
    parts = diff(last, correction)
    assert [t for p in parts for t in p.last] == last
    assert [t for p in parts for t in p.correction] == correction
    cost = sum(max(len(p.last), len(p.correction)) for p in parts if p.kind != "equal")
    assert cost == Levenshtein.distance(last, correction)


def test_kinds_are_named_by_what_changed() -> None:
    assert diff(words("a b c"), words("a x c d")) == [
        Part("equal", ("a",), ("a",)),
        Part("replace", (" b",), (" x",)),
        Part("equal", (" c",), (" c",)),
        Part("insert", (), (" d",)),
    ]


@given(tokens, tokens)
def test_joined_changes_lose_nothing_and_never_stand_side_by_side(last: list[str], correction: list[str]) -> None:
    parts = joined(diff(last, correction))
    assert [t for p in parts for t in p.last] == last
    assert [t for p in parts for t in p.correction] == correction
    assert all("equal" in (a.kind, b.kind) for a, b in pairwise(parts))
    for part in parts:
        kind = {(True, True): "replace", (True, False): "delete", (False, True): "insert"}
        assert part.kind in ("equal", kind[bool(part.last), bool(part.correction)])


@given(st.text(alphabet="ab <>&\"'/script", max_size=30), st.text(alphabet="ab <>&\"'/script", max_size=30))
def test_marked_text_is_escaped(last: str, correction: str) -> None:
    shown = marked(diff(words(last), words(correction)))
    assert not re.search(r"<(?!/?(del|ins)>)", shown)


def test_marked_shows_what_was_taken_out_and_put_in() -> None:
    assert marked(diff(words("1 < 2"), words("1 < 3"))) == "1 &lt;<del> 2</del><ins> 3</ins>"
