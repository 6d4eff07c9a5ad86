import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from corrector.errors import UserError, run_cli

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Config:
    """Weigh things."""

    n: int = 3
    """How many."""
    name: str = "a"
    """Which."""


def call(monkeypatch: pytest.MonkeyPatch, words: str, main, default=None) -> None:
    monkeypatch.setattr(sys, "argv", ["weigh", *words.split()])
    run_cli(Config, main, "lab.weigh", default)


def test_flags_become_the_config(monkeypatch):
    got: list[Config] = []
    call(monkeypatch, "--n 5", got.append)
    assert got == [Config(5, "a")]


def test_flags_are_laid_over_a_default_even_where_they_equal_the_class(monkeypatch):
    got: list[Config] = []
    call(monkeypatch, "--n 3", got.append, lambda: Config(7, "b"))
    assert got == [Config(3, "b")]


def raising(error: BaseException):
    def main(config: Config) -> None:
        raise error

    return main


def test_a_users_mistake_is_one_line_and_exit_code_2(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "", raising(UserError("n=3 is odd;\n  give an even one")))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "lab.weigh: n=3 is odd; give an even one\n"


def test_a_mistake_in_the_default_is_the_users_too(monkeypatch, capsys):
    def default() -> Config:
        raise UserError("no such recipe")

    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "", lambda config: None, default)
    assert stop.value.code == 2 and capsys.readouterr().err == "lab.weigh: no such recipe\n"


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "", raising(KeyboardInterrupt()))
    assert stop.value.code == 130 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a fault"), RuntimeError("a fault")])
def test_a_fault_of_the_lab_keeps_its_traceback(monkeypatch, error):
    with pytest.raises(type(error), match="a fault"):
        call(monkeypatch, "", raising(error))


def test_unknown_flags_exit_2_and_help_exits_0(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--nn 5", lambda config: None)
    assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--help", lambda config: None)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "Weigh things" in printed and "How many" in printed


SCRIPT = """
import subprocess, sys
from dataclasses import dataclass
from corrector.errors import run_cli

@dataclass(frozen=True)
class Config:
    '''Weigh things.'''
    n: int = 3

def main(config):
    {body}

run_cli(Config, main, "lab.weigh")
"""


def unread(body: str, *words: str) -> tuple[int, str]:
    """Exit code and stderr of a command whose reader went away before it wrote a word."""
    command = [sys.executable, "-c", SCRIPT.format(body=body), *words]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    finally:
        os.close(write)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("pass", ["--help"]),
        ("print('a line')", []),
        ("print('x' * 10**6)", []),
        ("subprocess.run([sys.executable, '-c', 'raise SystemExit(141)'], check=True)", []),
    ],
)
def test_a_reader_that_went_away_is_exit_code_141_without_a_word(body, words):
    assert unread(body, *words) == (141, "")


def test_a_broken_pipe_that_is_not_stdout_and_a_program_that_fails_are_faults(monkeypatch):
    with pytest.raises(BrokenPipeError):
        call(monkeypatch, "", raising(BrokenPipeError()))
    with pytest.raises(subprocess.CalledProcessError):
        call(monkeypatch, "", raising(subprocess.CalledProcessError(2, "figures.dose")))


def test_a_users_mistake_is_told_where_nobody_reads_stdout():
    code, said = unread("from corrector.errors import UserError; raise UserError('n=3 is odd')")
    assert (code, said) == (2, "lab.weigh: n=3 is odd\n")


RANKS = """
import os, subprocess, sys
from dataclasses import dataclass
from corrector.errors import UserError, run_cli

@dataclass(frozen=True)
class Config:
    n: int = 0

def main(config):
    raise UserError({message})

if len(sys.argv) == 1:  # the launcher
    for rank in range(3):
        env = dict(os.environ, RANK=str(rank), LOCAL_RANK=str(rank))
        print(rank, subprocess.run([sys.executable, __file__, "--n", str(rank)], env=env).returncode, flush=True)
else:
    run_cli(Config, main, "lab.weigh")
"""


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("'too heavy'", ["lab.weigh: too heavy"]),
        ("f'too heavy for {config.n // 2}'", ["lab.weigh: too heavy for 0", "lab.weigh: too heavy for 1"]),
    ],
)
def test_processes_of_one_launch_say_a_mistake_once_and_all_exit_2(tmp_path, message, lines):
    """Each launch anew; what only some processes met is said by them."""
    (tmp_path / "launch.py").write_text(RANKS.replace("{message}", message))
    env = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for _ in range(2):
        command = [sys.executable, str(tmp_path / "launch.py")]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
        assert done.stdout.splitlines() == ["0 2", "1 2", "2 2"]
        assert done.stderr.splitlines() == lines
