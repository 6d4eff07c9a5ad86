"""The dose curve: what a correction vector does to edits and to the align loop, `python -m figures.dose RUN`.

Prints the tables and verdicts of `analysis.curve`, then draws figure.png and figure.pdf into the run folder.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.curve import report, setting, size
from analysis.dose import WELL_FORMED
from analysis.nulls import family, is_null
from analysis.summary import CORRECTION, UNSTEERED, UPSTREAM, outcomes, select, summarise
from corrector.errors import run_cli
from figures import style

WIDTHS = {1: 7.6, 2: 11.0}
"""Inches for one and two tasks; further tasks add 5 each."""
ROW = 2.2
"""Inches a row of panels is high."""
EDIT_RATES = (
    ("copied", "copied", style.GREEN, "o", "-"),
    ("false_rewrite", "false rewrite", style.VERMILLION, "^", "-"),
    ("missed_rewrite", "missed rewrite", style.PURPLE, "s", "--"),
)
TEXT_RATES = (
    ("well_formed", "well-formed", style.INK, "o", "-"),
    ("right_after", "right after correction", style.ORANGE, "D", "--"),
)
CONTROLS = {
    "shuffled": (style.ORANGE, (0, (1, 1)), "shuffled labels"),
    "length": (style.GREEN, "-.", "length"),
    "without-length": (style.SKY, "--", "vector without length"),
    "wrong-layer": (style.VERMILLION, "-.", "vector at wrong layer"),
    "other-layer": (style.PURPLE, (0, (4, 1, 1, 1, 1, 1)), "other layer's vector"),
    "prompt-copy": (style.GREEN, ":", "prompt: copy"),
    "prompt-rewrite": (style.VERMILLION, ":", "prompt: rewrite"),
}
"""Families of controls: colour, dashes, and the name in the legend, one entry a family."""
SPARE = (style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE)
"""Colours of directions that are none of CONTROLS, in order; then sky."""
COLUMNS = {1: 4, 2: 3}
"""Entries in a row of the first panel's legend for one and two tasks; 3 for more."""
AXES = {
    "natural": "coefficient (multiples of the vector; positive = more correction)",
    "norm": "coefficient (multiples of the mean residual norm; positive = more correction)",
    "kl": "coefficient (nats of KL a token; positive = more correction)",
}
CLAMPED = {
    "natural": "coefficient (projection set to midway between the classes + coef · ‖v‖)",
    "norm": "coefficient (projection set to midway between the classes + coef · mean residual norm)",
}
"""The axes of clamp, of which coefficient 0 steers too."""
UNCLAMPED = "Dotted across: unsteered, which coefficient 0 of clamp is not."
NOTE = "Miniature (model organism): the shape shows what the lab measures, not how larger correctors behave."

BAND = "Grey: 2.5 to 97.5 % of the mean curves of random and orthogonal directions of equal norm."


@dataclass(frozen=True)
class Dose:
    """Print and draw the dose curves of a sweep's run folder; writes figure.png and figure.pdf into it."""

    run: tyro.conf.Positional[Path]
    """Run folder, such as runs/sweep-1a2b3c4d."""


def table(run: str | Path) -> pd.DataFrame:
    """The plotted data: `analysis.summary.summarise` of the run."""
    return summarise(run)


def draw(table: pd.DataFrame, statistics: dict[str, Any]) -> Figure:
    """A column of panels a task: edit ratio, rates of copying and of both errors, soundness, loop outcomes.

    Lines carry their direction or column name as `gid`, bands `<name>-band`.
    """
    tasks = [str(task) for task in dict.fromkeys(table["task"]) if task in statistics["tasks"]]
    loops = {task: outcomes(select(table, task=task)) for task in tasks}
    n_rows = 3 + max(len(names) for names in loops.values())
    width = WIDTHS.get(len(tasks), 1.0 + 5.0 * len(tasks))
    with style.look():
        figure = Figure(figsize=(width, ROW * n_rows + 0.9), layout="constrained")
        panels = figure.subplots(n_rows, len(tasks), squeeze=False)
        for column, task in enumerate(tasks):
            mine, numbers = select(table, task=task), statistics["tasks"][task]
            axes: list[Axes] = list(panels[:, column])
            n_legend = _edit_ratio(axes[0], mine, numbers, COLUMNS.get(len(tasks), 3))
            _rates(axes[1], mine, EDIT_RATES)
            _rates(axes[2], mine, TEXT_RATES)
            axes[2].axhline(WELL_FORMED, color=style.MUTED, linewidth=0.8, linestyle=":", gid="threshold")
            for ax, name in zip(axes[3:], loops[task], strict=False):
                _loop(ax, mine, name)
            used = axes[: 3 + len(loops[task])]
            for ax in axes[len(used) :]:
                ax.set_visible(False)
            _coefficients(used, mine, numbers)
            axes[0].set_title(
                _heading(task, numbers), loc="left", pad=11 + 13 * n_legend, fontsize=9, color=style.MUTED
            )
        figure.align_ylabels()
        _footer(figure, statistics)
    return figure


def _edit_ratio(ax: Axes, table: pd.DataFrame, numbers: dict[str, Any], columns: int) -> int:
    """The curve with its fit before all controls; returns the rows of its legend."""
    steered = select(table, direction=CORRECTION).dropna(subset="edit_ratio")
    band = numbers.get("null_band")
    if band:
        label = f"{band['n']} null directions, 95 %"
        low, high = band["low"], band["high"]
        ax.fill_between(
            band["coef"], low, high, color=style.CONTROL, alpha=0.45, linewidth=0, gid="null-band", label=label
        )
    else:
        _controls(ax, table, "edit_ratio")
    _named(ax, table)
    _unsteered(ax, table, "edit_ratio", style.INK, "unsteered")
    _with_band(ax, steered, "edit_ratio", "correction vector", CORRECTION)
    if "slope" in numbers:
        ends = [numbers["usable"][0], numbers["usable"][-1]]
        fitted = [numbers["intercept"] + numbers["slope"] * coef for coef in ends]
        ax.plot(ends, fitted, "--", color=style.INK, linewidth=1.1, label="line fit", gid="fit", zorder=4)
        ax.annotate(_slope(numbers), (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=8, color=style.INK)
    ax.set_ylabel("edit ratio\n(edits / characters of last)")
    top = ax.get_ylim()[1] * 1.25
    ax.set_ylim(-0.03 * top, top)
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) <= 5:
        style.legend_above(ax)
        return 1
    # the curve, its fit and the nulls first, then the other controls
    order = sorted(range(len(labels)), key=lambda i: labels[i] not in ("correction vector", "line fit"))
    shown = ([handles[i] for i in order], [labels[i] for i in order])
    rows = -(-len(labels) // columns)
    ax.legend(*shown, loc="lower left", bbox_to_anchor=(-0.01, 1), ncols=columns, fontsize=7.5).set_in_layout(False)
    return rows


def _named(ax: Axes, table: pd.DataFrame) -> None:
    """Thin lines of the named controls, one legend entry a family; prompt baselines, without a coefficient, across."""
    spare, seen = iter(SPARE), set[str]()
    for direction in dict.fromkeys(table["direction"]):
        if direction in (CORRECTION, UNSTEERED, UPSTREAM) or is_null(direction):
            continue
        rows, kind = select(table, direction=direction).dropna(subset="edit_ratio"), family(direction)
        colour, dashes, label = CONTROLS.get(kind) or (next(spare, style.SKY), "-.", direction)
        shown = None if kind in seen and kind in CONTROLS else label
        look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.2, "label": shown}
        seen.add(kind)
        if direction.startswith("prompt-"):
            for value in rows["edit_ratio"]:
                ax.axhline(value, **look, gid=direction)
        else:
            ax.plot(rows["coef"], rows["edit_ratio"], **look, gid=direction)


def _controls(ax: Axes, table: pd.DataFrame, column: str) -> None:
    """Grey lines of the null directions, one legend entry for all."""
    names = [d for d in dict.fromkeys(table["direction"]) if is_null(d)]
    names = [d for d in names if column in table and select(table, direction=d)[column].notna().sum() > 1]
    for i, name in enumerate(names):
        rows = select(table, direction=name).dropna(subset=column)
        label = None if i else f"{len(names)} random direction{'s' * (len(names) > 1)}"
        ax.plot(rows["coef"], rows[column], color=style.CONTROL, linewidth=0.8, label=label, gid=name, zorder=1.5)


def _unsteered(ax: Axes, table: pd.DataFrame, column: str, colour: str, label: str | None = None) -> None:
    """A line across where the unsteered corrector is no point of the curve, since coefficient 0 steers too."""
    for value in select(table, direction=UNSTEERED)[column].dropna():
        ax.axhline(value, color=colour, linestyle=(0, (1, 2)), linewidth=1.1, label=label, gid=f"{column}-unsteered")


def _with_band(ax: Axes, rows: pd.DataFrame, column: str, label: str, gid: str) -> None:
    low, high = rows[f"{column}_low"].astype(float), rows[f"{column}_high"].astype(float)
    ax.fill_between(rows["coef"], low, high, color=style.BLUE, alpha=0.18, linewidth=0, gid=f"{gid}-band", zorder=2)
    ax.plot(rows["coef"], rows[column], "o-", color=style.BLUE, label=label, gid=gid, zorder=3)


def _rates(ax: Axes, table: pd.DataFrame, lines: tuple[tuple[str, str, str, str, str], ...]) -> None:
    rows = select(table, direction=CORRECTION)
    for column, label, colour, marker, dash in lines:
        known = rows.dropna(subset=column)  # a rate without a label is not drawn, least of all as 0
        if len(known):
            low, high = known[f"{column}_low"].astype(float), known[f"{column}_high"].astype(float)
            ax.fill_between(known["coef"], low, high, color=colour, alpha=0.13, linewidth=0, gid=f"{column}-band")
            ax.plot(known["coef"], known[column], dash, marker=marker, color=colour, label=label, gid=column)
            _unsteered(ax, table, column, colour)
    ax.set_ylim(-0.03, 1.04)
    ax.set_ylabel("share of items")
    style.legend_above(ax)


def _loop(ax: Axes, table: pd.DataFrame, name: str) -> None:
    column = f"loop_{name}"
    steered = select(table, direction=CORRECTION).dropna(subset=column)
    _controls(ax, table, column)
    _with_band(ax, steered, column, "upstream + corrector", CORRECTION)
    _unsteered(ax, table, column, style.INK, "unsteered")
    for value in select(table, direction=UPSTREAM)[column].dropna():
        ax.axhline(value, color=style.VERMILLION, linestyle="--", linewidth=1.3, label="upstream alone", gid=UPSTREAM)
    ax.set_ylabel(f"loop: {name}\n(mean of {int(steered['n_problems'].max())} problems)")
    style.legend_above(ax)


def _coefficients(axes: list[Axes], table: pd.DataFrame, numbers: dict[str, Any]) -> None:
    """One x axis for a task's panels, with the coefficients outside the usable range shaded."""
    coefs = sorted({float(c) for c in select(table, direction=CORRECTION)["coef"]})
    margin = 0.04 * (coefs[-1] - coefs[0]) or 1.0
    left, right = coefs[0] - margin, coefs[-1] + margin
    usable = numbers["usable"]
    for ax in axes:
        ax.set_xlim(left, right)
        if not usable:
            ax.axvspan(left, right, color=style.SHADE, linewidth=0, zorder=0, gid="unusable")
        # A curve is trusted up to its last usable point, so the shade starts half way to the next.
        for side, end, limit in ((-1, usable[:1], left), (1, usable[-1:], right)):
            beyond = [c for c in coefs if end and (c - end[0]) * side > 0]
            if beyond:
                edge = (end[0] + min(beyond, key=lambda c: abs(c - end[0]))) / 2
                ax.axvspan(*sorted((edge, limit)), color=style.SHADE, linewidth=0, zorder=0, gid="unusable")
        if not len(select(table, direction=UNSTEERED)):
            ax.axvline(0, color=style.MUTED, linewidth=0.7, linestyle=":", zorder=1, gid="unsteered")
        ax.tick_params(labelbottom=ax is axes[-1])
    labels = CLAMPED if numbers.get("operator") == "clamp" else AXES
    axes[-1].set_xlabel(labels[numbers.get("coef_unit", "natural")])


def _heading(task: str, numbers: dict[str, Any]) -> str:
    bold = task.replace(" ", r"\ ").replace("_", r"\_")
    found = "steers" if numbers["steers"] else "does not steer here"
    told = [*setting(numbers), *_specially(numbers)]
    return f"$\\bf{{{bold}}}$: {found}, n = {size(numbers)}\n{', '.join(told)}"


def _specially(numbers: dict[str, Any]) -> list[str]:
    """The operator where it is clamp, and the gate where there is one."""
    gate = numbers.get("condition")
    clamped = [numbers["operator"]] if numbers.get("operator") else []
    return [*clamped, *([f"gated {gate['side']} at {gate['when']}, layer {gate['layer']}"] if gate else [])]


def _slope(numbers: dict[str, Any]) -> str:
    low, high, r2 = numbers["slope_low"], numbers["slope_high"], numbers["r2"]
    text = f"slope {numbers['slope']:.2f}"
    text += f" [{low:.2f}, {high:.2f}]" if low is not None else ""
    text += f", R² {r2:.2f}" if r2 is not None else ""
    ratio = numbers.get("ratio")
    return text + (f"\n{ratio:.1f} times the largest random slope" if ratio is not None else "")


def _footer(figure: Figure, statistics: dict[str, Any]) -> None:
    sentences = (
        "False rewrite: share of the right sentences that were edited. Missed rewrite: share of the wrong ones copied.",
        "Bands: 95 % bootstrap over questions.",
        UNCLAMPED if any(numbers.get("operator") == "clamp" for numbers in statistics["tasks"].values()) else "",
        f"Shaded: outside the usable range (well-formed under {WELL_FORMED:.0%}{_on(statistics)}); "
        "the line is fitted inside it.",
        BAND if any(numbers.get("null_band") for numbers in statistics["tasks"].values()) else "",
        f"Run {statistics['run']}{'' if statistics['finished'] else ' (not finished)'}, drawn by figures.dose.",
        NOTE if any(numbers["model_organism"] for numbers in statistics["tasks"].values()) else "",
    )
    text = textwrap.fill(" ".join(filter(None, sentences)), width=int(figure.get_figwidth() * 17.5))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=7.5, color=style.MUTED)


def _on(statistics: dict[str, Any]) -> str:
    """Where the usable range was found, if not on the rows that are drawn."""
    found = {numbers.get("usable_from") for numbers in statistics["tasks"].values()}
    return " of validation corrections" if found == {"validation"} else ""


def main(config: Dose) -> None:
    """Print, draw, and say where the figure is."""
    summary, statistics = report(config.run)
    for file in style.save(draw(summary, statistics), config.run):
        print(file)


if __name__ == "__main__":
    run_cli(Dose, main, "figures.dose")
