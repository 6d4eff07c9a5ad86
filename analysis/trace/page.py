"""The page as one HTML text: markup, look, data, Plotly and script, with nothing to fetch."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

PARTS = ("page.css", "nodes.js", "tables.js", "strip.js", "charts.js", "page.js")
"""Files beside this module that page.html takes in, each where it says <!--name-->."""


def render(runs: Sequence[dict[str, Any]], command: str) -> str:
    """The page of some runs; `command` is what made it."""
    here = files("analysis.trace")
    data = {"runs": list(runs), "made": {"command": command, "plotly": importlib.metadata.version("plotly")}}
    parts = {name: (here / name).read_text(encoding="utf-8") for name in PARTS}
    parts |= {"data": embedded(data), "plotly": get_plotlyjs()}
    # One pass, so that what is put in is not searched for places to put things in.
    return re.sub(r"<!--([\w.]+)-->", lambda m: parts[m[1]], (here / "page.html").read_text(encoding="utf-8"))


def embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever texts it holds."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
