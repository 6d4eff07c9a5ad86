import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.tasks.grading import final_number, grade, last_boxed, number, same_number


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2 and 3\n#### 1,234", "1234"),
        ("#### -5", "-5"),
        ("#### $5.50 ", "5.50"),
        ("#### -$5", "-5"),
        ("#### 7\nthen 9", "7"),
        ("#### none, 9 apples", "9"),
        ("so 48-24", "24"),
        ("10 - 5", "5"),
        ("it is -3.", "-3"),
        ("it is \u22123", "-3"),
        ("costs $1,200.", "1200"),
        ("about 50%", "50"),
        ("1,2,3", "3"),
        ("= .25", ".25"),
        ("no figures", None),
        ("", None),
    ],
)
def test_final_number(text: str, found: str | None):
    assert final_number(text) == found


@given(st.integers(-(10**9), 10**9), st.text(st.characters(exclude_characters="#", exclude_categories=["Cs"])))
def test_marked_number_is_found_behind_any_text(n: int, text: str):
    assert final_number(f"{text}\n#### {n:,}") == str(n)


def test_same_number():
    assert same_number("72", "72.00") and same_number("1,200", "$1200") and same_number("1/2", ".5")
    assert not same_number("72", "73") and not same_number("72", "-72")
    assert not same_number(None, None) and not same_number("x", "x") and not same_number("1 2", "12")
    assert number("1/0") is None and number("1e9") is None


def test_last_boxed_counts_braces():
    assert last_boxed(r"\boxed{1} and \boxed{\frac{3}{4}} done") == r"\frac{3}{4}"
    assert last_boxed(r"\boxed{2} then \boxed{3") == "2"
    assert last_boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert last_boxed("none") is None


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        (r"so \boxed{\frac{1}{2}}", r"\boxed{0.5}", True),
        (r"\boxed{3}", r"first \boxed{3}, no: \boxed{4}", False),
        (r"\boxed{3}", r"first \boxed{4}, no: \boxed{3}", True),
        ("x+1", r"\boxed{1+x}", True),
        ("x+1", r"\boxed{x+2}", False),
        ("(1,2)", r"\boxed{(1, 2)}", True),
        ("12", "it is 12", True),
        ("12", "it is 13", False),
        ("12", "no idea", None),
        ("x+1", "x+1, without a box", None),
        ("1 + 1\n#### 2", "#### 2.0", True),
        ("2", r"\boxed{}", None),
    ],
)
def test_grade(gold: str, answer: str, verdict: bool | None):
    assert grade(gold, answer) is verdict


def test_the_timeout_works_in_a_thread_and_grading_goes_on_after_it():
    grade("x+1", r"\boxed{1+x}")
    verdicts: list[object] = []

    def work():
        with pytest.warns(UserWarning, match="gave up"):
            verdicts.append(grade("x", r"\boxed{9^{9^{9^{9}}}+x}", timeout_s=0.3))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert verdicts == [False]
    assert grade("x+1", r"\boxed{1+x}") is True
