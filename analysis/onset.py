"""At which layer a corrector decides, and whether it decides before it writes: `python -m analysis.onset RUN...`.

Tables and verdicts from run folders of `probes.scan`; writes summary.json into each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import SIGNIFICANT_DIGITS, canonical, to_plain

MATH, QA = ("arithmetic", "gsm8k"), ("dialogue",)
"""Tasks of each kind, for the claim that math uses more layers to decide than question answering."""
READS = {
    "direction": "copy/rewrite, AUROC",
    "extent": "edit ratio, rho",
    "written": "1st token, share",
    "output": "copy/rewrite, AUROC",
}
LEAST_DIFFERS = 0.5
"""Share of rewrites whose first token must be another than a copy's, for that token to show the edit."""
WIDTH = 120
CAVEATS = (
    "A layer that tells the classes apart need not have decided: it may hold the evidence that the decision rests on. "
    "At output tokens the token just written is itself such evidence. The lens is not fitted, so it reads late.",
    "Band of chance: 95 % of the curves of shuffled labels, as wholes. Intervals: 95 %, from resampled problems.",
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Onset:
    """Print onset and saturation layers of scans, and what they say of the paper's claims."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, such as runs/scan-1a2b3c4d."""


@dataclass(frozen=True)
class Verdict:
    """A claim, whether the numbers hold it up (None: they cannot tell), and the numbers in words.

    `name` is early, decided first or more layers; `task` that of the corrector, empty where it is about two; `n` the
    problems it rests on.
    """

    name: str
    task: str
    subject: str
    claim: str
    holds: bool | None
    reason: str
    n: int


def load_curves(run: str | Path) -> list[Row]:
    """Rows of a scan's onset.jsonl, each with its run, its corrector's `n_layers` and `model_organism`.

    Raises UserError where the folder is no run, or has no such rows.
    """
    folder = Path(run)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no config.json, so no run; give a folder that probes.scan wrote")
    rows = read_rows(folder, "onset")
    if not rows:
        raise UserError(f"{folder} has no rows in onset.jsonl yet; run probes.scan first")
    about = correctors(folder)
    known = {a["corrector"]: a for a in about}
    return [
        {**row, "run": folder.resolve().name, "model_organism": known[row["corrector"]]["model_organism"]}
        for row in rows
        if row["corrector"] in known  # a corrector is done once its own file is there
    ]


def correctors(run: str | Path) -> list[Row]:
    """What a scan says once of each corrector that it has finished, in the order of the panels."""
    found: list[Row] = []
    while about := read_json(Path(run), f"corrector-{len(found)}"):
        found.append(about)
    return found


def layer_interval(draws: Sequence[int | None], n_layers: int) -> tuple[int | None, int | None]:
    """Ends of the 95 % interval of a layer over resamples; None stands for no layer, which lies beyond the last."""
    low, high = np.quantile(_beyond(draws, n_layers), [0.025, 0.975], method="inverted_cdf").astype(int)
    return (None if low >= n_layers else int(low), None if high >= n_layers else int(high))


def table_row(row: Row) -> Row:
    """A curve as one line: onset and saturation layer with intervals, and the largest value with that layer's."""
    n = len(row["value"])
    best = int(np.argmax(row["value"]))
    onset, saturation = (layer_interval(row[f"{name}_draws"], n) for name in ("onset", "saturation"))
    kept = ("run", "task", "corrector", "reader", "span", "statistic", "onset", "saturation", "n_items", "n_problems")
    return {
        **{key: row[key] for key in kept},
        "onset_interval": list(onset),
        "saturation_interval": list(saturation),
        "max": row["value"][best],
        "max_layer": best,
        "max_low": row["low"][best],
        "max_high": row["high"][best],
        "null_high": row["null_high"],
        "n_layers": n,
    }


def verdicts(curves: Sequence[Row]) -> list[Verdict]:
    """What the curves say of the paper's claims: for every corrector, then for every math-QA pair."""
    out: list[Verdict] = []
    deciding = [c for c in curves if c["reader"] == "direction"]
    for direction in deciding:
        mine = [c for c in curves if all(c[key] == direction[key] for key in ("run", "task", "corrector"))]
        readers = {c["reader"]: c for c in mine}
        out += [early(direction), decided_first(readers.get("extent"), readers["written"])]
    math, qa = ([c for c in deciding if c["task"] in kind] for kind in (MATH, QA))
    return out + [more_layers(a, b) for a in math for b in qa]


def early(direction: Row) -> Verdict:
    """Whether copy or rewrite is decided in the first half of the layers."""
    n, who = len(direction["value"]), _name(direction)
    verdict = partial(
        Verdict, "early", direction["task"], who, f"{who}: copy or rewrite is decided in the first half of the layers"
    )
    if direction["saturation"] is None:
        return verdict(None, "no layer's AUROC is above the band of chance", direction["n_problems"])
    low, high = layer_interval(direction["saturation_draws"], n)
    reason = f"AUROC saturates at {_layer(direction, 'saturation')} of {n}"
    if high is not None and high < n / 2:
        return verdict(True, reason, direction["n_problems"])
    return verdict(False if low is None or low >= n / 2 else None, reason, direction["n_problems"])


def decided_first(extent: Row | None, written: Row) -> Verdict:
    """Whether the extent of a rewrite can be read before its first token is written: layers of both, paired.

    Both saturation layers come from the same resamples of problems, so their gap's interval is that of the gap itself.
    The direction was fitted and the lens was not, and the last layer's lens is the model: a gap is easily positive.
    Not answered where most rewrites begin as a copy does, so that the first token does not show the edit.
    """
    who, m = _name(written), written["n_problems"]
    verdict = partial(Verdict, "decided first", written["task"], who, f"{who}: extent is decided first, then executed")
    if extent is None:
        return verdict(None, "all rewrites have the same edit ratio, so extent cannot be read", m)
    if extent["saturation"] is None:
        return verdict(None, "no layer's correlation with the edit ratio is above the band of chance", m)
    n = len(written["value"])
    gaps = _beyond(written["saturation_draws"], n) - _beyond(extent["saturation_draws"], n)
    low, high = np.quantile(gaps, [0.025, 0.975], method="inverted_cdf").astype(int)
    gap = written["saturation"] - extent["saturation"]
    reason = (
        f"correlation with the edit ratio of rewrites saturates at {_layer(extent, 'saturation')}, the lens has the "
        f"first output token at {_layer(written, 'saturation')}, a gap of {gap} [{low}, {high}] layers"
    )
    if written["differs"] < LEAST_DIFFERS:
        late = (
            f"only {written['differs']:.0%} of the rewrites differ from a copy in that token: edits are executed later"
        )
        return verdict(None, f"{reason}, but {late}", m)
    return verdict(True if low > 0 else False if high < 0 else None, reason, m)


def more_layers(math: Row, qa: Row) -> Verdict:
    """Whether math decides at a greater share of the depth than QA; the resamples are independent.

    Not answered where more than 2.5 % of a task's resamples have no layer above chance.
    """
    who, n = f"{_name(math)} against {_name(qa)}", min(math["n_problems"], qa["n_problems"])
    claim = f"math ({_name(math)}) uses more layers to decide than QA ({_name(qa)})"
    verdict = partial(Verdict, "more layers", "", who, claim)
    for row in (math, qa):
        lost = row["saturation_draws"].count(None) / len(row["saturation_draws"])
        if row["saturation"] is None or lost > 0.025:
            where = "no layer's" if row["saturation"] is None else f"in {lost:.0%} of the resamples no layer's"
            known = f"so where {row['task']} decides is not known (largest {max(row['value']):.2f})"
            return verdict(None, f"{where} AUROC of {row['task']} is above the band of chance, {known}", n)
    # From 0, the first layer, to 1, the last, so that the first layers of models of unlike depth tie.
    last = [max(len(row["value"]) - 1, 1) for row in (math, qa)]
    depths = [_beyond(row["saturation_draws"], len(row["value"])) / k for row, k in zip((math, qa), last, strict=True)]
    # All pairs of draws, since neither run's resamples know of the other's.
    low, high = np.quantile(np.subtract.outer(*depths), [0.025, 0.975])
    gap = math["saturation"] / last[0] - qa["saturation"] / last[1]
    reason = (
        f"AUROC saturates at {_layer(math, 'saturation')} of {len(math['value'])} in {math['task']}, at "
        f"{_layer(qa, 'saturation')} of {len(qa['value'])} in {qa['task']}; "
        f"difference {gap:+.2f} [{low:+.2f}, {high:+.2f}] of the depth"
    )
    return verdict(True if low > 0 else False if high < 0 else None, reason, n)


def report(runs: Sequence[str | Path], console: Console | None = None) -> tuple[list[Row], list[Verdict]]:
    """Print one table over all runs and the verdicts; write each run's own into its summary.json."""
    if not runs:
        raise UserError("no run folder was given; give one or more that probes.scan wrote")
    by_run = {Path(run): load_curves(run) for run in runs}
    for folder, curves in by_run.items():
        own = {"correctors": correctors(folder), "onset": [*map(table_row, curves)], "verdicts": verdicts(curves)}
        summary = {"run": folder.resolve().name, "finished": (folder / "DONE").exists(), **own}
        text = canonical(to_plain(summary, "summary", SIGNIFICANT_DIGITS))
        (folder / "summary.json").write_text(text, encoding="utf-8")
    return tell([c for rows in by_run.values() for c in rows], console or Console())


def tell(curves: Sequence[Row], console: Console) -> tuple[list[Row], list[Verdict]]:
    """Print one table over curves that `load_curves` read, and the verdicts; nothing is written."""
    lines, found = [*map(table_row, curves)], verdicts(curves)
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    console.print(onset_table(lines))
    for verdict in found:
        words, style = {True: ("holds", "green"), False: ("does not hold", "red"), None: ("not shown", "yellow")}[
            verdict.holds
        ]
        console.print(Text.assemble(f"{verdict.claim}: ", (words, f"bold {style}"), f"; {verdict.reason}."))
    miniature = any(c["model_organism"] for c in curves)
    note = (
        "The correctors are miniatures (model organisms): this is no measurement of larger ones." if miniature else ""
    )
    for text in filter(None, (*CAVEATS, note)):
        console.print(Text(text, style="dim"))
    return lines, found


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


def _beyond(draws: Sequence[int | None], n_layers: int) -> np.ndarray:
    return np.array([n_layers if layer is None else layer for layer in draws])


def _layers(line: Row, name: str) -> str:
    ends = ", ".join("none" if end is None else str(end) for end in line[f"{name}_interval"])
    return f"{'none' if line[name] is None else line[name]} \\[{ends}]"


def _layer(row: Row, name: str) -> str:
    ends = layer_interval(row[f"{name}_draws"], len(row["value"]))
    return f"layer {row[name]} [{', '.join('none' if end is None else str(end) for end in ends)}]"


def _name(row: Row) -> str:
    return f"{row['task']}, {Path(row['corrector']).name}"


if __name__ == "__main__":
    run_cli(Onset, lambda config: report(config.runs), "analysis.onset")
