"""The house: imports point down, records and figures need no torch, modules stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("corrector", "probes", "steering", "analysis", "figures")
"""From the ground up; each imports only itself and what is below."""
MODULES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
MAX_LINES = 300


def imported(source: str) -> set[str]:
    """Packages that a module imports anywhere, also inside functions, for typing, or by `import_module("name")`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                names.add(str(node.args[0].value))
    return {name.split(".")[0] for name in names}


def upward(floor: str, source: str) -> set[str]:
    """Floors above its own that a module imports."""
    return imported(source) & {*FLOORS[FLOORS.index(floor) + 1 :]}


def test_the_check_sees_every_way_up() -> None:
    for source in (
        "import steering",
        "import steering.sweep as s",
        "def f():\n    from steering.vectors import SteeringVector",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import steering",
        "import importlib\nimportlib.import_module('steering.sweep')",
    ):
        assert upward("probes", source) == {"steering"}
        assert upward("steering", source) == set()
    assert upward("steering", "from corrector import load\nfrom . import vectors") == set()


def test_every_floor_is_there() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == {*FLOORS}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    assert upward(floor, path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", sorted((ROOT / "figures").rglob("*.py")), ids=lambda path: path.name)
def test_figures_name_no_torch(path: Path) -> None:
    assert not imported(path.read_text(encoding="utf-8")) & {"torch", "transformers", "probes", "steering"}


@pytest.mark.parametrize(
    "module",
    [
        "corrector",
        "corrector.records",
        "corrector.statistics",
        "analysis.curve",
        "figures",
        "figures.dose",
        "figures.scan",
        "analysis.onset",
        "steering",
    ],
)
def test_light_modules_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
