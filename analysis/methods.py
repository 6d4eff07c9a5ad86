"""Stream Aligner against Aligner, SFT, DPO, proxy-tuning and best-of-n, on the same problems (the paper's Fig 7).

python -m analysis.methods --task dialogue

lets every method answer (analysis.experiments.contests), prints the table, writes summary.csv and statistics.json into
the run folder and draws methods.png and methods.pdf. As a module it reads run folders only, and loads no torch.
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

from analysis import lengths
from analysis.claims.found import Found, by_seed, finding, lines, plain
from analysis.drawing import cell, draw
from analysis.rounds import LENGTH, NOTE
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import canonical, rounded
from corrector.statistics import TIE, Interval, bootstrap_mean, crossed_mean

if TYPE_CHECKING:
    from analysis.experiments.contests import Methods

Row = dict[str, Any]
Scores = Float[ndarray, "seed problem"]
BASE = "upstream"
"""What every method is compared with: the upstream's own answer."""
WIDTH = 150
OURS = "stream"
"""The method whose lead over every other is tested."""


def load_contest(run: str | Path) -> tuple[list[Row], list[Row]]:
    """Rows of answers.jsonl and systems.jsonl; UserError unless the run is finished."""
    folder = Path(run)
    if not (folder / "DONE").exists() or not (systems := read_rows(folder, "systems")):
        raise UserError(f"{folder} is no finished run of analysis.methods; run its command, which resumes it")
    return read_rows(folder, "answers"), systems


def seeds_of(rows: Sequence[Row]) -> dict[str, list[int]]:
    """The training seeds of each method, in the order of `scores`."""
    out: dict[str, list[int]] = {}
    for row in rows:
        if row["seed"] not in (seeds := out.setdefault(row["method"], [])):
            seeds.append(row["seed"])
    return out


def scores(rows: Sequence[Row], outcome: str) -> dict[str, Scores]:
    """An outcome (or `tokens`) by method, one row a training seed, problems in one order.

    Raises UserError where a method and seed lack a problem.
    """
    out: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        value = row[LENGTH] if outcome == LENGTH else row["outcomes"][outcome]
        out.setdefault(row["method"], {}).setdefault(row["seed"], {})[row["problem"]] = float(value)
    problems = [*next(iter(next(iter(out.values())).values()))]
    for method, seeds in out.items():
        for seed, of in seeds.items():
            if of.keys() != set(problems):
                raise UserError(f"{method} of seed {seed} lacks answers; delete the run and start its command again")
    return {method: np.array([[of[p] for p in problems] for of in seeds.values()]) for method, seeds in out.items()}


def methods_statistics(run: str | Path) -> Row:
    """`points`: one row an outcome and method, with `seeds` one by one; `findings`: gains, leads, and win rates.

    A `gain` is over the upstream's own answer to the same problem; `lead` is stream less the method, of the training
    seeds that both have. Intervals of what is trained resample seeds and problems (`crossed_mean`), `seed_low` and
    `seed_high` are the least and largest mean of a seed. In JSON's types; `tokens` is among the outcomes,
    and so is `<outcome> at any length` (`analysis.lengths`).
    """
    rows, systems = load_contest(run)
    config = read_json(Path(run), "config")
    task, boot = str(config["task"]), int(config["seed"])
    names = (*lengths.outcomes(rows[0]["outcomes"], task), LENGTH)
    rows = lengths.with_any(rows, task)
    points, found = list[Row](), list[Found]()
    seeds, trained = seeds_of(rows), {s["method"] for s in systems if s["n_trained"]}
    for outcome in names:
        by_method = scores(rows, outcome)
        base = by_method[BASE][0]
        for method, own in by_method.items():
            point: Row = {"outcome": outcome, "method": method, "n": own.shape[1], "n_seeds": len(own)}
            point |= _numbers("mean", crossed_mean(own, seed=boot))
            point["seeds"] = [_numbers("mean", bootstrap_mean(s, seed=boot)) for s in own]
            if method != BASE:
                gain = own - base
                sign = np.where(np.abs(gain) <= TIE, 0.0, np.sign(gain))
                point |= _numbers("gain", crossed_mean(gain, seed=boot))
                point |= {f"seed_{end}": f(gain.mean(1)) for end, f in (("low", np.min), ("high", np.max))}
                found.append(_found(f"{task}/methods/{method}/{outcome}", own, gain, boot))
                if outcome != LENGTH:
                    point |= _numbers("omega", crossed_mean(sign, seed=boot))
                    found.append(_found(f"{task}/methods/{method}/{outcome} omega", own, sign, boot))
            rival = method not in (BASE, OURS) and OURS in by_method
            lead = _lead(by_method[OURS], seeds[OURS], own, seeds[method], method in trained) if rival else None
            if lead is not None:
                point |= _numbers("lead", crossed_mean(lead, seed=boot))
                found.append(_found(f"{task}/methods/stream less {method}/{outcome}", lead, lead, boot))
            points.append(point)
    numbers = {
        **{"run": Path(run).resolve().name, "task": task, "systems": systems},
        **{"points": points, "findings": plain(found)},
    }
    return rounded(numbers, "statistics")


def _lead(ours: ndarray, our_seeds: list[int], own: ndarray, own_seeds: list[int], trained: bool) -> ndarray | None:
    """Ours less theirs: by training seed, or all of ours less the one run of a method that trains nothing."""
    if not trained:
        return ours - own
    both = [s for s in our_seeds if s in own_seeds]
    if not both:
        return None
    return ours[[our_seeds.index(s) for s in both]] - own[[own_seeds.index(s) for s in both]]


def _found(key: str, own: Scores, values: Scores, boot: int) -> Found:
    subject = f"{len(own)} seeds" if len(own) > 1 else "1 run"
    return finding(key, subject, values, boot, by_seed(values) or "nothing is trained, or one seed")


def _numbers(name: str, of: Interval) -> Row:
    return {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}


def report(run: str | Path, console: Console | None = None) -> Row:
    """Write summary.csv and statistics.json, print a table an outcome and the findings."""
    numbers = methods_statistics(run)
    folder = Path(run)
    table = pd.DataFrame([{k: v for k, v in p.items() if k != "seeds"} for p in numbers["points"]])
    table.to_csv(folder / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "statistics.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    console.print(_table(numbers))
    for line in lines([f for f in numbers["findings"] if "stream less" in f["key"]]):
        console.print(line, markup=False, highlight=False)
    if cached := [f"{s['method']} {s['seed']}" for s in numbers["systems"] if s["source"] == "cache"]:
        console.print(f"Answers of a shipped run, as no checkpoint is here: {', '.join(cached)}.", style="yellow")
    if any(s["model_organism"] for s in numbers["systems"]):
        console.print(NOTE, style="dim")
    return numbers


def _table(numbers: Row) -> Table:
    points = numbers["points"]
    # at any length: among the findings below, for want of width
    outcomes = [name for name in dict.fromkeys(p["outcome"] for p in points) if not name.endswith(lengths.ANY)]
    n_seeds = max(p["n_seeds"] for p in points)
    title = f"{numbers['task']}: {points[0]['n']} problems, {n_seeds} training seeds, means and gains over {BASE}, 95 %"
    out = Table(title=title, title_justify="left", padding=0)
    for name in ("method", "seeds", "trained"):
        out.add_column(name, no_wrap=True)
    for name in outcomes:
        out.add_column(name, justify="right", no_wrap=True)
        out.add_column("gain", justify="right", no_wrap=True)
    for method in dict.fromkeys(p["method"] for p in points):
        system = next(s for s in numbers["systems"] if s["method"] == method)
        n = next(p for p in points if p["method"] == method)["n_seeds"]
        cells = [method, *((str(n), f"{system['n_trained'] / 1e6:.3g} M") if system["n_trained"] else ("", ""))]
        for name in outcomes:
            p = next(p for p in points if (p["method"], p["outcome"]) == (method, name))
            digits = 1 if name == LENGTH else 2
            cells += [cell(p, "mean", digits), cell(p, "gain", digits) if "gain" in p else ""]
        out.add_row(*cells)
    return out


def main(config: Methods) -> None:
    """Run or resume, print, draw."""
    from analysis.experiments.contests import run

    folder = run(config)
    report(folder)
    draw("methods", folder)


def cli() -> None:
    """Parse the command line; here and not on import, so that reading a run loads no torch."""
    from analysis.experiments.contests import Methods

    run_cli(Methods, main, "analysis.methods")


if __name__ == "__main__":
    cli()
