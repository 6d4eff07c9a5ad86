"""The notebooks: pairs agree, cells define nothing, outputs name no machine, and every one runs with smoke sizes."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import psutil
import pytest
from executed import ROOT, SOURCES, execute, main, saved
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

LARGEST = 400_000
"""Bytes of a committed notebook, at most."""
MACHINE = re.compile(rf"(?<![\w.])/(home|root|tmp|work|Users|var|opt)/|\.venv/|{re.escape(str(ROOT))}")
every = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def committed(source: Path) -> NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def defined(code: str) -> list[str]:
    """What a cell defines: functions, classes and lambdas."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    return [type(node).__name__ for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]


def test_there_are_seven() -> None:
    assert [source.stem[0] for source in SOURCES] == [*"1234567"]
    assert sorted((ROOT / "notebooks").glob("*.ipynb")) == [source.with_suffix(".ipynb") for source in SOURCES]


@every
def test_the_pair_agrees(source: Path) -> None:
    ours, theirs = jupytext.read(source).cells, committed(source).cells
    assert [(c.cell_type, c.source) for c in ours] == [(c.cell_type, c.source) for c in theirs]


@every
def test_cells_define_nothing(source: Path) -> None:
    assert not defined(source.read_text(encoding="utf-8"))


def test_the_check_sees_definitions() -> None:
    assert defined("def f(): pass") == ["FunctionDef"]
    assert defined("if True:\n    class A: pass\nx = lambda: 1") == ["ClassDef", "Lambda"]


@every
def test_the_committed_notebook_was_run_whole_and_is_small(source: Path) -> None:
    cells = [c for c in committed(source).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [out for c in cells for out in c.outputs]
    assert any("text/html" in out.get("data", {}) for out in outputs)
    assert not [out for out in outputs if out.output_type == "error" or out.get("name") == "stderr"]
    assert source.with_suffix(".ipynb").stat().st_size < LARGEST


@every
def test_outputs_name_no_path_of_a_machine(source: Path) -> None:
    for cell in committed(source).cells:
        for out in cell.get("outputs", []):
            # figures are base64, in which any letters may follow a slash
            text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", json.dumps(out.get("data", out.get("text", ""))))
            assert not MACHINE.search(text), f"{source.stem}: {cell.source[:60]}"


@every
def test_runs_and_finds_what_it_says(source: Path, tmp_path: Path) -> None:
    notebook = execute(source, tmp_path, smoke=True)
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert "assert " in last.source and last.execution_count
    assert (tmp_path / "runs").is_dir(), "what it wrote lies in its own folder"


def test_a_false_claim_fails(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("# %%\nimport sys\nsys.executable\n\n# %%\nassert 1 > 2\n")
    with pytest.raises(CellExecutionError, match="AssertionError"):
        execute(wrong, tmp_path, smoke=True)


def test_cells_run_in_this_interpreter_which_ends_and_keep_no_progress(tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    code = 'print("bar", file=sys.stderr)\nsys.executable, "CORRECTOR_LAB_SMOKE" in os.environ, os.getpid()\n'
    source.write_text(f"# %%\nimport os, sys\n{code}")
    (cell,) = saved(execute(source, tmp_path, smoke=False)).cells
    (out,) = cell.outputs
    interpreter, smoke, pid = ast.literal_eval(out["data"]["text/plain"])
    assert (interpreter, smoke) == (sys.executable, False)
    assert not cell.metadata and not psutil.pid_exists(pid)


def test_of_a_terminal_report_the_result_alone_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "own.py"
    source.write_text('# %% tags=["terminal-report"]\nprint("long")\n1 + 1\n\n# %%\nprint("short")\n')
    first, second = saved(execute(source, tmp_path, smoke=True)).cells
    assert [out.output_type for out in first.outputs] == ["execute_result"]
    assert second.outputs[0].text == "short\n"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SystemExit, match="'8_more' is no notebook; choose of 1_quickstart"):
        main(["8_more"])
