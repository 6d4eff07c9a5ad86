"""What a result may depend on besides its configuration: versions, the lab's commit, the machine."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = (
    "corrector-lab",
    "torch",
    "transformers",
    "tokenizers",
    "transformer-lens",
    "nnsight",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "matplotlib",
    "levenshtein",
    "safetensors",
    "nupunkt",
    "concept-erasure",
    "math-verify",
)
"""Distributions whose versions can change a result, written to env.json where installed."""
SOURCES = ("corrector", "probes", "steering", "analysis", "figures", "pyproject.toml")
"""What counts as changed when a checkout is called dirty: not the run folders inside it."""


def environment(device: str) -> dict[str, Any]:
    """What a result may depend on besides its configuration. No environment variable is read."""
    packages: dict[str, str] = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "packages": packages,
        "git": _git(Path(__file__).resolve().parents[2]),
    }


def _git(root: Path) -> dict[str, Any] | None:
    """Commit and whether the checkout differs from it; None where the lab runs from no checkout of its own."""

    def git(*args: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return {"commit": git("rev-parse", "HEAD"), "dirty": git("status", "--porcelain", "--", *SOURCES) != ""}
    except (OSError, subprocess.SubprocessError):
        return None
