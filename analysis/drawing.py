"""From numbers to what is looked at: cells of a terminal table, and the figure of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any


def cell(row: dict[str, Any], name: str, digits: int) -> str:
    """`value [low, high]` of the columns `name`, `name_low` and `name_high`, escaped for rich."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    ends = "" if low is None else f" \\[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{row[name]:.{digits}f}{ends}"


def draw(figure: str, run: Path) -> None:
    """Draw a run by `python -m figures.<figure> RUN`; figures are a floor above this one, so not to be imported."""
    subprocess.run([sys.executable, "-m", f"figures.{figure}", str(run)], check=True)
