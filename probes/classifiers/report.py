"""A run's rows as tables: the layer that validation chose, its metrics on test, and the baselines below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from corrector.errors import UserError
from corrector.records import read_json, read_rows
from probes.classifiers.labels import LABELS

WIDTH = 126
MODELS = ("corrector", "layer_0", "untrained", "before")
"""Sources that are read from a model's layers, in the order of the table; the others are surface features."""
Row = dict[str, Any]
MINIATURE = (
    "The corrector is a miniature trained to show the effect (a model organism): its numbers show what the lab "
    "measures, not how correctors of ordinary size behave."
)
CAVEAT = (
    "A probe reads; it does not show use. looks_wrong is itself a bag-of-words prediction, so that baseline has it by "
    "construction. Selectivity: test accuracy less the accuracy of the same classifier on random labels a problem, at "
    "unseen items of its train problems."
)
SHUFFLED = (
    "shuffled: mean [smallest, largest] over maps fitted with permuted items. A range from about 0 to 1 says that the "
    "label lies along an axis of most variance in both models, so that matching the items adds its sign alone."
)


def chosen(run: str | Path) -> pd.DataFrame:
    """One line per label, source, span and classifier: of all layers the one with the largest validation AUROC.

    The corrector's layer 0 stands there besides, as source `layer_0`. Ties go to the lowest layer. Metrics are of the
    test split. Raises UserError where the run has no rows.
    """
    rows = _chosen(Path(run))
    if not rows:
        raise UserError(f"{run} has no rows in probes.jsonl; give a folder that probes.classify wrote")
    return pd.DataFrame(rows, dtype=object)


def write_csv(run: Path) -> None:
    """Write `chosen` as summary.csv, in the digits of the rows; nothing where no label could be probed."""
    if rows := _chosen(run):
        pd.DataFrame(rows, dtype=object).to_csv(run / "summary.csv", index=False, lineterminator="\n")


def show(run: str | Path, console: Console | None = None) -> None:
    """Print a finished run: a table a label, the cross table, transfers, and what is absent and why."""
    folder = Path(run)
    summary = read_json(folder, "summary")
    if not summary:
        raise UserError(f"{run} holds no summary.json, so no finished run of probes.classify; run it first")
    out = console or Console()
    out.width = max(out.width, WIDTH)  # a narrower table would lose digits without a word
    rows = _chosen(folder)
    for label in dict.fromkeys(row["label"] for row in rows):
        out.print(_label_table([row for row in rows if row["label"] == label], label, summary))
    out.print(_cross(summary))
    for name in ("false_rewrite", "missed_rewrite"):
        if rate := summary["cross_table"]["test"][name]:
            interval = f"{rate['rate']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
            out.print(Text(f"{name.replace('_', ' ')}: {rate['n']} of {rate['of']}, {interval}"))
    transfers = read_rows(folder, "transfer")
    for across in dict.fromkeys(row["across"] for row in transfers):
        out.print(_transfer_table([row for row in transfers if row["across"] == across], across))
    if any(row["alignment"] == "shuffled" for row in transfers):
        out.print(Text(SHUFFLED, style="dim"))
    for absent in _grouped(summary["absent"]):
        out.print(Text(f"absent: {absent}", style="yellow"))
    for text in (*(f"note: {note}" for note in summary["notes"]), CAVEAT):
        out.print(Text(text, style="dim"))
    if summary["model_organism"]:
        out.print(Text(MINIATURE, style="dim"))


def _chosen(run: Path) -> list[Row]:
    rows = read_rows(run, "probes")
    zero = [
        {**row, "source": "layer_0"}
        for row in rows
        if row["source"] == "corrector" and row["layer"] == 0 and row["classifier"] == rows[0]["classifier"]
    ]
    best = _best([*rows, *zero], ("label", "source", "span", "classifier"))
    order = {name: i for i, name in enumerate(MODELS)}
    labels = list(dict.fromkeys(row["label"] for row in rows))
    return sorted(best.values(), key=lambda r: (labels.index(r["label"]), order.get(r["source"], len(order))))


def _best(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[Any, ...], Row]:
    """The row of the largest validation AUROC by the values of `names`; the first of equals."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        if key not in best or row["auroc_validation"] > best[key]["auroc_validation"]:
            best[key] = row
    return best


def _label_table(rows: Sequence[Row], label: str, summary: Row) -> Table:
    first = rows[0]
    title = (
        f"{label}: {summary['corrector']} on {summary['task']}; test n={first['n']} items "
        f"({first['n_positive']} positive) of {first['n_problems']} problems, fitted on {first['n_train']}"
    )
    out = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    out.pad_edge, out.padding = False, 0
    for heading in ("source", "span", "classifier"):
        out.add_column(heading, no_wrap=True)
    metrics = ("AUROC\n\\[95 %]", "accu-\nracy", "con-\ntrol", "selectivity\n\\[95 %]", "bits/\nlabel", "ECE", "Brier")
    for heading in ("layer", *metrics):
        out.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for i, row in enumerate(rows):
        out.add_row(
            *(row["source"], row["span"] or "", row["classifier"]),
            "" if row["layer"] is None else str(row["layer"]),
            _interval(row["auroc"], row["low"], row["high"]),
            _number(row["accuracy"]),
            _number(row["control_accuracy"]),
            _interval(row["selectivity"], row["selectivity_low"], row["selectivity_high"]),
            _number(row["mdl_bits"] / row["uniform_bits"]),
            _number(row["ece"]),
            _number(row["brier"]),
            style=None if row["source"] == "corrector" else "dim",
            end_section=_group(row) != _group(rows[min(i + 1, len(rows) - 1)]),
        )
    return out


def _group(row: Row) -> int:
    """The corrector, then the other readings of layers, then the surface features."""
    return 0 if row["source"] == "corrector" else 1 if row["source"] in MODELS else 2


def _cross(summary: Row) -> Table:
    """Counts of the labels' combinations on test items."""
    out = Table(title="labels of the test items", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for heading in (*LABELS, "n"):
        out.add_column(heading, justify="right")
    words = {True: "yes", False: "no", None: "unknown"}
    for cell in summary["cross_table"]["test"]["cells"]:
        out.add_row(*(words[cell[label]] for label in LABELS), str(cell["n"]))
    return out


def _transfer_table(rows: Sequence[Row], across: str) -> Table:
    """Source against target at the layer that the source's own validation items choose."""
    best = _best(rows, ("label", "span", "source", "target", "alignment"))
    title = f"transfer across {across}s ({rows[0]['classifier']}): test AUROC \\[95 %]"
    out = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    out.pad_edge, out.padding = False, 0
    for heading in ("label", "span", "source", "target", "layers"):
        out.add_column(heading, overflow="fold", no_wrap=heading not in ("source", "target"))
    ways = list(dict.fromkeys(row["alignment"] for row in rows))
    for way in ways:
        out.add_column(way, justify="right", no_wrap=True)
    for place in dict.fromkeys(key[:4] for key in best):
        of = {way: best[*place, way] for way in ways if (*place, way) in best}
        some = next(iter(of.values()))
        areas = [_interval(of[w]["auroc"], of[w]["low"], of[w]["high"]) if w in of else "" for w in ways]
        out.add_row(*map(str, place), f"{some['layer']} -> {some['layer_target']}", *areas)
    return out


def _grouped(absent: Sequence[Row]) -> list[str]:
    """What is absent in lines, layers and spans taken together and counted."""
    counts: dict[str, int] = {}
    for entry in absent:
        names = [entry[k] for k in ("label", "source", "target", "classifier") if entry.get(k) is not None]
        line = f"{', '.join(map(str, names))}: {entry['reason']}"
        counts[line] = counts.get(line, 0) + 1
    return [line if n == 1 else f"{line} ({n} rows)" for line, n in counts.items()]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} \\[{low:.2f}, {high:.2f}]"
