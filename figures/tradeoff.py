"""What steering trades, `python -m figures.tradeoff RUN`: both errors, item slopes, flips and Pareto fronts.

Draws tradeoff.png and tradeoff.pdf into a sweep's run folder; `analysis.tradeoff` prints the numbers.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tradeoff import COSTS, tradeoff
from corrector.errors import run_cli
from figures import style

Row = dict[str, Any]
WIDTH, ROW = 4.4, 2.9
"""Inches of a column and of a row of panels; a task has two columns."""
COST_LABELS = {"edit_ratio": "edit ratio (edits / characters of last)", "kl": "KL (nats a token)"}
COLOURS = {"edit_ratio": style.BLUE, "kl": style.ORANGE}
UNITS = (style.INK, style.BLUE, style.ORANGE, style.GREEN)
CLASSES = ("copied", "rewritten")
NOTE = "Miniature (model organism): the figure shows what the lab measures, not how larger correctors behave."


@dataclass(frozen=True)
class Draw:
    """Draw what steering trades in a sweep's run folder; writes tradeoff.png and tradeoff.pdf into it."""

    run: tyro.conf.Positional[Path]
    """Run folder, such as runs/sweep-1a2b3c4d."""


def draw(numbers: Row) -> Figure:
    """Two columns a task: both errors, slopes of items, changes against coefficient 0, a row of fronts an outcome.

    `numbers` are `analysis.tradeoff.tradeoff`'s. The curve of both errors has the gid `roc`, its unsteered point
    `unsteered`, controls their name; fronts `<cost>/<outcome>`, dominated points `<cost>/<outcome>-dominated`.
    """
    tasks: dict[str, Row] = numbers["tasks"]
    outcomes = {task: list(dict.fromkeys(name.split("/")[1] for name in of["pareto"])) for task, of in tasks.items()}
    n_rows = 2 + max(map(len, outcomes.values()))
    with style.look():
        figure = Figure(figsize=(2 * WIDTH * len(tasks), ROW * n_rows + 0.9), layout="constrained")
        cells: Any = figure.add_gridspec(n_rows, 2 * len(tasks))
        for i, (task, of) in enumerate(tasks.items()):
            left, right = 2 * i, 2 * i + 1
            first = figure.add_subplot(cells[0, left])
            _roc(first, of)
            _slopes(figure.add_subplot(cells[0, right]), of)
            _flips(figure.add_subplot(cells[1, left : right + 1]), of["flips"])
            for row, outcome in enumerate(outcomes[task], start=2):
                for column, cost in zip((left, right), COSTS, strict=True):
                    if rows := of["pareto"].get(f"{cost}/{outcome}"):
                        _front(figure.add_subplot(cells[row, column]), rows, cost, outcome)
            bold = task.replace(" ", r"\ ").replace("_", r"\_")
            size = f"{of['n_right']} right, {of['n_wrong']} wrong items" if of["roc"] else f"{of['n_items']} items"
            loop = "" if of["pareto"] else ", no align loop"
            first.set_title(f"$\\bf{{{bold}}}$: {size}{loop}", loc="left", pad=36, fontsize=9, color=style.MUTED)
        _footer(figure, numbers)
    return figure


def _roc(ax: Axes, of: Row) -> None:
    ax.set_xlabel("false rewrite (edited, of those right)")
    ax.set_ylabel("1 - missed rewrite\n(edited, of those wrong)")
    ax.set_xlim(-0.04, 1.04)
    ax.set_ylim(-0.04, 1.06)
    if not of["roc"]:
        ax.annotate("no labels of right and wrong", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    ax.plot([0, 1], [0, 1], ":", color=style.MUTED, linewidth=0.9, label="edits whatever is right", gid="chance")
    for i, (name, rows) in enumerate(of["controls"].items()):
        x, y = [r["false_rewrite"] for r in rows], [1 - r["missed_rewrite"] for r in rows]
        label = None if i else f"{len(of['controls'])} control{'s' * (len(of['controls']) > 1)}"
        ax.plot(x, y, ".-", color=style.CONTROL, linewidth=0.8, markersize=4, label=label, gid=name, zorder=1.5)
    points = of["roc"]
    x, y = [p["false_rewrite"] for p in points], [1 - p["missed_rewrite"] for p in points]
    across = _error(points, "false_rewrite", x)
    up = _error(points, "missed_rewrite", [p["missed_rewrite"] for p in points])[::-1]
    ax.errorbar(x, y, yerr=up, xerr=across, fmt="none", ecolor=style.BLUE, elinewidth=0.8, alpha=0.45, zorder=2)
    ax.plot(x, y, "o-", color=style.BLUE, label="correction vector", gid="roc", zorder=3)
    _hollow(ax, x, y, [not p["usable"] for p in points], style.BLUE, "unusable")
    _label(ax, [p["coef"] for p in points], x, y, (5, -10))
    for p, a, b in zip(points, x, y, strict=True):
        if p["coef"] == 0:
            ring: Any = {"markersize": 11, "markerfacecolor": "none", "color": style.VERMILLION}
            ax.plot([a], [b], "o", label="unsteered", gid="unsteered", zorder=4, **ring)
    if of["area"]:
        area = of["area"]
        text = (
            f"area over the reached {area['reached_from']:.2f} to {area['reached_to']:.2f}: {area['area_reached']:.3f}"
        )
        text += f"\n{area['over_chance']:+.2f} [{area['over_chance_low']:.2f}, {area['over_chance_high']:.2f}] "
        ax.annotate(
            text + "over the diagonal", (0.98, 0.04), xycoords="axes fraction", ha="right", fontsize=7.5, gid="area"
        )
    ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, fontsize=7.5).set_in_layout(True)


def _slopes(ax: Axes, of: Row) -> None:
    """Sorted slopes of all items: where the curve crosses 0 is the share that moves the wrong way."""
    ax.set_xlabel("share of items")
    ax.set_ylabel("slope of an item\n(edit ratio per coef)")
    if not of["items"]:
        ax.annotate("fewer than 2 usable coefficients", (0.5, 0.5), xycoords="axes fraction", ha="center")
        return
    slopes, numbers = np.sort(of["items"]["slopes"]), of["items"]["all"]
    at = (np.arange(len(slopes)) + 0.5) / len(slopes)
    ax.axhline(0, color=style.MUTED, linewidth=0.8, linestyle=":")
    ax.axhline(numbers["slope"], color=style.VERMILLION, linewidth=1.1, linestyle="--", label="mean", gid="mean")
    ax.plot(at, slopes, drawstyle="steps-mid", color=style.BLUE, label="items, sorted", gid="slopes")
    ax.fill_between(at, slopes, 0, where=list(slopes < 0), step="mid", color=style.VERMILLION, alpha=0.3, linewidth=0)
    low, high = (f"{numbers[f'wrong_way_{end}'] or 0:.0%}" for end in ("low", "high"))
    text = f"{numbers['wrong_way']:.0%} [{low}, {high}] move the wrong way, {numbers['unmoved']:.0%} not at all"
    for name in CLASSES:
        if of["items"][name]:
            text += f"\n{name} unsteered ({of['items'][name]['n']}): mean {of['items'][name]['slope']:.2f}"
    ax.annotate(text, (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=7.5)
    ax.set_ylim(top=ax.get_ylim()[1] * 1.25)
    style.legend_above(ax)


def _flips(ax: Axes, flips: dict[str, list[Row]]) -> None:
    """Bars up: units that did better than at coefficient 0; bars down: worse; in shares of the units."""
    ax.axhline(0, color=style.MUTED, linewidth=0.8)
    ax.set_ylabel("share that did worse | better\nthan at coefficient 0")
    ax.set_xlabel("coefficient")
    coefs = sorted({r["coef"] for rows in flips.values() for r in rows})
    width = 0.8 / max(len(flips), 1)
    for i, (name, rows) in enumerate(flips.items()):
        at = [coefs.index(r["coef"]) + (i - (len(flips) - 1) / 2) * width for r in rows]
        colour = UNITS[i % len(UNITS)]
        up, down = ([r[key] / r["n"] for r in rows] for key in ("better", "worse"))
        ax.bar(at, up, width * 0.92, color=colour, label=f"{name} (n = {rows[0]['n']})", gid=f"{name}-better")
        ax.bar(at, [-x for x in down], width * 0.92, color=colour, alpha=0.45, gid=f"{name}-worse")
    ax.set_xticks(range(len(coefs)), [f"{c:+g}" for c in coefs])
    ax.grid(visible=False, axis="x")
    ax.yaxis.set_major_formatter(lambda share, _: f"{abs(share):.2g}")
    if flips:
        ax.legend(loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=2, fontsize=7.5)


def _front(ax: Axes, rows: list[Row], cost: str, outcome: str) -> None:
    colour, gid = COLOURS[cost], f"{cost}/{outcome}"
    x, y = [r["cost"] for r in rows], [r["gain"] for r in rows]
    bars = {"xerr": _error(rows, "cost", x), "yerr": _error(rows, "gain", y)}
    ax.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.45, zorder=2, **bars)
    on = sorted((r for r in rows if r["on_front"]), key=lambda r: r["cost"])
    off = [r for r in rows if not r["on_front"]]
    steps: Any = {"drawstyle": "steps-post", "label": "front", "gid": gid}
    ax.plot([r["cost"] for r in on], [r["gain"] for r in on], "o-", color=colour, zorder=3, **steps)
    hollow: Any = {"markerfacecolor": "white", "label": "dominated", "gid": f"{gid}-dominated"}
    ax.plot([r["cost"] for r in off], [r["gain"] for r in off], "o", color=colour, zorder=3, **hollow)
    ax.margins(0.09, 0.12)
    _label(ax, [r["coef"] for r in rows], x, y, (4, 4))
    ax.set_xlabel(COST_LABELS[cost])
    ax.set_ylabel(f"loop: {outcome}")
    style.legend_above(ax)


def _label(ax: Axes, coefs: list[float], x: list[float], y: list[float], offset: tuple[int, int]) -> None:
    """Name points by their coefficients; points that would hide each other's name share one."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    groups: list[list[int]] = []
    for i in range(len(coefs)):
        for group in groups:
            near = abs(x[i] - x[group[-1]]) < 0.1 * (right - left) and abs(y[i] - y[group[-1]]) < 0.06 * (top - bottom)
            if near:
                group.append(i)
                break
        else:
            groups.append([i])
    for group in groups:
        text = ", ".join(f"{coefs[i]:+g}" if coefs[i] else "0" for i in group)
        at = x[group[-1]], y[group[-1]]
        ax.annotate(text, at, offset, textcoords="offset points", fontsize=7, gid="coef")


def _error(rows: list[Row], name: str, middle: list[float]) -> Any:
    """[below, above] of each point; 0 where there is no interval."""
    pairs = [(r[f"{name}_low"], r[f"{name}_high"]) for r in rows]
    low = [m - (a if a is not None else m) for (a, _), m in zip(pairs, middle, strict=True)]
    high = [(b if b is not None else m) - m for (_, b), m in zip(pairs, middle, strict=True)]
    return np.clip([low, high], 0, None)


def _hollow(ax: Axes, x: list[float], y: list[float], which: list[bool], colour: str, gid: str) -> None:
    at = [(a, b) for a, b, hollow in zip(x, y, which, strict=True) if hollow]
    ax.plot([a for a, _ in at], [b for _, b in at], "o", color=colour, markerfacecolor="white", gid=gid, zorder=3.5)


def _footer(figure: Figure, numbers: Row) -> None:
    sentences = (
        "Crosses: 95 % bootstrap over questions. Hollow above: coefficients outside the usable range, not in the area.",
        "Hollow below: dominated (another coefficient edits no more and does no worse).",
        f"Run {numbers['run']}{'' if numbers['finished'] else ' (not finished)'}, drawn by figures.tradeoff.",
        NOTE if any(of["model_organism"] for of in numbers["tasks"].values()) else "",
    )
    text = textwrap.fill(" ".join(filter(None, sentences)), width=int(figure.get_figwidth() * 17.5))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=style.MUTED)


def main(config: Draw) -> None:
    """Draw, and say where the figure is."""
    for file in style.save(draw(tradeoff(config.run)), config.run, "tradeoff"):
        print(file)


if __name__ == "__main__":
    run_cli(Draw, main, "figures.tradeoff")
