"""What the page shows of a run, in JSON's types: the rows as they were recorded, and the tables made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.curve import MINIATURE, title, told, verdict_line
from analysis.dose import dose_statistics
from analysis.summary import CORRECTION, UNSTEERED, Records, load_records, select, summarise
from analysis.trace.columns import columns, cutter
from analysis.trace.curves import note, panels
from analysis.trace.projections import traces
from corrector.errors import UserError
from corrector.records import read_json, read_rows

Row = dict[str, Any]
NO_PROJECTIONS = "they were left out by --no-projections"


@dataclass(frozen=True)
class Caps:
    """How much of a run the page takes."""

    items: int = 200
    problems: int = 100
    traces: int = 20
    """Items with projections; 0: none."""
    device: str = "cpu"


@dataclass(frozen=True)
class Stop:
    """One position of the slider: what it is called, and the direction and coefficient of its rows."""

    label: str
    direction: str
    coef: float


def run_data(run: Path, caps: Caps) -> dict[str, Any]:
    """A finished sweep as the page holds it; UserError where it is no run, is not finished or has no edit rows."""
    records = load_records(run)
    if not records.finished:
        raise UserError(f"{run} is not finished; run its command again, which resumes it")
    table, edits, loops = summarise(records), read_rows(run, "edits"), read_rows(run, "alignments")
    statistics = dose_statistics(records, table)["tasks"]
    env = read_json(run, "env")
    return {
        "name": run.resolve().name,
        "source": {
            "commit": env.get("git", {}).get("commit"),
            "dirty": env.get("git", {}).get("dirty"),
            "packages": env.get("packages", {}),
            "rows": read_json(run, "DONE", ""),
        },
        "config": {key: records.config[key] for key in ("seed", "operator", "controls") if key in records.config},
        "tasks": [_task(records, task, table, statistics[task], edits, loops, caps) for task in records.tasks],
    }


def stops(rows: Sequence[Row], direction: str) -> list[Stop]:
    """The coefficients of a direction in order, the unsteered rows among them as 0.

    They stand first, as `unsteered`, where the direction has rows at 0 itself (clamp, prompt baselines).
    """
    coefs = sorted({float(row["coef"] or 0) for row in rows if row["direction"] == direction})
    unsteered = any(row["direction"] == UNSTEERED for row in rows)
    own = [Stop(f"{c:+g}" if c else "0", direction, c) for c in coefs]
    if not unsteered:
        return own
    if 0.0 in coefs:
        return [Stop("unsteered", UNSTEERED, 0.0), *own]
    return sorted([*own, Stop("0", UNSTEERED, 0.0)], key=lambda stop: stop.coef)


def first(rows: Sequence[Row], field: str, n: int) -> tuple[list[Row], dict[str, int]]:
    """The rows of the first n values of a field, and how many of how many rows and values those are."""
    every = list(dict.fromkeys(row[field] for row in rows))
    kept = set(every[:n])
    out = [row for row in rows if row[field] in kept]
    return out, {"rows": len(out), "rows_of": len(rows), "n": len(kept), "of": len(every)}


def _task(
    records: Records, task: str, table: Any, numbers: Row, edits: list[Row], loops: list[Row], caps: Caps
) -> dict[str, Any]:
    mine = select(table, task=task)
    rows, shown = first([row for row in edits if row["task"] == task], "item", caps.items)
    answers, told_of = first([row for row in loops if row["task"] == task], "problem", caps.problems)
    directions = [d for d in dict.fromkeys(row["direction"] for row in rows) if d != UNSTEERED]
    slides = {d: stops(rows, d) for d in directions} or {UNSTEERED: stops(rows, UNSTEERED)}
    cut = cutter()
    return {
        "name": task,
        "title": title(task, numbers),
        "steers": numbers["steers"],
        "verdict": verdict_line(task, numbers).plain,
        "lines": told(records, table, task, numbers),
        "warning": f"Model organism: {MINIATURE}" if numbers["model_organism"] else "",
        "panels": panels(mine, numbers),
        "note": note(numbers),
        "cells": columns([_known(row) for row in mine.drop(columns="task").to_dict("records")]),
        "stops": {d: [vars(stop) for stop in of] for d, of in slides.items()},
        "steered": [int(k) for k in numbers["layers"] or []],
        "edits": columns([{**row, "cuts": cut(row["last"], row["correction"])} for row in rows]),
        "edits_of": shown,
        "loop": columns(_with_cuts(answers, cut)),
        "loop_of": told_of,
        "traces": _traces(records, task, rows, slides.get(CORRECTION, []), shown["of"], caps),
    }


def _with_cuts(rows: Sequence[Row], cut: Callable[[str, str | None], Any]) -> list[Row]:
    """Loop rows with the diff of every round, and of the answer against the unsteered one of its problem."""
    unsteered = {row["problem"]: row["answer"] for row in rows if row["direction"] == UNSTEERED}
    return [
        {
            **row,
            "round_cuts": [cut(r["last"], r["correction"]) for r in row["rounds"]],
            "answer_cuts": cut(unsteered[row["problem"]], row["answer"]) if row["problem"] in unsteered else None,
        }
        for row in rows
    ]


def _traces(
    records: Records, task: str, rows: Sequence[Row], slide: Sequence[Stop], n_of: int, caps: Caps
) -> dict[str, Any]:
    if not caps.traces:
        return {"absent": NO_PROJECTIONS}
    found = {(row["item"], row["direction"], float(row["coef"] or 0)): row for row in rows}
    items = list(dict.fromkeys(row["item"] for row in rows))[: caps.traces]
    at_stops = [[found.get((item, stop.direction, stop.coef)) for stop in slide] for item in items]
    return traces(records.run, records.config, task, at_stops, n_of, caps.device)


def _known(row: Mapping[Any, Any]) -> Row:
    """A line of a summary without the blanks that pandas calls nan."""
    return {str(k): None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
