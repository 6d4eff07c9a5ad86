"""Numbers as they are written."""

import numpy as np
import pytest

from corrector.records.canonical import canonical, rounded


def test_rounded_keeps_six_digits_and_says_none_where_a_float_is_nan():
    given = {"a": 1.23456789, "b": [float("nan"), (2, float("nan"))], "c": np.array([0.5]), "d": None}
    assert rounded(given, "here") == {"a": 1.23457, "b": [None, [2, None]], "c": [0.5], "d": None}


def test_infinity_is_no_number_of_a_table():
    with pytest.raises(ValueError, match="here, a: inf"):
        rounded({"a": float("inf")}, "here")


def test_canonical_is_one_text_a_value():
    assert canonical({"b": 1, "a": (1, 2)}) == canonical({"a": [1, 2], "b": 1})
