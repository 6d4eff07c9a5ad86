"""The dose curve's panels: the numbers of `analysis.summary` and `analysis.dose`, drawn as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from analysis.curve import size
from analysis.curves.nulls import family, is_null
from analysis.dose import WELL_FORMED
from analysis.summary import CORRECTION, UNSTEERED, UPSTREAM, outcomes, select
from analysis.tables.curve import number
from analysis.trace.plots import Panel, across, axis, band, interval, line, margin, panel, words

RATES = (("copied", "--third", "solid"), ("false_rewrite", "--bad", "solid"), ("missed_rewrite", "--fourth", "dash"))
TEXT = (("well_formed", "--ink", "solid"), ("right_after", "--fifth", "dash"))
SPARE = ("--bad", "--third", "--fourth", "--fifth", "--sky")
"""Colours of the controls that are no null directions, one a family."""


def panels(table: Any, numbers: dict[str, Any]) -> list[Panel]:
    """The panels of one task: edit ratio beside its controls, error rates, soundness of the text, loop outcomes.

    `table` holds the task's lines of `summarise`, `numbers` its entry of `dose_statistics`.
    """
    n = f"n = {size(numbers)}"
    right, wrong = (int(select(table, direction=CORRECTION)[name].max()) for name in ("n_right", "n_wrong"))
    of = f"{n}, {right} right and {wrong} wrong"
    ratio = [*_nulls(table, "edit_ratio", numbers), *_named(table, "edit_ratio"), *_curve(table, "edit_ratio")]
    out = [
        panel("edit_ratio", f"Edit ratio, {n}", "edits / characters of last", [*ratio, *_fit(numbers)]),
        panel("errors", f"Copies and both error rates, {of}", "share of items", _rates(table, RATES), 1.0),
        panel("text", f"Soundness of the text, {n}", "share of items", _rates(table, TEXT), 1.0),
    ]
    for name in outcomes(table):
        column = f"loop_{name}"
        steered = select(table, direction=CORRECTION).dropna(subset=column)
        if len(steered):
            data = [*_nulls(table, column, {}), *_curve(table, column), *_upstream(table, column)]
            title = f"Align loop: {name}, n = {int(steered['n_problems'].max())} problems"
            out.append(panel(column, title, f"mean {name}", data))
    coefs = sorted({float(c) for c in select(table, direction=CORRECTION)["coef"]})
    for made in out:
        made["layout"] |= {"xaxis": axis(coefs, numbers), "shapes": [*_unusable(coefs, numbers["usable"])]}
    return out


def _curve(table: Any, column: str) -> Iterator[dict[str, Any]]:
    """The correction vector with its interval, and the unsteered corrector where coefficient 0 is not it."""
    rows = select(table, direction=CORRECTION).dropna(subset=column)
    yield from interval(rows, column, "--accent-band")
    yield line(rows, column, "correction vector", "--accent", width=2.5)
    yield from across(table, UNSTEERED, column, "unsteered", "--ink", "dot")


def _upstream(table: Any, column: str) -> Iterator[dict[str, Any]]:
    yield from across(table, UPSTREAM, column, "upstream alone", "--bad", "dash")


def _rates(table: Any, lines: tuple[tuple[str, str, str], ...]) -> list[dict[str, Any]]:
    rows, out = select(table, direction=CORRECTION), list[dict[str, Any]]()
    for column, colour, dash in lines:
        known = rows.dropna(subset=column)
        if len(known):
            out += [*interval(known, column, f"{colour}-band")]
            out.append(line(known, column, words(column), colour, dash=dash))
            out += across(table, UNSTEERED, column, f"{words(column)}, unsteered", colour, "dot")
    return out


def _nulls(table: Any, column: str, numbers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Null directions: their band where there are enough for one, and a thin line each."""
    if drawn := numbers.get("null_band"):
        look: dict[str, Any] = {"name": "null band, 95 %", "showlegend": True}
        yield band(drawn["coef"], drawn["low"], drawn["high"], "--null-band", **look)
    names = [d for d in dict.fromkeys(table["direction"]) if is_null(d)]
    found = [(d, select(table, direction=d).dropna(subset=column)) for d in names]
    found = [(d, rows) for d, rows in found if len(rows) > 1]
    for i, (_, rows) in enumerate(found):
        label = f"{len(found)} null direction{'s' * (len(found) > 1)}"
        yield line(rows, column, label, "--null", width=0.8, size=3, showlegend=not i, legendgroup="null")


def _named(table: Any, column: str) -> Iterator[dict[str, Any]]:
    """Controls that are no draws of chance, a colour a family; a prompt baseline, without coefficient, lies across."""
    kinds: dict[str, str] = {}
    for direction in dict.fromkeys(table["direction"]):
        if direction in (CORRECTION, UNSTEERED, UPSTREAM) or is_null(direction):
            continue
        kind = family(direction)
        first = kind not in kinds
        colour = kinds.setdefault(kind, SPARE[len(kinds) % len(SPARE)])
        look: dict[str, Any] = {"legendgroup": kind, "showlegend": first}
        if direction.startswith("prompt-"):
            yield from across(table, direction, column, direction, colour, "dot")
        else:
            rows = select(table, direction=direction).dropna(subset=column)
            yield line(rows, column, kind, colour, dash="dashdot", width=1.2, size=4, **look)


def _fit(numbers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The line on the usable coefficients."""
    if "slope" in numbers:
        x = [numbers["usable"][0], numbers["usable"][-1]]
        y = [numbers["intercept"] + numbers["slope"] * c for c in x]
        name = f"line fit, slope {number(numbers['slope'])}"
        look = {"color": "--ink", "dash": "dash", "width": 1.2}
        yield {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": look, "hoverinfo": "name"}


def _unusable(coefs: list[float], usable: list[float]) -> Iterator[dict[str, Any]]:
    """Shades outside the usable range; a curve is trusted half way to the next coefficient."""
    ends = [coefs[0] - margin(coefs), coefs[-1] + margin(coefs)]
    spans = [] if usable else [(ends[0], ends[1])]
    if usable and (below := [c for c in coefs if c < usable[0]]):
        spans.append((ends[0], (below[-1] + usable[0]) / 2))
    if usable and (above := [c for c in coefs if c > usable[-1]]):
        spans.append(((above[0] + usable[-1]) / 2, ends[1]))
    for left, right in spans:
        at = {"x0": left, "x1": right, "y0": 0, "y1": 1, "xref": "x", "yref": "paper"}
        yield {"type": "rect", "layer": "below", "fillcolor": "--shade", "line": {"width": 0}, **at}


def note(numbers: dict[str, Any]) -> str:
    """What the panels must be read with."""
    where = " on validation" if numbers["usable_from"] == "validation" else ""
    return (
        "Bands of coloured lines: 95 % bootstrap over questions. Grey: random and orthogonal directions of equal norm, "
        "a line each. False rewrite: share of the right sentences that were edited; missed rewrite: share of the wrong "
        "ones copied. Shaded: outside the usable range (well-formed under "
        f"{WELL_FORMED:.0%}{where}); the line is fitted inside it."
    )
