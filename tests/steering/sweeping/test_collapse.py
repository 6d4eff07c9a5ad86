import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.sentences import repeats
from steering.sweeping.collapse import KINDS, collapse, usable_range

GOOD = "You can ask a friend to help you with the bike."


@pytest.mark.parametrize(
    ("text", "ended", "well_formed", "kind"),
    [
        (GOOD, True, True, "none"),
        ("", True, False, "empty"),
        (" \n", False, False, "empty"),
        ("the " * 8, True, False, "repetition"),
        ("a b " * 4, False, False, "repetition"),
        ("a b c " * 4, False, False, "repetition"),
        ("one two three four five " * 2, True, True, "repetition"),
        ("a b c d e f g h " * 2, False, False, "repetition"),
        (GOOD, False, True, "no_end"),
        (GOOD, False, False, "no_end"),
        ("bike the ask", True, False, "malformed"),
        ("no no no, I said", True, True, "none"),
    ],
)
def test_every_text_has_the_first_kind_whose_rule_holds(text, ended, well_formed, kind):
    assert collapse(text, ended, well_formed) == kind


@given(st.lists(st.sampled_from("abc"), max_size=20), st.booleans(), st.booleans())
def test_none_is_well_formed_ended_text_and_a_loop_of_the_tasks_is_a_repetition(words, ended, well_formed):
    kind = collapse(" ".join(words), ended, well_formed)
    assert kind in KINDS
    if kind == "none":
        assert words and ended and well_formed
    if words and repeats(" ".join(words)):
        assert kind == "repetition"


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True), st.lists(st.integers(), max_size=3))
def test_a_period_of_up_to_eight_words_is_found_wherever_it_starts(block, before):
    words = [f"x{w}" for w in before] + [f"y{w}" for w in block] * 8
    assert collapse(" ".join(words), True, True) == "repetition"


def test_the_usable_range_is_contiguous_around_zero():
    assert usable_range([-2.0, -1.0, 0.0, 1.0, 2.0], [1.0, 0.9, 1.0, 0.95, 0.2]) == [0.0, 1.0]
    assert usable_range([-1.0, 0.0, 1.0], [1.0, 0.9, 1.0]) == []
    with pytest.raises(UserError, match="lack 0"):
        usable_range([-1.0, 1.0], [1.0, 1.0])
