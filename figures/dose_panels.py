"""Panels of the dose figure: the curve beside its controls, rates of items, and outcomes of the loop."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analysis.curve import setting, size
from analysis.curves.nulls import family, is_null
from analysis.summary import CORRECTION, UNSTEERED, UPSTREAM, select
from figures import style

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
LEGEND = 1.6
"""Inches of an entry in the first panel's legend."""
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


def edit_ratio(ax: Axes, table: pd.DataFrame, numbers: dict[str, Any]) -> None:
    """The curve with its fit before all controls."""
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
        ax.annotate(
            _slope(numbers), (0.02, 0.97), xycoords="axes fraction", va="top", fontsize=style.SMALL, color=style.INK
        )
    ax.set_ylabel("edit ratio\n(edits / characters of last)")
    top = ax.get_ylim()[1] * 1.25
    ax.set_ylim(-0.03 * top, top)


def headings(axes: list[Axes], widths: list[float], task: str, numbers: dict[str, Any]) -> None:
    """Titles and legends above the panels: the curve, its fit and the nulls first, then the other controls."""
    handles = axes[0].get_legend_handles_labels()[0]
    handles.sort(key=lambda h: h.get_label() not in ("correction vector", "line fit"))
    style.heading(axes[0], _heading(task, numbers, widths[0]), max(2, int(widths[0] // LEGEND)), handles)
    for ax, width in zip(axes[1:], widths[1:], strict=True):
        style.heading(ax, "", max(2, int(width // 0.95)))
    for ax in axes:
        ax.set_xlabel("coefficient")
    unit, clamped = numbers.get("coef_unit", "natural"), numbers.get("operator") == "clamp"
    axes[-1].set_xlabel(style.wrapped((CLAMPED if clamped else AXES)[unit], widths[-1]))


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


def rates(ax: Axes, table: pd.DataFrame, lines: tuple[tuple[str, str, str, str, str], ...]) -> None:
    """Shares of the items, (column, label, colour, marker, dashes) each, with their intervals."""
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


def loop(ax: Axes, table: pd.DataFrame, name: str) -> None:
    """An outcome of the align loop, beside the controls' and that of the upstream alone."""
    column = f"loop_{name}"
    steered = select(table, direction=CORRECTION).dropna(subset=column)
    _controls(ax, table, column)
    _with_band(ax, steered, column, "upstream + corrector", CORRECTION)
    _unsteered(ax, table, column, style.INK, "unsteered")
    for value in select(table, direction=UPSTREAM)[column].dropna():
        ax.axhline(value, color=style.VERMILLION, linestyle="--", linewidth=1.3, label="upstream alone", gid=UPSTREAM)
    ax.set_ylabel(f"loop: {name}\n(mean of {int(steered['n_problems'].max())} problems)")


def coefficients(axes: list[Axes], table: pd.DataFrame, numbers: dict[str, Any]) -> None:
    """One x axis for a task's panels, with the coefficients outside the usable range shaded."""
    coefs = sorted({float(c) for c in select(table, direction=CORRECTION)["coef"]})
    margin = 0.04 * (coefs[-1] - coefs[0]) or 1.0
    left, right = coefs[0] - margin, coefs[-1] + margin
    usable = numbers["usable"]
    for ax in axes:
        ax.set_xlim(left, right)
        ax.set_xticks(coefs, [f"{c:+g}" if c else "0" for c in coefs])
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


def _heading(task: str, numbers: dict[str, Any], width: float) -> str:
    found = "steers" if numbers["steers"] else "does not steer here"
    told = [*setting(numbers), *_specially(numbers)]
    return f"{style.bold(task)}: {found}, n = {size(numbers)}\n{style.wrapped(', '.join(told), width)}"


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
