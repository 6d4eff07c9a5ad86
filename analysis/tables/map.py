"""A map's tables and verdict, as `analysis.map` prints them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

from corrector.statistics import LEVEL, TIE
from steering.sweeping.collapse import WELL_FORMED

Row = dict[str, Any]


def tables(numbers: Row) -> Iterator[Table]:
    """Edit ratio by place and coefficient (brackets: under 95 % well formed), and the slopes beside their nulls."""
    grid = _table(f"Edit ratio, {numbers['n_items']} test items", "layers", *map(_coef, numbers["coefs"]))
    for place in _top_down(numbers):
        mine = [c for c in numbers["cells"] if c["layers"] == place["layers"]]
        shown = (f"{c['edit_ratio']:.2f}" for c in mine)
        marked = (s if c["well_formed"] >= WELL_FORMED else f"({s})" for s, c in zip(shown, mine, strict=True))
        grid.add_row(_layers(place), *marked)
    yield grid
    columns = (
        "slope, usable",
        "usable",
        "slope of ends",
        "per dose",
        "nulls",
        "over null",
        "p",
        "well formed",
        "largest KL",
    )
    title = "Slopes, edit ratio per coef (* best on validation; p: corrected for all places by the nulls' maxima)"
    slopes = _table(title, "layers", "dose\nof 1", *columns)
    for p in _top_down(numbers):
        nulls, usable = sorted(p["null_slopes"].values()), p["usable"]
        slopes.add_row(
            *(_layers(p) + "*" * p["best"], _number(p["dose"]), _interval(p, "slope")),
            f"{_coef(usable[0])}..{_coef(usable[-1])}" if usable else "none",
            *(_interval(p, "slope_ends"), _number(p["slope_per_dose"])),
            f"{nulls[0]:.2f}..{nulls[-1]:.2f}" if nulls else "",
            *(_number(p["over_null"], 1), _number(p["p_corrected"], 3), _number(p["well_formed"]), _number(p["kl"])),
        )
    yield slopes


def verdict(numbers: Row) -> str:
    """Where the vector steers on test, and what the band search found, in plain words.

    A layer steers where the interval of slope_ends lies above 0 and p_corrected is LEVEL or less, or, where too few
    nulls allow no such p, at its least.
    """
    single = [p for p in numbers["places"] if len(p["layers"]) == 1]
    good = [str(p["layers"][0]) for p in single if steers(p, numbers["p_least"])]
    best = next((p for p in numbers["places"] if p["best"]), None)
    found = f"Steers at {len(good)} of {len(single)} layers ({', '.join(good) or 'none'}). {correction(numbers)}"
    if best is None:
        return found
    tried = next(b for b in numbers["bands"] if b["best"])
    merit = "slope" if tried["slope_per_dose"] is None else "slope_per_dose"
    low, high = _number(best["slope_ends_low"]), _number(best["slope_ends_high"])
    over = "" if best["over_null"] is None else f", {best['over_null']:.1f} times its largest null slope"
    return (
        f"{found} Best of {len(numbers['bands'])} bands on validation by {merit.replace('_', ' ')}: layers "
        f"{_layers(best)} ({tried[merit]:.2f}); on test {_number(best[merit if tried['dose'] else 'slope_ends'])}, "
        f"slope {best['slope_ends']:.2f} [{low}, {high}]{over}."
    )


def correction(numbers: Row) -> str:
    """How p was corrected over layers and bands, and what so many nulls can show."""
    if not numbers["n_nulls"]:
        return "Without nulls no layer can be told from chance; give --controls."
    low, high = (f"{f([p['p_corrected'] for p in numbers['places']]):.3f}" for f in (min, max))
    text = (
        f"p {low}{f' to {high}' if high != low else ''}, corrected for all {len(numbers['places'])} places by each "
        f"null's largest studentised |slope|; {numbers['n_nulls']} nulls allow {numbers['p_least']:.3f} at the least."
    )
    if numbers["p_least"] <= LEVEL:
        return text
    return f"{text} For p {LEVEL:g} give --controls {math.ceil(1 / LEVEL - TIE) - 1} or more."


def conditions(numbers: Row) -> str:
    """On what the vector was fitted and measured, where that is not any pair."""
    fit, measured = numbers["fit_on"], numbers["measure_on"]
    return "" if fit == measured == "any" else f", fitted on {fit}, measured on {measured}"


def steers(place: Row, p_least: float | None) -> bool:
    """Whether slope_ends lies above 0 with its interval and is told from the nulls of all places; see `verdict`."""
    low, p = place["slope_ends_low"], place["p_corrected"]
    return low is not None and low > 0 and p is not None and p <= max(LEVEL, p_least or 0.0) + TIE


def _top_down(numbers: Row) -> list[Row]:
    """Bands first, then single layers with the first at the bottom, as the figure has them."""
    return sorted(numbers["places"], key=lambda p: (-len(p["layers"]), -p["layers"][0]))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True, vertical="bottom")
    return table


def _layers(place: Row) -> str:
    first, last = place["layers"][0], place["layers"][-1]
    return f"{first}" if first == last else f"{first}-{last}"


def _coef(coef: float) -> str:
    return f"{coef:+g}" if coef else "0"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _interval(row: Row, name: str) -> str:
    low, high = _number(row[f"{name}_low"]), _number(row[f"{name}_high"])
    return f"{_number(row[name])} \\[{low}, {high}]" if low else _number(row[name])
