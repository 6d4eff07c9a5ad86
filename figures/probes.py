"""The probe grid: what classifiers read of each label by layer, and baselines: `python -m figures.probes RUN`.

Draws probes.png and probes.pdf into a run folder of probes.classify.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from corrector.errors import UserError
from corrector.records import read_json, read_rows
from figures import drawn, style
from figures.drawn import Drawn, Row, point

HEIGHT = 1.65
"""Inches of a row of panels."""
OWN = "corrector"
LOOKS = {
    f"{OWN}, logistic": (style.BLUE, "-", "o"),
    f"{OWN}, mass_mean": (style.ORANGE, "-", "s"),
    f"{OWN}, lda": (style.GREEN, "-", "D"),
    "untrained, logistic": (style.MUTED, ":", "^"),
    "before, logistic": (style.PURPLE, ":", "v"),
}
"""Readings of layers: colour, dashes and marker; others take SPARE."""
SPARE = (style.SKY, "--", "x")
BASELINES = {
    "bag_of_words": (style.VERMILLION, "--"),
    "perplexity_corrector": (style.INK, "--"),
    "perplexity_upstream": (style.MUTED, "--"),
    "length": (style.SKY, ":"),
    "position": (style.ORANGE, ":"),
}
"""Readings of the text alone: lines across; `prior`, .5 by definition, is not drawn."""


@dataclass(frozen=True)
class Table:
    """The plotted data: layers by (label, span) and series, and the baselines of each label."""

    run: str
    about: Row
    """summary.json of the run."""
    panels: dict[tuple[str, str], dict[str, list[Row]]]
    baselines: dict[str, list[Row]]


def table(rows: Sequence[Row], about: Row, run: str) -> Table:
    """The plotted data of probes.jsonl and summary.json. Raises UserError where no label could be probed."""
    panels: dict[tuple[str, str], dict[str, list[Row]]] = {}
    baselines: dict[str, list[Row]] = {}
    for row in rows:
        if row["layer"] is None:
            baselines.setdefault(row["label"], []).append(row)
        else:
            series = panels.setdefault((row["label"], row["span"]), {})
            series.setdefault(f"{row['source']}, {row['classifier']}", []).append(row)
    if not panels:
        raise UserError(f"{run} has no rows of layers in probes.jsonl; give a folder that probes.classify wrote")
    of = {label: [r for r in found if r["source"] in BASELINES] for label, found in baselines.items()}
    return Table(run, about, panels, of)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A row of panels a span, a panel a label. Lines have their series as gid, baselines their source."""
    spans = list(dict.fromkeys(span for _, span in found.panels))
    n_labels = len({label for label, _ in found.panels})
    keys = [
        row
        for span in spans
        for row in style.cut([key for key in found.panels if key[1] == span], style.panels_across(width, n_labels))
    ]
    with style.look():
        figure = style.sheet(
            width, HEIGHT * len(keys) + 0.5, (*notes(found), f"Run {found.run}, drawn by figures.probes.")
        )
        axes: Any = figure.subplots(len(keys), max(map(len, keys)), sharey=True, squeeze=False)
        for i, row in enumerate(keys):
            for j, ax in enumerate(axes[i]):
                if j < len(row):
                    _panel(ax, found, row[j])
                else:
                    ax.set_visible(False)
            axes[i][0].set_ylabel("AUROC on test items")
        figure.legend(handles=_handles(found), loc="outside upper left", ncols=4 if width >= style.PAGE else 2)
    return figure


def _handles(found: Table) -> list[Line2D]:
    series = dict.fromkeys(name for of in found.panels.values() for name in of)
    looks = {name: LOOKS.get(name, SPARE) for name in series}
    out = [style.key(name, color=c, linestyle=dash, marker=m) for name, (c, dash, m) in looks.items()]
    shown = dict.fromkeys(row["source"] for rows in found.baselines.values() for row in rows)
    return out + [
        style.key(name.replace("_", " "), color=colour, linestyle=dash)
        for name, (colour, dash) in BASELINES.items()
        if name in shown
    ]


def _panel(ax: Axes, found: Table, key: tuple[str, str]) -> None:
    label, span = key
    ax.axhline(0.5, color=style.MUTED, linewidth=0.6)
    for row in found.baselines.get(label, []):
        colour, dash = BASELINES[row["source"]]
        ax.axhline(row["auroc"], color=colour, linestyle=dash, linewidth=1.0, gid=row["source"])
    for name, of in found.panels[key].items():
        colour, dash, marker = LOOKS.get(name, SPARE)
        x = [row["layer"] for row in of]
        if name == next(iter(LOOKS)):
            low, high = ([row[end] for row in of] for end in ("low", "high"))
            ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, gid=f"{name}-band")
        ax.plot(x, [row["auroc"] for row in of], dash, marker=marker, color=colour, gid=name)
    first = next(iter(found.panels[key].values()))[0]
    ax.set_xticks(sorted({row["layer"] for of in found.panels[key].values() for row in of}))
    ax.set_xlabel("layer")
    style.heading(ax, f"{style.bold(label)} at {span}, n = {first['n']}")


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    return (
        f"Probes of {Path(found.about['corrector']).name} on {found.about['task']}, fitted on training problems. Band: "
        "95 % bootstrap over problems, of the logistic probe. Lines across read the text alone. A probe reads; it does "
        "not show use.",
        "looks_wrong is itself a bag-of-words prediction, so that baseline has it by construction.",
        style.MINIATURES if found.about["model_organism"] else "",
    )


def rows(found: Table) -> list[Row]:
    """The plotted numbers; baselines have no layer."""
    out: list[Row] = []
    for (label, span), series in found.panels.items():
        for name, of in series.items():
            ends = ("auroc", "low", "high")
            out += [point(f"{label}/{span}", name, r["layer"], *(r[end] for end in ends), n=r["n"]) for r in of]
    for label, of in found.baselines.items():
        out += [point(label, r["source"], None, r["auroc"], r["low"], r["high"], n=r["n"]) for r in of]
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of probes.classify."""
    about = read_json(run, "summary")
    if not about or not (run / "DONE").exists():
        raise UserError(f"{run} is no finished run of probes.classify; run its command, which resumes it")
    found = table(read_rows(run, "probes"), about, run.resolve().name)
    first = next(iter(next(iter(found.panels.values())).values()))[0]
    absent = about["n_absent_rows"] + about["n_absent_labels"]
    return Drawn(
        draw(found, width),
        rows(found),
        {"test items": first["n"], "test problems": first["n_problems"], "training items": first["n_train"]},
        ("the prior, .5 by definition", *((f"{absent} labels and rows that could not be probed",) if absent else ())),
        f"{drawn.BOOTSTRAP} over problems",
        drawn.told("Probe grid.", *notes(found)),
        drawn.inputs(run, "summary.json"),
    )


if __name__ == "__main__":
    drawn.cli("probes", build)
