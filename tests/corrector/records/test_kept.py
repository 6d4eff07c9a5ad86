"""Replies on disk."""

import pytest

from corrector.errors import UserError
from corrector.records.kept import Kept


def test_what_is_kept_is_found_under_all_that_was_sent(tmp_path):
    kept = Kept(tmp_path / "replies")
    sent = {"url": "u", "body": {"text": "héllo\u2028", "n": 1}}
    key = kept.key(sent)
    assert kept.get(key) is None and not (tmp_path / "replies").exists()
    kept.keep(key, sent, {"text": "yes"})
    assert Kept(tmp_path / "replies").get(key) == {"text": "yes"}
    assert kept.key({"body": {"n": 1, "text": "héllo\u2028"}, "url": "u"}) == key
    assert kept.key({**sent, "url": "v"}) != key


def test_a_damaged_file_is_named(tmp_path):
    kept = Kept(tmp_path)
    kept.keep(key := kept.key({"a": 1}), {"a": 1}, {})
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")
    with pytest.raises(UserError, match=file.name):
        kept.get(key)
