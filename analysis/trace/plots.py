"""The parts of a panel as Plotly has them: lines whose points tell their whole row, bands, axes.

A colour that begins with `--` is a variable of page.css, which the page fills in for the light or the dark look.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

from analysis.summary import CORRECTION, select
from analysis.tables.curve import coefficient, number

Panel = dict[str, Any]
"""`name`, `title`, `data` and `layout` of Plotly."""
HOVER = ("copied", "false_rewrite", "missed_rewrite", "well_formed", "right_after")
UNITS = {
    "natural": "coefficient (multiples of the vector; + = more correction)",
    "norm": "coefficient (multiples of mean ‖h‖; + = more correction)",
    "kl": "coefficient (nats of KL a token; + = more correction)",
}
CLAMPED = "coefficient (target of the projection; 0 = midway between the classes)"
CLEAR = "rgba(0,0,0,0)"


def margin(coefs: list[float]) -> float:
    """What an axis shows beyond its first and last coefficient."""
    return 0.04 * (coefs[-1] - coefs[0]) or 1.0


def panel(name: str, title: str, axis: str, data: list[dict[str, Any]], top: float | None = None) -> Panel:
    """A panel without its x axis; `top` is the end of a scale of shares."""
    scale = {} if top is None else {"range": [-0.03, top + 0.04]}
    return {
        "name": name,
        "title": title,
        "data": data,
        "layout": {
            "yaxis": {"title": {"text": axis}, "gridcolor": "--line", "zerolinecolor": "--line", **scale},
            "height": 300,
            "margin": {"l": 58, "r": 12, "t": 12, "b": 46},
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "font": {"color": "--ink", "size": 12},
            "hovermode": "closest",
            "hoverlabel": {"bgcolor": "--surface", "bordercolor": "--line", "font": {"color": "--ink"}},
            "legend": {
                "orientation": "h",
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
                "x": 0,
                "maxheight": 1,
                "font": {"size": 11},
            },
        },
    }


def axis(coefs: list[float], numbers: dict[str, Any]) -> dict[str, Any]:
    """The coefficients that were run, and what one of them is."""
    title = CLAMPED if numbers.get("operator") == "clamp" else UNITS[numbers["coef_unit"]]
    return {
        "title": {"text": title, "font": {"size": 11}, "standoff": 6},
        "tickvals": coefs,
        "ticktext": [coefficient(c) for c in coefs],
        "range": [coefs[0] - margin(coefs), coefs[-1] + margin(coefs)],
        "gridcolor": "--line",
        "zerolinecolor": "--line",
    }


def line(rows: Any, column: str, name: str, colour: str, **look: Any) -> dict[str, Any]:
    """A line of points that say their whole row; `customdata` is the cell that a click opens."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": floats(rows["coef"]),
        "y": floats(rows[column]),
        "name": name,
        "line": {"color": colour, "width": look.pop("width", 2), "dash": look.pop("dash", "solid")},
        "marker": {"color": colour, "size": look.pop("size", 7)},
        "text": [_told(row, column) for _, row in rows.iterrows()],
        "hoverinfo": "text",
        "customdata": [[row["direction"], float(row["coef"])] for _, row in rows.iterrows()],
        **look,
    }


def _told(row: Any, column: str) -> str:
    """What the pointer shows at a point: its value with interval and n, and the rest of its row."""
    low, high = number(row[f"{column}_low"], 3), number(row[f"{column}_high"], 3)
    n, of = (row["n_problems"], "problems") if column.startswith("loop_") else (row["n_items"], "items")
    value = f"{words(column)} {number(row[column], 3)}" + (f" [{low}, {high}], 95 %" if low else "")
    others = [f"{words(c)} {number(row[c])}" for c in HOVER if c != column and number(row[c])]
    others += [f"KL {number(row['kl'], 3)} nats a token"] if number(row["kl"]) else []
    head = f"<b>{html.escape(str(row['direction']))}, coef {coefficient(float(row['coef']))}</b>"
    return "<br>".join([head, value, f"n = {int(n)} {of}", *others])


def interval(rows: Any, column: str, colour: str) -> Iterator[dict[str, Any]]:
    """The 95 % interval of a column, where two points or more have one."""
    known = rows.dropna(subset=[f"{column}_low", f"{column}_high"])
    if len(known) > 1:
        yield band(floats(known["coef"]), floats(known[f"{column}_low"]), floats(known[f"{column}_high"]), colour)


def band(x: list[Any], low: list[Any], high: list[Any], colour: str, **look: Any) -> dict[str, Any]:
    """A filled band; it has no legend entry unless `look` gives one."""
    return {
        "type": "scatter",
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "fill": "toself",
        "fillcolor": colour,
        "line": {"width": 0},
        "mode": "lines",
        "hoverinfo": "skip",
        **({"showlegend": False} | look),
    }


def across(table: Any, direction: str, column: str, name: str, colour: str, dash: str) -> Iterator[dict[str, Any]]:
    """A line across the panel for what has no coefficient."""
    rows = select(table, direction=direction).dropna(subset=column)
    coefs = select(table, direction=CORRECTION)["coef"].astype(float)
    for _, row in rows.iterrows():
        yield {
            "type": "scatter",
            "mode": "lines",
            "x": [float(coefs.min()), float(coefs.max())],
            "y": [float(row[column])] * 2,
            "name": name,
            "line": {"color": colour, "width": 1.3, "dash": dash},
            "text": [_told(row, column)] * 2,
            "hoverinfo": "text",
        }


def words(column: str) -> str:
    """A column's name as one reads it."""
    return column.removeprefix("loop_").replace("_", " ")


def floats(values: Any) -> list[float | None]:
    """Numbers as JSON has them: None where one is missing."""
    return [None if v != v else float(v) for v in values]
