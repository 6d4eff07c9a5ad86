"""Statistics of made pairs against counts by hand."""

import pytest

from corrector.annotators import action, statistics_of


def pair(last, correction, eos=False, is_wrong=None):
    return {"last": last, "correction": correction, "eos": eos, "is_wrong": is_wrong}


ROWS = [
    {
        "problem": "a",
        "stopped": "end",
        "dropped": "",
        "rounds": [pair("abcd", "abcd", is_wrong=False), pair("abcd", "abxd", True, True)],
    },
    {"problem": "b", "stopped": "dropped", "dropped": "unparsed", "rounds": [pair("abcd", "wxyz", is_wrong=True)]},
    {"problem": "c", "stopped": "dropped", "dropped": "unparsed", "rounds": []},
]


def test_actions_by_size_of_the_edit():
    assert [action("abcd", t) for t in (" abcd ", "abxd", "abxy", "wxyz")] == ["copy", "improve", "rewrite", "rewrite"]


def test_shares_ratios_and_what_was_dropped():
    got = statistics_of(ROWS)
    assert (got["problems"], got["pairs"]) == (3, 3)
    assert got["stopped"] == {"dropped": 2, "end": 1} and got["dropped"] == {"unparsed": 2}
    shares = {name: got["all"][name]["mean"] for name in ("copy", "improve", "rewrite", "eos", "is_wrong")}
    assert shares == pytest.approx({"copy": 1 / 3, "improve": 1 / 3, "rewrite": 1 / 3, "eos": 1 / 3, "is_wrong": 2 / 3})
    assert got["all"]["edit_ratio"]["mean"] == pytest.approx((0 + 0.25 + 1) / 3)
    assert got["all"]["edit_ratio"]["quartiles"] == pytest.approx([0.125, 0.25, 0.625])
    assert got["all"]["copy"]["n"] == 2  # questions
    assert [got["rounds"][k]["n"] for k in ("1", "2")] == [2, 1]
    assert got["rounds"]["2"]["copy"]["low"] is None


def test_an_unknown_truth_has_no_share():
    rows = [{"problem": "a", "stopped": "end", "dropped": "", "rounds": [pair("ab", "ab")]}]
    assert "is_wrong" not in statistics_of(rows)["all"]
    assert statistics_of([{**rows[0], "rounds": []}])["all"] == {}
