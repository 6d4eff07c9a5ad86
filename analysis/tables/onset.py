"""The table of onset and saturation layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

READS = {
    "direction": "copy/rewrite, AUROC",
    "extent": "edit ratio, rho",
    "written": "1st token, share",
    "output": "copy/rewrite, AUROC",
}
Row = dict[str, Any]


def onset_table(lines: Sequence[Row]) -> Table:
    """One line a curve."""
    out = Table(
        title="Layers (counted from 0) at which a reading first leaves chance, and saturates", box=box.SIMPLE_HEAD
    )
    out.pad_edge, out.padding, out.title_justify = False, 0, "left"
    for name in ("task", "corrector", "reads", "span", "onset\n\\[95 %]", "saturation\n\\[95 %]", "largest\n\\[95 %]"):
        out.add_column(name, no_wrap=True, vertical="bottom")
    for name in ("at\nlayer", "chance\nup to", "items"):
        out.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for line in lines:
        out.add_row(
            line["task"],
            Path(line["corrector"]).name,
            READS[line["reader"]],
            line["span"],
            _layers(line, "onset") if line["null_high"] is not None else "",
            _layers(line, "saturation"),
            f"{line['max']:.2f} \\[{line['max_low']:.2f}, {line['max_high']:.2f}]",
            f"{line['max_layer']}/{line['n_layers']}",
            "" if line["null_high"] is None else f"{line['null_high']:.2f}",
            str(line["n_items"]),
        )
    return out


def _layers(line: Row, name: str) -> str:
    ends = ", ".join("none" if end is None else str(end) for end in line[f"{name}_interval"])
    return f"{'none' if line[name] is None else line[name]} \\[{ends}]"
