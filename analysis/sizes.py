"""Gain of correction against what it costs, by corrector size (the paper's Fig 6).

python -m analysis.sizes --corrector arithmetic-s arithmetic-m arithmetic-l

runs the loop one problem at a time (analysis.experiments.costs), prints the table, writes summary.csv and
statistics.json into the run folder and draws sizes.png and sizes.pdf. As a module it reads run folders only, and loads
no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy import ndarray
from rich.console import Console
from rich.table import Table

from analysis.claims.found import Found, by_seed, finding, lines, plain
from analysis.curves.gains import SHARE, Columns, columns, converged, load_sizes
from analysis.drawing import cell, draw
from analysis.rounds import NOTE, WIDTH, told
from corrector.errors import run_cli
from corrector.records import read_json
from corrector.records.canonical import canonical, rounded
from corrector.statistics import crossed_mean, crossed_ratio

if TYPE_CHECKING:
    from analysis.experiments.costs import Sizes

Row = dict[str, Any]
COSTS = ("seconds", "work")
"""Seconds, and work = Σ over both models of tokens fed times parameters, in millions."""


def sizes_statistics(run: str | Path) -> Row:
    """`points`: one row a size and k with gains and costs; `findings`: gains, costs, convergence by size.

    A size goes by its first corrector's name. Intervals resample training seeds and problems (`crossed_mean`);
    `<outcome>_seeds` holds the gain of each seed. Seeds of two sizes are paired in their order.
    """
    rows, sizes = load_sizes(run)
    seed = int(read_json(Path(run), "config")["seed"])
    points, found = list[Row](), list[Found]()
    measured = [columns(rows, of) for of in sizes]
    for of, own in zip(sizes, measured, strict=True):
        points += _points(of, list(dict.fromkeys(r["k"] for r in rows)), own, seed)
        found += _of_one(of, own, seed)
    if len(sizes) > 1:
        found += _between(sizes[0], measured[0], sizes[-1], measured[-1], seed)
    numbers = {
        **{"run": Path(run).resolve().name, "correctors": [c for of in sizes for c in of]},
        **{"points": points, "findings": plain(found)},
    }
    return rounded(numbers, "statistics")


def _points(of: Sequence[Row], ks: Sequence[int | None], own: dict[str, Columns], seed: int) -> list[Row]:
    out: list[Row] = []
    n = own["work"].shape[2]
    for i, k in enumerate(ks):
        point: Row = {"corrector": of[0]["size"], "n_parameters": of[0]["n_parameters"], "k": k, "n": n}
        point["n_seeds"] = len(of)
        for name, values in own.items():
            point |= _numbers(name, crossed_mean(values[i], seed=seed))
            if name not in COSTS:
                gain = values[i] - values[0]
                point |= _numbers(f"{name}_gain", crossed_mean(gain, seed=seed))
                point[f"{name}_seeds"] = gain.mean(1).tolist()
        out.append(point)
    return out


def _of_one(of: Sequence[Row], own: dict[str, Columns], seed: int) -> list[Found]:
    """Gain, convergence and cost of one size."""
    c, out = of[0], list[Found]()
    size = f"{c['n_parameters']:,} parameters"
    for name in c["outcomes"]:
        key, gain = f"{c['task']}/sizes/{name}", own[name] - own[name][:1]
        seeds = "".join(f", {each}" for each in [by_seed(gain[-1])] if each)
        out.append(finding(f"{key}/gain", c["size"], gain[-1], seed, f"all rounds, {size}{seeds}"))
        k, draws = converged(gain, seed)
        note = f"first k with {SHARE:g} of the gain of all rounds, {size}"
        out.append(_drawn(f"{key}/converged at", c["size"], k, draws, gain.shape[2], note))
    for name in (n for n in COSTS if n in own):
        ratio = crossed_ratio(own[name][-1], own[name][0], seed=seed)
        key, note = f"{c['task']}/sizes/{name} ratio", f"{name}, all rounds over the upstream alone, {size}"
        out.append(Found(key, c["size"], ratio.mean, ratio.low, ratio.high, ratio.n, note, 1.0))
    return out


def _between(
    small: Sequence[Row], of_small: dict[str, Columns], large: Sequence[Row], of_large: dict[str, Columns], seed: int
) -> list[Found]:
    """The largest size against the smallest, of as many training seeds as both have."""
    out, who = list[Found](), f"{large[0]['size']} less {small[0]['size']}"
    n = min(len(small), len(large))
    for name in large[0]["outcomes"]:
        key = f"{large[0]['task']}/sizes/{name}"
        a, b = ((of[name] - of[name][:1])[:, :n] for of in (of_large, of_small))
        note = ", ".join(part for part in ("gain of all rounds", by_seed((a - b)[-1])) if part)
        out.append(finding(f"{key}/larger", who, (a - b)[-1], seed, note))
        (k_a, draws_a), (k_b, draws_b) = converged(a, seed), converged(b, seed)
        note = f"k of convergence, {k_a} less {k_b}"
        out.append(_drawn(f"{key}/later", who, k_a - k_b, draws_a - draws_b, a.shape[2], note))
    return out


def _drawn(key: str, subject: str, value: int, draws: ndarray, n: int, note: str) -> Found:
    low, high = (float(x) for x in np.quantile(draws, [0.025, 0.975]))
    return Found(key, subject, float(value), low, high, n, note)


def _numbers(name: str, of: Any) -> Row:
    return {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}


def report(run: str | Path, console: Console | None = None) -> Row:
    """Write summary.csv and statistics.json, print the table and the findings."""
    numbers = sizes_statistics(run)
    folder = Path(run)
    table = pd.DataFrame([{k: v for k, v in p.items() if not isinstance(v, list)} for p in numbers["points"]])
    table["k"] = [told(k) for k in (p["k"] for p in numbers["points"])]
    table.to_csv(folder / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "statistics.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)
    console.print(_table(numbers))
    for line in lines(numbers["findings"]):
        console.print(line, markup=False, highlight=False)
    if cached := [c["corrector"] for c in numbers["correctors"] if c["source"] == "cache"]:
        stood = f"Answers of a shipped run, without seconds, as no checkpoint is here: {', '.join(cached)}."
        console.print(stood, style="yellow")
    if any(c["model_organism"] for c in numbers["correctors"]):
        console.print(NOTE, style="dim")
    return numbers


def _table(numbers: Row) -> Table:
    points, outcomes = numbers["points"], numbers["correctors"][0]["outcomes"]
    out = Table(title=f"gain against cost, {points[0]['n']} problems one at a time", title_justify="left")
    out.add_column("corrector", no_wrap=True)
    out.add_column("seeds", justify="right")
    for name in ("k", *(f"{o} gain \\[95 %]" for o in outcomes), "seconds \\[95 %]", "M parameters x tokens \\[95 %]"):
        out.add_column(name, justify="right")
    for p in points:
        gains = [cell(p, f"{o}_gain", 2) if p["k"] != 0 else "" for o in outcomes]
        seconds = cell(p, "seconds", 3) if "seconds" in p else ""
        out.add_row(p["corrector"], str(p["n_seeds"]), told(p["k"]), *gains, seconds, cell(p, "work", 0))
    return out


def main(config: Sizes) -> None:
    """Run or resume, print, draw."""
    from analysis.experiments.costs import run

    folder = run(config)
    report(folder)
    draw("sizes", folder)


def cli() -> None:
    """Parse the command line; here and not on import, so that reading a run loads no torch."""
    from analysis.experiments.costs import Sizes

    run_cli(Sizes, main, "analysis.sizes")


if __name__ == "__main__":
    cli()
