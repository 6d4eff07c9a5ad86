import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.sentences import complete_sentence, repeats, split_lines, split_sentences

REALISTIC = st.lists(
    st.sampled_from(
        [
            "It costs $13.5 today.", "Dr. Smith paid 3.", "1. Do this.", "Then rest", "He said \"Go!\" and left.",
            "Is it 5?", "Yes... maybe.", "The U.S. team won on Jan. 5.", "See Fig. 3.", "x = 4.", "5 are left.",
            "John ate 12 / 4 = 3 apples.", "#### 72", "- a bullet", "lower case starts.", "What?! No.", "A. B. Cole",
            r"So \boxed{3}.",
        ]
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


@given(st.text())
def test_spans_join_to_any_text(text: str):
    for split in (split_sentences, split_lines):
        spans = split(text)
        assert "".join(spans) == text
        assert len(spans) <= 1 or all(span.strip() for span in spans)
        assert all(span == span.rstrip() for span in spans[:-1])


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("", []),
        (" \n", [" \n"]),
        ("It costs 13.5 dollars. We pay.", ["It costs 13.5 dollars.", " We pay."]),
        ("Dr. Smith met Mrs. Jones. They spoke.", ["Dr. Smith met Mrs. Jones.", " They spoke."]),
        ("1. Do x. 2. Do y.", ["1. Do x.", " 2. Do y."]),
        ("1. Do x\n2. Do y", ["1. Do x", "\n2. Do y"]),
        ("First line\n\nno stop here", ["First line", "\n\nno stop here"]),
        ("One. Two.  \n", ["One.", " Two.  \n"]),
        ("  One. Two", ["  One.", " Two"]),
        ("Really? Yes! Good", ["Really?", " Yes!", " Good"]),
        ("We use e.g. apples. Fine", ["We use e.g. apples.", " Fine"]),
    ],
)
def test_known_cases(text: str, spans: list[str]):
    assert split_sentences(text) == spans


def test_lines_keep_several_sentences():
    assert split_lines("One. Two.\n #### 3 ") == ["One. Two.", "\n #### 3 "]


@given(REALISTIC, st.sampled_from([" ", "\n", "  ", " \n"]))
def test_a_complete_sentence_is_never_taken_back(parts: list[str], separator: str):
    text = separator.join(parts)
    first = split_sentences(text)[0]
    for end in range(len(text) + 1):
        assert complete_sentence(text[:end]) in (None, first), text[:end]
        assert complete_sentence(text[:end], split_lines) in (None, split_lines(text)[0]), text[:end]


def test_a_stop_alone_completes_nothing():
    for text in ("It costs 13.", "It costs 13. ", "It costs 13.5", "He left.", "He left. ", "He left.\n", "line\n"):
        assert complete_sentence(text) is None


def test_completion_comes_as_early_as_it_is_certain():
    assert complete_sentence("He left. T") == "He left."
    assert complete_sentence("It costs 13. Th") is None
    assert complete_sentence("It costs 13. Then ") == "It costs 13."
    assert complete_sentence("It costs 13.\n5") == "It costs 13."
    assert complete_sentence("One. Two.\nT", split_lines) == "One. Two."
    assert complete_sentence("One. Two is", split_lines) is None


def test_repeats():
    assert repeats("a b c d a b c d e")
    assert not repeats("a b c d e a b c d e")
    assert repeats("go go go go go go go go") and not repeats("go go go go go go go")
