"""How long one waits for Stream Aligner and for Aligner of equal size (the paper's claims about latency).

python -m analysis.latency

times both, one problem at a time (analysis.experiments.waits), prints the table, writes summary.csv and statistics.json
into the run folder and draws latency.png and latency.pdf. As a module it reads run folders only, and loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.claims.found import Found, lines, plain
from analysis.drawing import cell, draw
from analysis.rounds import WIDTH
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import canonical, rounded
from corrector.statistics import bootstrap_mean, bootstrap_ratio

if TYPE_CHECKING:
    from analysis.experiments.waits import Latency

Row = dict[str, Any]
NOTE = (
    "the models are miniatures: a forward costs more than its tokens here, so the ratios of large models differ; what "
    "carries over is which work each method waits for."
)
MEASURES = {
    "first": "ms to the first corrected token",
    "per_token": "ms a token of the answer",
    "whole": "ms an answer",
}


def load_waits(run: str | Path) -> tuple[list[Row], Row]:
    """Rows of waits.jsonl with `per_token` in seconds, and what is said of the models.

    A problem is left out of a cell where one of the methods answered nothing, since it has no time a token there.
    Raises UserError unless the run is finished.
    """
    folder = Path(run)
    if not (folder / "DONE").exists() or not (rows := read_rows(folder, "waits")):
        raise UserError(f"{folder} is no finished run of analysis.latency; run its command, which resumes it")
    empty = {_cell(r) for r in rows if not r["tokens"]}
    kept = [{**r, "per_token": r["whole"] / r["tokens"]} for r in rows if _cell(r) not in empty]
    return kept, {**read_json(folder, "about"), "left_out": len(empty)}


def _cell(row: Row) -> tuple[str, int, str]:
    return row["decoding"], row["length"], row["problem"]


def latency_statistics(run: str | Path) -> Row:
    """`points`: one row a way of decoding, length of prompt and measure, in ms, with the ratio of the two methods.

    `ratio` is Stream Aligner's time over Aligner's, of the same problems (`first`: Aligner's over Stream Aligner's, as
    the paper has it).
    """
    rows, about = load_waits(run)
    config = read_json(Path(run), "config")
    seed, points, found = int(config["seed"]), list[Row](), list[Found]()
    for how, length in dict.fromkeys((r["decoding"], r["length"]) for r in rows):
        of = {kind: _of(rows, how, length, kind) for kind in ("stream", "aligner")}
        shape = {
            **{"decoding": how, "length": length, "n": len(of["stream"])},
            **{f"{name}_{kind}": _mean(of[kind], name) for kind in of for name in ("tokens", "waited_tokens")},
            "question_tokens": _mean(of["stream"], "question_tokens"),
        }
        for measure in MEASURES:
            stream, aligner = ([r[measure] for r in of[kind]] for kind in ("stream", "aligner"))
            over, under = (aligner, stream) if measure == "first" else (stream, aligner)
            ratio = bootstrap_ratio(over, under, seed=seed)
            point = {**shape, "measure": measure}
            for name, values in (("stream", stream), ("aligner", aligner)):
                mean = bootstrap_mean([1e3 * v for v in values], seed=seed)
                point |= {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high}
            points.append(point | {"ratio": ratio.mean, "ratio_low": ratio.low, "ratio_high": ratio.high})
            which = "Aligner over Stream Aligner" if measure == "first" else "Stream Aligner over Aligner"
            note = f"{which}; question of {shape['question_tokens']:.0f} tokens, {how} decoding"
            key = f"{config['task']}/latency/{measure}/{how}/{length}"
            found.append(Found(key, config["stream"], ratio.mean, ratio.low, ratio.high, ratio.n, note, 1.0))
    numbers = {"run": Path(run).resolve().name, **about, "points": points, "findings": plain(found)}
    return rounded(numbers, "statistics")


def _of(rows: Sequence[Row], how: str, length: int, kind: str) -> list[Row]:
    """The rows of a cell, by problem, so that both methods' stand in one order."""
    mine = [r for r in rows if (r["decoding"], r["length"], r["method"]) == (how, length, kind)]
    return sorted(mine, key=lambda r: r["problem"])


def _mean(rows: Sequence[Row], name: str) -> float:
    return sum(r[name] for r in rows) / len(rows)


def report(run: str | Path, console: Console | None = None) -> Row:
    """Write summary.csv and statistics.json, print a table a measure and the findings."""
    numbers = latency_statistics(run)
    folder = Path(run)
    pd.DataFrame(numbers["points"]).to_csv(
        folder / "summary.csv", index=False, float_format="%.6g", lineterminator="\n"
    )
    (folder / "statistics.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)
    for measure, unit in MEASURES.items():
        points = [p for p in numbers["points"] if p["measure"] == measure]
        out = Table(title=f"{unit}, one problem at a time", title_justify="left")
        for name in ("decoding", "tokens of the question", "Stream Aligner \\[95 %]", "Aligner \\[95 %]", "ratio", "n"):
            out.add_column(name, justify="right")
        for p in points:
            cells = (cell(p, "stream", 1), cell(p, "aligner", 1), cell(p, "ratio", 2))
            out.add_row(p["decoding"], f"{p['question_tokens']:.0f}", *cells, str(p["n"]))
        console.print(out)
    for line in lines(numbers["findings"]):
        console.print(line, markup=False, highlight=False)
    if numbers["left_out"]:
        console.print(f"left out: {numbers['left_out']} cells of a problem in which a method answered nothing")
    if numbers["model_organism"]:
        console.print(NOTE, style="dim")
    return numbers


def main(config: Latency) -> None:
    """Run or resume, print, draw."""
    from analysis.experiments.waits import run

    folder = run(config)
    report(folder)
    draw("latency", folder)


def cli() -> None:
    """Parse the command line; here and not on import, so that reading a run loads no torch."""
    from analysis.experiments.waits import Latency

    run_cli(Latency, main, "analysis.latency")


if __name__ == "__main__":
    cli()
