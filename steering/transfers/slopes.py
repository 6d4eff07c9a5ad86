"""What a transfer run found: slopes with intervals, beside the target's own vector and random directions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from corrector.records import read_json, read_rows
from corrector.statistics import Interval, slope_bootstrap, z_score

NOTE = "a miniature trained to show the effect (a model organism): this shows what the lab measures, no more."


def measure(
    routes: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], seed: int, n_resamples: int = 2000
) -> list[dict[str, Any]]:
    """A line a route: slope of edit_ratio against coef (per unit) with its 95 % interval from resampling questions.

    `ratio` is that slope over the slope of the target's own vector (None where that is 0); `random_*` are the slopes of
    the route's random directions, and z sets the slope against them. `well_formed` is the lowest share over the
    coefficients. Routes whose rows are not all there yet are left out.
    """
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["target"], row["task"], row["route"], row["direction"], row["coef"]), []).append(row)
    lines: list[dict[str, Any]] = []
    for i, route in enumerate(routes):
        target = (route["target"], route["task"])
        unsteered = cells.get((*target, None, "none", 0.0), [])
        names = ["correction", *(f"random-{j:02d}" for j in range(len(route["cosine_random"])))]
        curves: list[list[list[dict[str, Any]]]] = []
        coefs: list[float] = []
        for name in names:
            found = {k[4]: v for k, v in cells.items() if k[:4] == (*target, i, name) and len(v) == len(unsteered)}
            coefs = sorted({*found, 0.0})
            curves.append([found.get(c, unsteered) for c in coefs])
        if len({len(curve) for curve in curves}) > 1 or len(coefs) < 2:
            continue
        slopes = [_slope(coefs, curve, seed, n_resamples) for curve in curves]
        null = [s.mean for s in slopes[1:]]
        formed = min(float(np.mean([r["well_formed"] for r in cell])) for cell in curves[0])
        z = z_score(slopes[0].mean, null)
        lines.append(
            {
                **{k: v for k, v in route.items() if k != "cosine_random"},
                "slope": slopes[0].mean,
                "slope_low": slopes[0].low,
                "slope_high": slopes[0].high,
                "random_low": min(null),
                "random_high": max(null),
                "z": z if z == z else None,
                "random_cosine": max(abs(c) for c in route["cosine_random"]),
                "well_formed": formed,
                "n": slopes[0].n,
            }
        )
    own = {(x["target"], x["task"]): x["slope"] for x in lines if x["how"] == "own"}
    for line in lines:
        base = own.get((line["target"], line["task"]))
        line["ratio"] = line["slope"] / base if base else None
    return lines


def _slope(coefs: Sequence[float], curve: Sequence[Sequence[dict[str, Any]]], seed: int, n_resamples: int) -> Interval:
    values = np.array([[row["edit_ratio"] for row in cell] for cell in curve]).T
    return slope_bootstrap(coefs, values, [row["problem"] for row in curve[0]], n_resamples, seed)


def show(out: Path, seed: int) -> None:
    """Write summary.csv, a line a route (`measure`), and print the table and what is absent."""
    about, console = read_json(out, "transfer"), Console()
    lines = measure(about["routes"], read_rows(out, "transfer"), seed)
    pd.DataFrame(lines).to_csv(out / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    table = Table(
        title="slope of the edit ratio per coef on the target's test items, by whose vector steers",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    columns = ("target", "vector of", "how", "layer", "slope", "ratio", "cosine", "random slopes", "|cos|", "z")
    for name in (*columns, "explained", "well-formed"):
        names = name in columns[:2]  # long paths are folded, numbers never
        table.add_column(name, justify="left" if names else "right", no_wrap=not names, overflow="fold")
    before = None
    for x in lines:
        target = f"{x['target']} {x['task']}"
        if before not in (None, target):
            table.add_section()
        table.add_row(
            target if target != before else "",
            f"{x['source']} {x['source_task']}",
            x["how"],
            str(x["layer"]) if x["layer"] == x["source_layer"] else f"{x['source_layer']} to {x['layer']}",
            f"{x['slope']:.3f} \\[{x['slope_low']:.3f}, {x['slope_high']:.3f}]",
            _number(x["ratio"]),
            _number(x["cosine"]),
            f"{x['random_low']:.3f} to {x['random_high']:.3f}",
            f"{x['random_cosine']:.2f}",
            _number(x["z"], 1),
            _number(x["explained"]),
            f"{x['well_formed']:.2f}",
        )
        before = target
    console.width = max(console.width, 180)  # a narrower table would lose digits without a word
    console.print(table)
    for line in about["absent"]:
        console.print(f"absent: {line}", soft_wrap=True, markup=False)
    if about["organisms"]:
        console.print(f"{', '.join(about['organisms'])}: each is {NOTE}", style="dim", soft_wrap=True)


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
