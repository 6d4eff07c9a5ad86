import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.metrics import edit, first_divergence, token_copy_rate

TOKENS = st.lists(st.integers(0, 3), max_size=12)


def levenshtein(a: str, b: str) -> int:
    """Plain Wagner-Fischer, the oracle."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def longest_common_subsequence(a: list[int], b: list[int]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.text("abc ", min_size=1, max_size=12), st.text("abc ", max_size=12))
def test_definitions_against_an_own_levenshtein(y1: str, y2: str):
    e = edit(y1, y2, [ord(c) for c in y1], [ord(c) for c in y2])
    assert e.distance == levenshtein(y1, y2)
    assert e.edit_ratio == e.distance / len(y1)
    assert e.norm_distance == e.distance / max(len(y1), len(y2)) <= 1
    assert e.length_ratio == len(y2) / len(y1)
    assert e.copied == (y1.strip() == y2.strip())
    assert (e.first_divergence is None) == (y1 == y2) == (e.similarity == 1.0)
    assert (e.token_copy_rate == 1.0) or y1 != y2


def test_a_worked_case():
    e = edit("2 + 2 = 5", "2 + 2 = 4, so four", [2, 9, 2, 8, 5], [2, 9, 2, 8, 4, 7])
    assert (e.distance, e.edit_ratio, e.length_ratio) == (10, 10 / 9, 2.0)
    assert (e.copied, e.first_divergence, e.token_copy_rate) == (False, 4, 4 / 6)


def test_edit_ratio_exceeds_one_and_norm_distance_does_not():
    e = edit("ab", "xyzxyz", [1], [2, 3])
    assert (e.edit_ratio, e.norm_distance, e.token_copy_rate) == (3.0, 1.0, 0.0)


def test_an_empty_correction_copies_nothing():
    e = edit("ab", "", [1, 2], [])
    assert (e.distance, e.length_ratio, e.token_copy_rate, e.first_divergence, e.copied) == (2, 0.0, 0.0, 0, False)


@given(TOKENS, TOKENS)
def test_token_metrics(a: list[int], b: list[int]):
    at = first_divergence(a, b)
    if at is None:
        assert a == b
    else:
        assert a[:at] == b[:at] and a[at : at + 1] != b[at : at + 1]
    if b:
        assert 0 <= token_copy_rate(a, b) * len(b) <= longest_common_subsequence(a, b) + 1e-9
        assert token_copy_rate(b, b) == 1.0


def test_faults_are_loud():
    with pytest.raises(UserError, match="last=''"):
        edit("", "x", [], [1])
    with pytest.raises(UserError, match="correction='x' came with no tokens"):
        edit("x", "x", [1], [])
