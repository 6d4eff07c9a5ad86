"""Execute notebooks with the interpreter that runs this, each in a folder of its own.

python tests/notebooks/executed.py [NAME ...]

executes them with their full sizes and writes notebooks/NAME.ipynb with outputs, of all notebooks where none is named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
TERMINAL = "terminal-report"
"""Tag of cells that run a command's main function, which prints its report as on a terminal."""
SECONDS = 1200
"""Longest that one cell may take."""


class ThisPython(AsyncKernelManager):
    """Starts the interpreter that runs the tests, whatever kernels a machine has installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def read(source: Path) -> NotebookNode:
    """A `# %%` source as a notebook, cells numbered so that the same source gives the same file."""
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
    return notebook


def execute(source: Path, folder: Path, smoke: bool) -> NotebookNode:
    """The notebook with its outputs; CellExecutionError where a cell raises. What it writes lies in `folder`."""
    notebook = read(source)
    env = {name: value for name, value in os.environ.items() if not name.startswith("CORRECTOR_LAB_SMOKE")}
    env |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_DISABLE": "1", "IPYTHONDIR": str(folder)}
    if smoke:
        env["CORRECTOR_LAB_SMOKE"] = "1"
    client = NotebookClient(notebook, kernel_manager_class=ThisPython, timeout=SECONDS, record_timing=False)
    client.execute(cwd=str(folder), env=env, stdout=subprocess.DEVNULL)  # what figures print as programs of their own
    return notebook


def saved(notebook: NotebookNode) -> NotebookNode:
    """The notebook as it is committed: without progress bars and warnings, and without the marks of one machine.

    Of cells tagged TERMINAL only the result is kept: what they print is shown once more by the run itself.
    """
    for cell in notebook.cells:
        if cell.cell_type == "code":
            last = TERMINAL in cell.metadata.get("tags", ())
            kept = [out for out in cell.outputs if out.output_type == "execute_result" or not last]
            cell.outputs = [out for out in kept if out.get("name") != "stderr"]
            cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    return notebook


def main(names: list[str]) -> None:
    """Execute and write the notebooks of these names, all where there is none."""
    known = {source.stem: source for source in SOURCES}
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"{unknown[0]!r} is no notebook; choose of {', '.join(known)}")
    for name in names or known:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = saved(execute(known[name], Path(folder), smoke=False))
        file = known[name].with_suffix(".ipynb")
        nbformat.write(notebook, file)
        print(f"{name}: {time.perf_counter() - began:.0f} s, {file.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
