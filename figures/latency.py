"""Waiting for Stream Aligner and for Aligner, by prompt length: `python -m figures.latency RUN`.

Draws latency.png and latency.pdf into a run folder of analysis.latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.latency import MEASURES, latency_statistics
from figures import drawn, style
from figures.drawn import Drawn, Row, point

HEIGHT = 2.2
"""Inches of a row of panels."""
LOOKS = {"stream": ("Stream Aligner", style.VERMILLION), "aligner": ("Aligner", style.BLUE)}
DASHES = {"fast": "-", "plain": "--"}
MINIATURES = (
    "Miniatures: a forward costs more than its tokens here, so the ratios of large models differ; what carries over is "
    "which work each method waits for."
)
NOTE = (
    "Bars: 95 % bootstrap over problems. Fast: the lab's decoder; plain: cached decoding without drafts or shared "
    "prefixes. Time: of the CPU on a CPU, of the clock on an accelerator."
)


@dataclass(frozen=True)
class Table:
    """The plotted data: points in the order of prompt length, by measure and way of decoding."""

    run: str
    model_organism: bool
    left_out: int
    """Problems of a cell in which a method answered nothing."""
    panels: dict[str, dict[str, list[Row]]]


def table(numbers: Row) -> Table:
    """The plotted data of `latency_statistics`."""
    panels: dict[str, dict[str, list[Row]]] = {}
    for p in sorted(numbers["points"], key=lambda p: p["question_tokens"]):
        panels.setdefault(p["measure"], {}).setdefault(p["decoding"], []).append(p)
    return Table(numbers["run"], numbers["model_organism"], numbers.get("left_out", 0), panels)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """A panel a measure. Lines have the gid `<measure>/<decoding>/<method>`."""
    across = style.panels_across(width, len(found.panels))
    n_rows = -(-len(found.panels) // across)
    with style.look():
        below = (NOTE, f"Run {found.run}, drawn by figures.latency.", MINIATURES if found.model_organism else "")
        figure = style.sheet(width, HEIGHT * n_rows, below)
        axes: Any = figure.subplots(n_rows, across, squeeze=False)
        for ax, (measure, by_decoding) in zip(axes.flat, found.panels.items(), strict=False):
            _panel(ax, measure, by_decoding)
        ways = next(iter(found.panels.values()))
        handles = [style.key(label, color=colour, marker="o") for label, colour in LOOKS.values()]
        handles += [style.key(how, color=style.MUTED, linestyle=DASHES[how]) for how in ways]
        n = sorted({p["n"] for of in ways.values() for p in of})
        told = f"n = {n[0]}{f' to {n[-1]}' if len(n) > 1 else ''} problems, one at a time"
        style.heading(axes[0][0], told, 2, handles)
        for ax in axes.flat[len(found.panels) :]:
            ax.set_visible(False)
    return figure


def _panel(ax: Axes, measure: str, by_decoding: dict[str, list[Row]]) -> None:
    for how, points in by_decoding.items():
        x = [p["question_tokens"] for p in points]
        for kind, (_, colour) in LOOKS.items():
            low, high = ([p[f"{kind}_{end}"] for p in points] for end in ("low", "high"))
            if None not in low:
                ax.vlines(x, low, high, color=colour, alpha=0.5, linewidth=1.0)
            gid = f"{measure}/{how}/{kind}"
            ax.plot(x, [p[kind] for p in points], f"o{DASHES[how]}", color=colour, gid=gid)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("tokens of the question")
    ax.set_ylabel(style.wrapped(MEASURES[measure], 1.3))


def rows(found: Table) -> list[Row]:
    """The plotted numbers."""
    out: list[Row] = []
    for measure, by_decoding in found.panels.items():
        for how, points in by_decoding.items():
            for p in points:
                for kind in LOOKS:
                    y, low, high = (p[f"{kind}{end}"] for end in ("", "_low", "_high"))
                    out.append(point(measure, f"{kind}/{how}", p["question_tokens"], y, low, high, n=p["n"]))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a finished run of analysis.latency."""
    found = table(latency_statistics(run))
    n = {p["n"] for ways in found.panels.values() for of in ways.values() for p in of}
    dropped = f"{found.left_out} cells of a problem in which a method answered nothing"
    return Drawn(
        draw(found, width),
        rows(found),
        {"problems": max(n), "problems of the smallest cell": min(n)},
        (dropped,) if found.left_out else (),
        f"{drawn.BOOTSTRAP} over problems",
        drawn.told("Waiting by length of the question.", NOTE, MINIATURES if found.model_organism else ""),
        drawn.inputs(run, "about.json"),
    )


if __name__ == "__main__":
    drawn.cli("latency", build)
