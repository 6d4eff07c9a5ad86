"""Rows become columns and come back as they were; a diff's lengths cut both texts as JavaScript counts."""

from hypothesis import given
from hypothesis import strategies as st

from analysis.trace.columns import columns, cutter, value

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
cells = scalars | st.text(max_size=5) | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=2), scalars)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), cells), max_size=6))
def test_rows_come_back(rows):
    table = columns(rows)
    assert table["n"] == len(rows)
    for i, row in enumerate(rows):
        got = {name: value(table, name, i) for name in table["columns"]}
        assert got == {name: row.get(name) for name in table["columns"]}
        assert {name: type(v) for name, v in got.items()} == {name: type(row.get(name)) for name in got}


def test_a_text_stands_once():
    assert columns([{"t": "a"}, {"t": None}, {"t": "a"}])["columns"]["t"] == {"pool": ["a"], "at": [0, -1, 0]}


@given(st.text(max_size=20), st.text(max_size=20))
def test_cuts_cut_both_texts(last, correction):
    before, after = (text.encode("utf-16-le", "surrogatepass") for text in (last, correction))
    i = j = 0
    changed = False
    for part in cutter()(last, correction):
        a, b = part[0], part[-1]
        if len(part) == 1:
            assert before[2 * i : 2 * (i + a)] == after[2 * j : 2 * (j + b)]
        else:
            assert not changed, "neighbouring changes are one"
        changed = len(part) == 2
        i, j = i + a, j + b
    assert (2 * i, 2 * j) == (len(before), len(after))


def test_a_rewording_is_one_change_and_letters_beyond_16_bits_count_twice():
    cut = cutter()
    assert cut("a 😀 b", "a c d b") == [[1], [3, 4], [2]]
    assert cut("a", None) is None
