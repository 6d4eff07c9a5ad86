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
from jaxtyping import Float
from numpy import ndarray
from rich.console import Console
from rich.table import Table

from analysis.claims.found import Found, finding, lines, plain
from analysis.drawing import cell, draw
from analysis.rounds import NOTE, WIDTH, load_answers, told
from corrector.errors import run_cli
from corrector.records import read_json
from corrector.records.canonical import canonical, rounded
from corrector.statistics import bootstrap_mean, bootstrap_ratio

if TYPE_CHECKING:
    from analysis.experiments.costs import Sizes

Row = dict[str, Any]
SHARE = 0.9
"""Of the gain of all rounds: a corrector has converged at the first k that reaches it."""
COSTS = ("seconds", "work")
"""Seconds, and work = Σ over both models of tokens fed times parameters, in millions."""
RESAMPLES = 2000


def columns(rows: Sequence[Row], told_of: Row) -> dict[str, Float[ndarray, "k problem"]]:
    """Outcomes and costs of one corrector; k ascends, all rounds last; problems in the run's order."""
    ks = list(dict.fromkeys(r["k"] for r in rows))
    of = [[r for r in rows if r["k"] == k] for k in ks]
    out = {name: np.array([[r["outcomes"][name] for r in at] for at in of], float) for name in told_of["outcomes"]}
    out["seconds"] = np.array([[r["seconds"] for r in at] for at in of])
    fed = [[_work(r, told_of) for r in at] for at in of]
    return out | {"work": np.array(fed) / 1e6}


def _work(row: Row, told_of: Row) -> float:
    return float(row["upstream_tokens"] * told_of["n_upstream"] + row["corrector_tokens"] * told_of["n_parameters"])


def converged(gains: Float[ndarray, "k problem"], seed: int = 0) -> tuple[int, ndarray]:
    """First k whose mean gain is SHARE of the last one's, and the same of resampled problems, [resample].

    `gains` of k = 0, 1, ..., all; the last counts as k = its position.
    """
    n = gains.shape[1]
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    means = np.stack([g[drawn].mean(1) for g in gains])
    return _first(gains.mean(1)[:, None])[0], np.array(_first(means))


def _first(means: Float[ndarray, "k draw"]) -> list[int]:
    return [int(np.argmax(column >= SHARE * column[-1] - 1e-12)) for column in means.T]


def sizes_statistics(run: str | Path) -> Row:
    """`points`: one row a corrector and k with gains and costs; `findings`: gains, costs, convergence by size."""
    rows, correctors = load_answers(run)
    seed = int(read_json(Path(run), "config")["seed"])
    correctors = sorted(correctors, key=lambda c: c["n_parameters"])
    points, found = list[Row](), list[Found]()
    measured: list[dict[str, ndarray]] = []
    for c in correctors:
        mine = [r for r in rows if r["corrector"] == c["corrector"]]
        measured.append(columns(mine, c))
        points += _points(c, list(dict.fromkeys(r["k"] for r in mine)), measured[-1], seed)
        found += _of_one(c, measured[-1], seed)
    if len(correctors) > 1:
        found += _between(correctors[0], measured[0], correctors[-1], measured[-1], seed)
    numbers = {
        **{"run": Path(run).resolve().name, "correctors": correctors},
        **{"points": points, "findings": plain(found)},
    }
    return rounded(numbers, "statistics")


def _points(c: Row, ks: Sequence[int | None], of: dict[str, ndarray], seed: int) -> list[Row]:
    out: list[Row] = []
    for i, k in enumerate(ks):
        point: Row = {"corrector": c["corrector"], "n_parameters": c["n_parameters"], "k": k, "n": of["work"].shape[1]}
        for name, values in of.items():
            point |= _numbers(name, bootstrap_mean(values[i], seed=seed))
            if name not in COSTS:
                point |= _numbers(f"{name}_gain", bootstrap_mean(values[i] - values[0], seed=seed))
        out.append(point)
    return out


def _of_one(c: Row, of: dict[str, ndarray], seed: int) -> list[Found]:
    """Gain, convergence and cost of one corrector."""
    out, size = list[Found](), f"{c['n_parameters']:,} parameters"
    for name in c["outcomes"]:
        key, gain = f"{c['task']}/sizes/{name}", of[name] - of[name][0]
        out.append(finding(f"{key}/gain", c["corrector"], gain[-1], seed, f"all rounds, {size}"))
        k, draws = converged(gain, seed)
        note = f"first k with {SHARE:g} of the gain of all rounds, {size}"
        out.append(_drawn(f"{key}/converged at", c["corrector"], k, draws, gain.shape[1], note))
    for name in COSTS:
        ratio = bootstrap_ratio(of[name][-1], of[name][0], seed=seed)
        key, note = f"{c['task']}/sizes/{name} ratio", f"{name}, all rounds over the upstream alone, {size}"
        out.append(Found(key, c["corrector"], ratio.mean, ratio.low, ratio.high, ratio.n, note, 1.0))
    return out


def _between(
    small: Row, of_small: dict[str, ndarray], large: Row, of_large: dict[str, ndarray], seed: int
) -> list[Found]:
    """The largest corrector against the smallest."""
    out, who = list[Found](), f"{large['corrector']} less {small['corrector']}"
    for name in large["outcomes"]:
        key = f"{large['task']}/sizes/{name}"
        a, b = (of[name] - of[name][0] for of in (of_large, of_small))
        out.append(finding(f"{key}/larger", who, a[-1] - b[-1], seed, "gain of all rounds"))
        (k_a, draws_a), (k_b, draws_b) = converged(a, seed), converged(b, seed)
        note = f"k of convergence, {k_a} less {k_b}"
        out.append(_drawn(f"{key}/later", who, k_a - k_b, draws_a - draws_b, a.shape[1], note))
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
    table = pd.DataFrame(numbers["points"])
    table["k"] = [told(k) for k in (p["k"] for p in numbers["points"])]
    table.to_csv(folder / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "statistics.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)
    console.print(_table(numbers))
    for line in lines(numbers["findings"]):
        console.print(line, markup=False, highlight=False)
    if any(c["model_organism"] for c in numbers["correctors"]):
        console.print(NOTE, style="dim")
    return numbers


def _table(numbers: Row) -> Table:
    points, outcomes = numbers["points"], numbers["correctors"][0]["outcomes"]
    out = Table(title=f"gain against cost, {points[0]['n']} problems one at a time", title_justify="left")
    out.add_column("corrector")
    for name in ("k", *(f"{o} gain \\[95 %]" for o in outcomes), "seconds \\[95 %]", "M parameters x tokens \\[95 %]"):
        out.add_column(name, justify="right")
    for p in points:
        gains = [cell(p, f"{o}_gain", 2) if p["k"] != 0 else "" for o in outcomes]
        out.add_row(p["corrector"], told(p["k"]), *gains, cell(p, "seconds", 3), cell(p, "work", 0))
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
