"""What more corrected rounds do to answers (the paper's Fig 3, 4 and 5).

python -m analysis.rounds --task dialogue --corrector dialogue-0 dialogue-1 dialogue-2 --mode stream continue

runs the align loop (analysis.loops), prints the table, writes summary.csv and statistics.json into the run folder and
draws rounds.png and rounds.pdf. As a module it reads run folders only, and loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis import lengths
from analysis.claims.found import Found, finding, lines, plain
from analysis.drawing import cell, draw
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import canonical, rounded
from corrector.statistics import TIE, bootstrap_mean, mcnemar

if TYPE_CHECKING:
    from analysis.loops import Rounds

Row = dict[str, Any]
LENGTH = "tokens"
"""Length of an answer, measured like an outcome."""
WIDTH = 130
NOTE = (
    "the correctors are miniatures trained to show the effect (model organisms): these numbers show what the lab "
    "measures, not how correctors of ordinary size behave."
)


def load_answers(run: str | Path) -> tuple[list[Row], list[Row]]:
    """Rows of answers.jsonl and what is said of each corrector; UserError unless the run is finished."""
    folder = Path(run)
    if not (folder / "DONE").exists() or not (rows := read_rows(folder, "answers")):
        raise UserError(f"{folder} is no finished run of analysis.rounds; run its command, which resumes it")
    return rows, read_json(folder, "about")["correctors"]


def values(rows: Sequence[Row], outcome: str) -> dict[int | None, np.ndarray]:
    """An outcome (or `tokens`) by k, the problems in one order; k in the order of the run, None (all) last.

    Raises UserError where a problem lacks some k.
    """
    out: dict[int | None, dict[str, float]] = {}
    for row in rows:
        out.setdefault(row["k"], {})[row["problem"]] = row[LENGTH] if outcome == LENGTH else row["outcomes"][outcome]
    names = [*next(iter(out.values()))]
    if any(of.keys() != set(names) for of in out.values()):
        raise UserError("some problem lacks an answer at some k; delete the run and start its command again")
    return {k: np.array([of[name] for name in names], dtype=float) for k, of in out.items()}


def point(own: np.ndarray, base: np.ndarray, outcome: str, seed: int = 0) -> Row:
    """Mean, paired gain over `base`, and omega = (wins - losses) / (wins + ties + losses), each with its interval.

    `p` is McNemar's of an outcome that is 0 or 1, else None; length has no omega, as longer is not better.
    """
    gain = own - base
    sign = np.where(np.abs(gain) <= TIE, 0.0, np.sign(gain))
    won, lost = int((sign > 0).sum()), int((sign < 0).sum())
    out: Row = {"n": len(own)}
    for name, numbers in (("mean", own), ("gain", gain), ("omega", sign)):
        if name == "omega" and outcome == LENGTH:
            continue
        found = bootstrap_mean(numbers, seed=seed)
        out |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    yes_or_no = {*own.tolist(), *base.tolist()} <= {0.0, 1.0} and outcome != LENGTH
    return (
        out
        | {"wins": won, "ties": len(sign) - won - lost, "losses": lost}
        | {"p": mcnemar(won, lost) if yes_or_no else None}
    )


def peak(by_k: dict[int | None, np.ndarray]) -> tuple[int | None, np.ndarray]:
    """The k of the largest mean on every other problem, and the positions of the problems that did not choose it."""
    n = len(next(iter(by_k.values())))
    chose = np.arange(0, n, 2)
    best = max(by_k, key=lambda k: float(by_k[k][chose].mean()))
    return best, np.arange(1, n, 2)


def rounds_statistics(run: str | Path) -> Row:
    """`points`: one row a task, corrector, mode, outcome and k; `findings`: what the paper's claims are held against.

    In JSON's types; `tokens` is among the outcomes, and `<outcome> at any length` (`analysis.lengths`).
    """
    rows, about = load_answers(run)
    seed, points, found = int(read_json(Path(run), "config")["seed"]), list[Row](), list[Found]()
    for corrector in about:
        task, ref = corrector["task"], corrector["corrector"]
        mine = lengths.with_any([r for r in rows if r["task"] == task and r["corrector"] == ref], task)
        curves = {
            (mode, name): values([r for r in mine if r["mode"] == mode], name)
            for mode in dict.fromkeys(r["mode"] for r in mine)
            for name in (*lengths.outcomes(corrector["outcomes"], task), LENGTH)
        }
        for (mode, name), by_k in curves.items():
            who = {"task": task, "corrector": ref, "mode": mode, "outcome": name}
            base = curves.get(("stream", name), by_k)[0]  # the upstream alone, where the run has it
            points += [{**who, "k": k, **point(v, base, name, seed)} for k, v in by_k.items()]
            if mode == "stream" or ("stream", name) not in curves:
                found += _gains(task, ref, name, by_k, seed)
            if mode == "continue" and name != LENGTH and ("stream", name) in curves:
                found += _modes(task, ref, name, by_k, curves["stream", name], seed)
        stream = {name: by_k for (mode, name), by_k in curves.items() if mode == "stream"}
        if {"helpful", "harmless"} <= stream.keys():
            found += _peaks(task, ref, stream, seed)
    numbers = {
        **{"run": Path(run).resolve().name, "correctors": about},
        **{"points": points, "findings": plain(found)},
    }
    return rounded(numbers, "statistics")


def _gains(task: str, ref: str, name: str, by_k: dict[int | None, np.ndarray], seed: int) -> list[Found]:
    all_rounds = point(by_k[None], by_k[0], name, seed)
    counts = f"wins {all_rounds['wins']}, ties {all_rounds['ties']}, losses {all_rounds['losses']}"
    note = f"all rounds against none, {counts}"
    if all_rounds["p"] is not None:
        note += f", McNemar's p {all_rounds['p']:.2g}"
    out = [finding(f"{task}/{name}/gain", ref, by_k[None] - by_k[0], seed, note)]
    if name != LENGTH:
        sign = np.sign(np.where(np.abs(gain := by_k[None] - by_k[0]) <= TIE, 0.0, gain))
        out.append(finding(f"{task}/{name}/omega", ref, sign, seed, note))
    return out


def _peaks(task: str, ref: str, curves: dict[str, dict[int | None, np.ndarray]], seed: int) -> list[Found]:
    """Whether helpfulness falls behind its peak while harmlessness goes on; the peak is chosen on other problems."""
    helpful = curves["helpful"]
    best, rest = peak(helpful)
    if best is None:
        return []
    where = f"from k = {best}, chosen on the other problems, to all"
    rise = helpful[best][rest] - helpful[0][rest]
    sign = np.sign(np.where(np.abs(rise) <= TIE, 0.0, rise))
    return [
        finding(f"{task}/helpful/omega at peak", ref, sign, seed, f"k = {best}, chosen on the other problems"),
        *(
            finding(f"{task}/{name}/after peak", ref, (by_k[None] - by_k[best])[rest], seed, where)
            for name, by_k in curves.items()
            if name != LENGTH
        ),
    ]


def _modes(
    task: str,
    ref: str,
    name: str,
    own: dict[int | None, np.ndarray],
    stream: dict[int | None, np.ndarray],
    seed: int,
) -> list[Found]:
    """Continue less stream at the first and at the last k; with all rounds they are one and the same by definition."""
    ks = [k for k in own if k]
    return [
        finding(f"{task}/{name}/continue at {where}", ref, own[k] - stream[k], seed, f"continue less stream at k = {k}")
        for where, k in (("first", ks[0]), ("last", ks[-1]))
    ]


def report(run: str | Path, console: Console | None = None) -> Row:
    """Print a run (see `tell`), and write summary.csv and statistics.json into it."""
    numbers, folder = tell(run, console or Console()), Path(run)
    table = pd.DataFrame(numbers["points"])
    table["k"] = [told(k) for k in (p["k"] for p in numbers["points"])]
    table.to_csv(folder / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "statistics.json").write_text(canonical(numbers), encoding="utf-8")
    return numbers


def tell(run: str | Path, console: Console) -> Row:
    """Print a table a corrector and mode and the findings; nothing is written."""
    numbers = rounds_statistics(run)
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    for key in dict.fromkeys((p["task"], p["corrector"], p["mode"]) for p in numbers["points"]):
        console.print(_table(key, [p for p in numbers["points"] if (p["task"], p["corrector"], p["mode"]) == key]))
    for line in lines(numbers["findings"]):
        console.print(line, markup=False, highlight=False)
    if any(c["model_organism"] for c in numbers["correctors"]):
        console.print(NOTE, style="dim")
    return numbers


def told(k: int | None) -> str:
    """A number of rounds as text."""
    return "all" if k is None else str(k)


def _table(key: tuple[str, str, str], points: Sequence[Row]) -> Table:
    # at any length: among the findings below, for want of width
    names = [name for name in dict.fromkeys(p["outcome"] for p in points) if not name.endswith(lengths.ANY)]
    out = Table(title=f"{', '.join(key)}: {points[0]['n']} problems", title_justify="left")
    out.add_column("k", justify="right")
    for name in names:
        out.add_column(f"{name} \\[95 %]", justify="right")
        if name != LENGTH:
            out.add_column("omega \\[95 %]", justify="right")
    for k in dict.fromkeys(p["k"] for p in points):
        cells = [told(k)]
        for p in (next(p for p in points if p["k"] == k and p["outcome"] == name) for name in names):
            cells.append(cell(p, "mean", 1 if p["outcome"] == LENGTH else 2))
            if p["outcome"] != LENGTH:
                cells.append(cell(p, "omega", 2) if k != 0 else "")
        out.add_row(*cells)
    return out


def main(config: Rounds) -> None:
    """Run or resume, print, draw."""
    from analysis.loops import run

    folder = run(config)
    report(folder)
    draw("rounds", folder)


def cli() -> None:
    """Parse the command line; here and not on import, so that reading a run loads no torch."""
    from analysis.loops import Rounds

    run_cli(Rounds, main, "analysis.rounds")


if __name__ == "__main__":
    cli()
