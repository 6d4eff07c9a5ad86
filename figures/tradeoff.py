"""What steering trades, `python -m figures.tradeoff RUN`: both errors, item slopes, flips and Pareto fronts.

Draws tradeoff.png and tradeoff.pdf into a sweep's run folder; `analysis.tradeoff` prints the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tradeoff import COSTS, tradeoff
from figures import drawn, style
from figures.drawn import Drawn, Row, point

HEIGHT = 1.95
"""Inches of a row of panels."""
COST_LABELS = {"edit_ratio": "edit ratio (edits / characters of last)", "kl": "KL (nats a token)"}
COLOURS = {"edit_ratio": style.BLUE, "kl": style.ORANGE}
UNITS = (style.INK, style.BLUE, style.ORANGE, style.GREEN)
NEAR, LETTER = (0.1, 0.06), 0.022
"""Shares of a panel's width and height within which points share a label, and of its width that a letter takes."""
CLASSES = ("copied", "rewritten")


@dataclass(frozen=True)
class Table:
    """The plotted data: `analysis.tradeoff.tradeoff`'s numbers by task, and the outcomes that have a front."""

    run: str
    finished: bool
    tasks: dict[str, Row]
    outcomes: dict[str, list[str]]


def table(numbers: Row) -> Table:
    """The plotted data of `analysis.tradeoff.tradeoff`."""
    tasks: dict[str, Row] = numbers["tasks"]
    outcomes = {task: list(dict.fromkeys(name.split("/")[1] for name in of["pareto"])) for task, of in tasks.items()}
    return Table(numbers["run"], numbers["finished"], tasks, outcomes)


def draw(found: Table, width: float = style.PAGE) -> Figure:
    """Each task's errors, slopes of items, changes against coefficient 0 and a front an outcome and cost.

    The curve of both errors has the gid `roc`, its unsteered point `unsteered`, controls their name; fronts
    `<cost>/<outcome>`, dominated points `<cost>/<outcome>-dominated`. A page has two columns, a column one.
    """
    with style.look():
        across = 2 if width >= style.PAGE else 1
        n_rows = sum(_n_rows(found, task, across) for task in found.tasks)
        below = (
            *notes(found),
            f"Run {found.run}{'' if found.finished else ' (not finished)'}, drawn by figures.tradeoff.",
        )
        figure = style.sheet(width, HEIGHT * n_rows + 0.3 * len(found.tasks), below)
        cells: Any = figure.add_gridspec(n_rows, across)
        row = 0
        for task, of in found.tasks.items():
            _task(figure, cells, row, across, (task, of), found.outcomes[task])
            row += _n_rows(found, task, across)
    return figure


def _n_rows(found: Table, task: str, across: int) -> int:
    return (2 + len(found.outcomes[task])) if across == 2 else 3 + len(found.tasks[task]["pareto"])


def _task(figure: Figure, cells: Any, row: int, across: int, named: tuple[str, Row], outcomes: list[str]) -> None:
    """The panels of a task from a row of the grid on: two beside each other, or all below each other."""
    task, of = named
    first = figure.add_subplot(cells[row, 0])
    second = figure.add_subplot(cells[row, 1] if across == 2 else cells[row + 1, 0])
    size = f"n = {of['n_right']} right, {of['n_wrong']} wrong items" if of["roc"] else f"n = {of['n_items']} items"
    _roc(first, of, f"{style.bold(task)}: {size}{'' if of['pareto'] else ', no align loop'}")
    _slopes(second, of)
    row += 1 if across == 2 else 2
    _flips(figure.add_subplot(cells[row, :]), of["flips"], across)
    keys = [f"{cost}/{outcome}" for outcome in outcomes for cost in COSTS if f"{cost}/{outcome}" in of["pareto"]]
    for i, key in enumerate(keys):
        cost, outcome = key.split("/")
        at = (row + 1 + outcomes.index(outcome), COSTS.index(cost)) if across == 2 else (row + 1 + i, 0)
        _front(figure.add_subplot(cells[at]), of["pareto"][key], cost, outcome)


def _roc(ax: Axes, of: Row, title: str) -> None:
    ax.set_xlabel("false rewrite (edited, of those right)")
    ax.set_ylabel("1 - missed rewrite\n(edited, of those wrong)")
    ax.set_xlim(-0.04, 1.04)
    ax.set_ylim(-0.04, 1.06)
    if not of["roc"]:
        ax.annotate("no labels of right and wrong", (0.5, 0.5), xycoords="axes fraction", ha="center")
        style.heading(ax, title)
        return
    ax.plot([0, 1], [0, 1], ":", color=style.MUTED, linewidth=0.9, label="edits whatever is right", gid="chance")
    for i, (name, rows) in enumerate(of["controls"].items()):
        x, y = [r["false_rewrite"] for r in rows], [1 - r["missed_rewrite"] for r in rows]
        label = None if i else f"{len(of['controls'])} control{'s' * (len(of['controls']) > 1)}"
        ax.plot(x, y, ".-", color=style.CONTROL, linewidth=0.8, markersize=2.5, label=label, gid=name, zorder=1.5)
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
            ring: Any = {"markersize": 8, "markerfacecolor": "none", "color": style.VERMILLION}
            ax.plot([a], [b], "o", label="unsteered", gid="unsteered", zorder=4, **ring)
    if of["area"]:
        area = of["area"]
        text = (
            f"area over the reached {area['reached_from']:.2f} to {area['reached_to']:.2f}: {area['area_reached']:.3f}"
        )
        text += f"\n{area['over_chance']:+.2f} [{area['over_chance_low']:.2f}, {area['over_chance_high']:.2f}] "
        ax.annotate(
            text + "over the diagonal",
            (0.98, 0.04),
            xycoords="axes fraction",
            ha="right",
            fontsize=style.SMALL,
            gid="area",
        )
    style.heading(ax, title, 2)


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
    ax.annotate(text, (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=style.SMALL)
    ax.set_ylim(top=ax.get_ylim()[1] * 1.35)
    style.heading(ax, "", 2)


def _flips(ax: Axes, flips: dict[str, list[Row]], across: int) -> None:
    """Bars up: units that did better than at coefficient 0; bars down: worse; in shares of the units."""
    ax.axhline(0, color=style.MUTED, linewidth=0.8)
    ax.set_ylabel("share that did worse | better\nthan at coefficient 0")
    ax.set_xlabel("coefficient (multiples of the vector)")
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
    bottom, top = ax.get_ylim()
    ax.set_ylim(min(bottom, -0.1), max(top, 0.1))
    ax.yaxis.set_major_formatter(lambda share, _: f"{abs(share):.2g}")
    style.heading(ax, "", across + 1)


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
    ax.set_ylabel(f"loop: {outcome}\n(mean of an answer)")
    style.heading(ax, "", 2)


def _label(ax: Axes, coefs: list[float], x: list[float], y: list[float], offset: tuple[int, int]) -> None:
    """Name points by their coefficients; points that would hide each other's name share one."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    groups: list[list[int]] = []
    for i in range(len(coefs)):
        for group in groups:
            off = abs(x[i] - x[group[-1]]) / (right - left), abs(y[i] - y[group[-1]]) / (top - bottom)
            if off[0] < NEAR[0] and off[1] < NEAR[1]:
                group.append(i)
                break
        else:
            groups.append([i])
    placed: list[tuple[float, float]] = []
    for group in sorted(groups, key=lambda group: x[group[-1]]):
        text = ", ".join(f"{coefs[i]:+g}" if coefs[i] else "0" for i in group)
        at = x[group[-1]], y[group[-1]]
        start, height = (at[0] - left) / (right - left), (at[1] - bottom) / (top - bottom)
        covered = any(start < end and abs(height - level) < NEAR[1] for end, level in placed)
        placed.append((start + LETTER * len(text), height))
        under = (offset[0], -9 - offset[1]) if covered else offset
        ax.annotate(text, at, under, textcoords="offset points", fontsize=style.SMALL, gid="coef")


def _error(rows: list[Row], name: str, middle: list[float]) -> Any:
    """[below, above] of each point; 0 where there is no interval."""
    pairs = [(r[f"{name}_low"], r[f"{name}_high"]) for r in rows]
    low = [m - (a if a is not None else m) for (a, _), m in zip(pairs, middle, strict=True)]
    high = [(b if b is not None else m) - m for (_, b), m in zip(pairs, middle, strict=True)]
    return np.clip([low, high], 0, None)


def _hollow(ax: Axes, x: list[float], y: list[float], which: list[bool], colour: str, gid: str) -> None:
    at = [(a, b) for a, b, hollow in zip(x, y, which, strict=True) if hollow]
    ax.plot([a for a, _ in at], [b for _, b in at], "o", color=colour, markerfacecolor="white", gid=gid, zorder=3.5)


def notes(found: Table) -> tuple[str, ...]:
    """What the figure must be read with."""
    return (
        "Crosses: 95 % bootstrap over questions. Hollow above: coefficients outside the usable range, not in the area.",
        "Hollow below: dominated (another coefficient edits no more and does no worse).",
        style.MINIATURES if any(of["model_organism"] for of in found.tasks.values()) else "",
    )


def rows(found: Table) -> list[Row]:
    """The plotted numbers; `coef` tells which dose a point is of."""
    out: list[Row] = []
    for task, of in found.tasks.items():
        for p in of["roc"]:
            low, high = 1 - p["missed_rewrite_high"], 1 - p["missed_rewrite_low"]
            ends = {"x_low": p["false_rewrite_low"], "x_high": p["false_rewrite_high"]}
            at = (p["false_rewrite"], 1 - p["missed_rewrite"], low, high)
            out.append(point(f"{task}/errors", "roc", *at, n=of["n_right"] + of["n_wrong"], coef=p["coef"], **ends))
        for name, points in of["controls"].items():
            for p in points:
                out.append(point(f"{task}/errors", name, p["false_rewrite"], 1 - p["missed_rewrite"], coef=p["coef"]))
        if of["items"]:
            slopes = np.sort(of["items"]["slopes"])
            at = ((np.arange(len(slopes)) + 0.5) / len(slopes)).tolist()
            out += [point(f"{task}/items", "slopes", x, y) for x, y in zip(at, slopes.tolist(), strict=True)]
        for name, flips in of["flips"].items():
            for r in flips:
                for side, sign in (("better", 1), ("worse", -1)):
                    share = sign * r[side] / r["n"]
                    out.append(point(f"{task}/flips", f"{name}-{side}", r["coef"], share, n=r["n"], coef=r["coef"]))
        for name, points in of["pareto"].items():
            for p in points:
                ends = {"x_low": p["cost_low"], "x_high": p["cost_high"], "on_front": p["on_front"]}
                at = (p["cost"], p["gain"], p["gain_low"], p["gain_high"])
                out.append(point(f"{task}/front", name, *at, coef=p["coef"], **ends))
    return out


def build(run: Path, width: float = style.PAGE) -> Drawn:
    """The figure of a sweep's run folder."""
    found = table(tradeoff(run))
    beyond = {task: sum(not p["usable"] for p in of["roc"]) for task, of in found.tasks.items()}
    dropped = [
        f"{n} coefficients of {task} outside its usable range: hollow, not in the area" for task, n in beyond.items()
    ]
    return Drawn(
        draw(found, width),
        rows(found),
        {f"{name} of {task}": of[f"n_{name}"] for task, of in found.tasks.items() for name in ("items", "questions")},
        tuple(text for text, n in zip(dropped, beyond.values(), strict=True) if n),
        f"{drawn.BOOTSTRAP} over questions",
        drawn.told(f"What steering trades: {', '.join(found.tasks)}.", *notes(found)),
        drawn.inputs(run, "selection.json"),
    )


if __name__ == "__main__":
    drawn.cli("tradeoff", build)
