"""Numbers quoted in README and docs are those of the gallery and of the shipped runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from corrector.errors import UserError
from figures import quoted
from figures.quoted import QUOTE, Quoted, main, requote, sources

KNOWN = {
    ("a/gain",): [{"value": 0.4961, "low": 0.33, "high": 0.642, "n": 200.0}],
    ("a/ratio",): [{"value": 2.0, "low": None, "high": None, "n": 9.0}] * 2,
    ("a/ratio", "s-0"): [{"value": 2.345, "low": None, "high": None, "n": 9.0}],
    ("dose", "task/copied", "correction", "-2"): [{"value": -0.004, "low": -0.1, "high": 0.1, "n": 60.0, "x": -2.0}],
}


def one(text: str) -> str:
    now, faults = requote(text, KNOWN)
    assert not faults, faults
    return now


def test_a_number_takes_the_value_of_its_source_and_keeps_its_form():
    assert one("x .51 [.30, .60]<!--a/gain--> y") == "x .50 [.33, .64]<!--a/gain--> y"
    assert one("0.5<!--a/gain--> +.511<!--a/gain-->") == "0.5<!--a/gain--> +.496<!--a/gain-->"
    assert one("n = 1<!--a/gain; n-->") == "n = 200<!--a/gain; n-->"
    assert one("9.9<!--a/ratio; s-0--> times") == "2.3<!--a/ratio; s-0--> times"
    assert one("at 7<!--dose; task/copied; correction; -2; x-->") == (
        "at -2<!--dose; task/copied; correction; -2; x-->"
    )


def test_zero_has_no_sign():
    assert one(".51<!--dose; task/copied; correction; -2-->").startswith(".00<")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (".5<!--a/lost-->", "0 such rows"),
        (".5<!--a/ratio-->", "2 such rows"),
        (".5 [.1, .2]<!--a/ratio; s-0-->", "no such number"),
        ("text<!--a/gain-->", "no number before it"),
    ],
)
def test_what_cannot_be_told_is_said(text, why):
    now, faults = requote(text, KNOWN)
    assert now == text
    assert len(faults) == 1
    assert why in faults[0]


def test_the_documents_quote_what_the_runs_have(capsys):
    main(Quoted(check=True))
    assert " 0 differ" in capsys.readouterr().out
    assert sum(len(QUOTE.findall(f.read_text(encoding="utf-8"))) for f in quoted.DOCUMENTS) >= 20


def test_a_changed_number_fails_the_check_and_is_mended(tmp_path: Path, capsys):
    file = tmp_path / "doc.md"
    file.write_text("gain .99<!--arithmetic/sizes/correct/larger-->.", encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        main(Quoted(check=True), [file])
    assert caught.value.code == 1
    assert "doc.md: .99" in capsys.readouterr().out
    assert ".99" in file.read_text(encoding="utf-8")
    main(Quoted(), [file])
    main(Quoted(check=True), [file])


def test_a_lost_source_is_the_users_error(tmp_path: Path):
    file = tmp_path / "doc.md"
    file.write_text(".99<!--no/such thing-->.9<!--no/such/key-->", encoding="utf-8")
    with pytest.raises(UserError, match="0 such rows"):
        main(Quoted(check=True), [file])


def test_every_source_is_one_number():
    known = sources(quoted.GALLERY, quoted.FOUND)
    assert known[("dose-dialogue-0", "dialogue/edit_ratio", "correction", "0")][0]["n"] == 60
    assert known[("dialogue/dose/r2", "dialogue-0")][0]["value"] > 0.5
