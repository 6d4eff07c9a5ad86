"""What an erasure run found: table and verdict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from corrector.records import read_json, read_rows
from corrector.records.canonical import canonical
from probes.erasure import measure

NOTE = "a miniature trained to show the effect (a model organism): this shows what the lab measures, no more."
INTERVALS = ("gap", "gap_over", "auroc", "auroc_last")
SHOWN = ("moved", "removed", "rewrites", "false_rewrite", "missed_rewrite", "edit_ratio", "well_formed", "kl")
HEADS = {"gap_over": "gap over\nLEACE's"}
KEY = "matched: leaves the concept and moves as much as LEACE; complement: all but the concept; random: of equal rank."
DRAWN = ("matched", "random")
"""Families of which a place has several draws, which share a line of the table."""
Row = dict[str, Any]


def show(out: Path) -> None:
    """Print a run (see `tell`), and write its lines as summary.json and summary.csv."""
    lines = tell(out, Console())
    (out / "summary.json").write_text(canonical(lines), encoding="utf-8")
    pd.DataFrame(lines).to_csv(out / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")


def tell(out: Path, console: Console) -> list[Row]:
    """Print a line a cell (`lines_of`) and a verdict; nothing is written."""
    config, about = read_json(out, "config"), read_json(out, "erasure")
    lines = lines_of(read_rows(out, "edits"), config["items"], config["seed"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("layers", "eraser", *SHOWN, *INTERVALS):
        table.add_column(HEADS.get(name, name.replace("_", "\n")), justify="right", no_wrap=True)
    said: dict[str, str] = {}
    for place in dict.fromkeys(tuple(x["layers"]) for x in lines[1:]):
        here = [x for x in lines if tuple(x["layers"]) == place]
        areas, name = lines[0]["auroc_layers"], str(place[0]) if len(place) == 1 else "all"
        before: Row = {**lines[0], "auroc": areas[place[-1]] if areas else None}
        drawn = [[x for x in here if x["eraser"].startswith(family)] for family in DRAWN]
        for group in [[before], *([x] for x in here if not x["eraser"].startswith(DRAWN)), *drawn]:
            table.add_row(name, label(group), *(_shown(group, column) for column in (*SHOWN, *INTERVALS)))
        table.add_section()
        said[name] = verdict(here)
    console.width = max(console.width, 200)  # a narrower table would lose digits without a word
    counts = "{rewrote} rewritten and {copied} copied".format(**about["test"])
    what = f"{config['task']}, {about['corrector']}, {config['span']} erased; nothing erased: {counts}."
    console.print(f"{what} {KEY}", table)
    alone = [x for x in lines if x["eraser"] == "leace" and len(x["layers"]) == 1]
    lowest = str(min(alone, key=lambda x: x["gap"] or 0)["layers"][0])
    console.print(f"layer {lowest}, which leaves least of {len(alone)} erased alone: {said[lowest]}")
    if "all" in said:
        console.print(f"all of them together: {said['all']}")
    if about["model_organism"]:
        console.print(f"{about['corrector']} is {NOTE}", style="dim")
    return lines


def lines_of(rows: Sequence[Row], items: int, seed: int) -> list[Row]:
    """A line a cell (`probes.erasure.measure`), nothing erased first; the others beside LEACE at the same place."""
    cells = [rows[i : i + items] for i in range(0, len(rows), items)]
    leace = {tuple(cell[0]["layers"]): cell for cell in cells if cell[0]["eraser"] == "leace"}
    return [measure(cell, seed, leace.get(tuple(cell[0]["layers"]), ())) for cell in cells]


def label(group: Sequence[Row]) -> str:
    """The family of some lines; where one was to have a size and has not, that is said."""
    family = group[0]["eraser"].split("-")[0]
    return "not matched" if any(x["matched"] is False for x in group) else family


def verdict(here: Sequence[Row]) -> str:
    """What LEACE at one place does to the decision gap, beside the nulls of that place, by their intervals.

    It falls where its interval lies below those of all nulls of its rank. What is moved counts, not only how much,
    where every null of its size leaves more of the gap, item by item, with an interval above 0.
    """
    own, nulls = here[0], [x for x in here if x["eraser"].startswith(("shuffled", "random"))]
    if own["gap_low"] is None:
        return "no decision gap to close: nothing erased, all items are copied, or all rewritten"
    falls = own["gap_high"] < min(x["gap_low"] for x in nulls)
    found = "stays" if not falls else "falls, and may be gone" if own["gap_low"] <= 0 else "falls, not to 0"
    beside = f"under {_counted(nulls)} of its rank to {_shown(nulls, 'gap')}"
    said = f"correction {found}: decision gap from 1 to {_shown([own], 'gap')}, {beside}"
    return f"{said}; {of_size(own, [x for x in here if x['eraser'].startswith('matched')])}"


def of_size(own: Row, nulls: Sequence[Row]) -> str:
    """How the nulls of LEACE's size compare with it; first whether they have that size."""
    moved, wanted = _shown(nulls, "moved"), f"{own['moved']:.2f} of the variance"
    if any(x["matched"] is False for x in nulls):
        return f"no null has its size: without the concept {moved} can be moved, LEACE moves {wanted}"
    over = max(x["scale"] for x in nulls)
    past = f", past the mean (c up to {over:.2f}), since without the concept there is less" if over > 1 else ""
    lowest = min(x["gap_over_low"] for x in nulls)
    why = "what is moved counts, not only how much" if lowest > 0 else "that it is not only how much is not shown"
    return (
        f"under {_counted(nulls)} of its size ({moved} moved of {wanted}{past}) to {_shown(nulls, 'gap')}, "
        f"{_shown(nulls, 'gap_over')} more (paired, lowest interval from {lowest:.2f}): {why}"
    )


def _counted(nulls: Sequence[Row]) -> str:
    return f"{len(nulls)} null{'s' * (len(nulls) != 1)}"


def _shown(group: Sequence[Row], name: str) -> str:
    """A number, with its interval where that is what counts, or the range of several."""
    values = [x[name] for x in group if x[name] is not None]
    if len(values) != 1:
        return "-".join(dict.fromkeys(f"{f(values):.2f}" for f in (min, max))) if values else "-"
    low, high = group[0].get(f"{name}_low"), group[0].get(f"{name}_high")
    return f"{values[0]:.2f}" + (f" \\[{low:.2f}, {high:.2f}]" if name in INTERVALS and low is not None else "")
