"""The full-size document: its commands parse, its table is the command's, and its arithmetic is as it says."""

import re
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tyro

import corrector.errors
from analysis.budget import Budget, check, main, measured, said, steps, table
from corrector.errors import UserError
from corrector.records import read_rows
from steering.sweeping.plan import FULL_CONTROLS

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "full-size.md"
OTHERS = ("export", "vllm", "LLAMA=")
"""What lines of commands may begin with that are not the lab's."""


def commands(text):
    """Words of every command of the lab in the blocks of a document, as a shell would split them."""
    variables, found = {}, []
    for block in re.findall(r"^```\n(.*?)^```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.match(r'(\w+)="(.*)"$', line):
                variables[match[1]] = match[2]
            elif not line.startswith(OTHERS):
                for name, value in variables.items():
                    line = line.replace(f"${name}", value)
                found.append(shlex.split(line))
    return found


def parsed(words, monkeypatch):
    """What the command's own parser makes of its flags; nothing is run."""
    at = words.index("-m") + 1
    at += words[at] == "--"
    seen = []

    def parse(config, main, prog, default=None):
        start = {"default": default()} if default else {}
        seen.append((prog, tyro.cli(config, args=words[at + 1 :], **start)))

    monkeypatch.setattr(corrector.errors, "run_cli", parse)
    monkeypatch.setattr(sys, "argv", [words[at], *words[at + 1 :]])
    runpy.run_module(words[at], run_name="__main__", alter_sys=True)
    assert [prog for prog, _ in seen] == [words[at]]
    return seen[0][1]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # runpy: the module was imported before
@pytest.mark.parametrize("words", commands(DOC.read_text()), ids=lambda words: " ".join(words)[:60])
def test_every_command_of_the_document_parses(words, monkeypatch):
    assert words[0] in ("python", "torchrun") and parsed(words, monkeypatch) is not None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_flag_that_is_not_there_would_be_found(monkeypatch, capsys):
    found = commands(DOC.read_text())
    assert len(found) >= 11 and any("http://localhost:8000/v1" in words for words in found)
    with pytest.raises(SystemExit):
        parsed([*found[0], "--nowhere", "1"], monkeypatch)
    assert "nowhere" in capsys.readouterr().err


def test_the_document_has_the_table_that_the_command_prints(capsys):
    text = DOC.read_text()
    assert table(Budget()) in text and said(Budget()) in text
    main(Budget())
    assert table(Budget()) in capsys.readouterr().out


def test_the_counts_are_those_of_the_run():
    found = measured(Budget().run)
    assert found["n"] == 200 and found["of"] == "arithmetic-l"
    for who in ("upstream", "corrector"):
        mean, low, high = found[who]
        assert 1 < low < mean < high


def test_hours_follow_the_sizes():
    base = {s.name: s for s in steps(Budget(step_seconds=1e-9))}
    twice = {s.name: s for s in steps(Budget(step_seconds=1e-9, corrector_params=5.2e9))}
    assert twice["train"].hours == pytest.approx(2 * base["train"].hours)
    assert twice["annotate"].hours == base["annotate"].hours and twice["map"].hours == pytest.approx(
        2 * base["map"].hours
    )
    c, train = Budget(), base["train"]
    assert train.hours == pytest.approx(6 * c.corrector_params * train.fed / (c.flops * c.utilisation) / 3600)
    slow = {s.name: s for s in steps(Budget(step_seconds=1.0))}
    assert slow["sizes"].hours == pytest.approx(
        2 * base["sizes"].written / 2 / 3600
    )  # a second a token, of both models


def test_numbers_that_give_no_hours_are_refused(tmp_path):
    for config, flag in (
        (replace(Budget(), flops=0.0), "--flops"),
        (replace(Budget(), utilisation=1.5), "--utilisation"),
    ):
        with pytest.raises(UserError, match=flag):
            check(config)
    with pytest.raises(UserError, match="no finished run"):
        steps(Budget(run=tmp_path))


def test_the_full_battery_has_as_many_directions_as_a_run_of_it():
    rows = read_rows(ROOT / "figures" / "runs" / "fig8-dialogue-0", "edits")
    steered = {row["direction"] for row in rows} - {"correction", "none"}
    assert len(steered) == FULL_CONTROLS == Budget().controls
