"""The layer x coefficient map and the best band of layers.

python -m analysis.map --corrector dialogue-0 --task dialogue --coef -2 -1 0 1 2

runs the map (steering.mapping), prints it, writes map.json into its run folder and draws map.png and map.pdf. As a
module it reads run folders only, and loads no torch.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from analysis.dose import WELL_FORMED, usable_range
from corrector.canonical import SIGNIFICANT_DIGITS, canonical, to_plain
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.statistics import bootstrap_mean, item_slopes, null_p

if TYPE_CHECKING:
    from steering.mapping import Map

Row = dict[str, Any]
CORRECTION, UNSTEERED = "correction", "none"
WIDTH = 140
ZERO = 1e-9
NOTE = (
    "the corrector is a miniature trained to show the effect (a model organism); "
    "its map shows what the lab measures, not how correctors of ordinary size behave."
)


def map_statistics(run: str | Path) -> Row:
    """What a map's run folder comes to, in JSON's types; UserError when it is no finished map.

    `cells`: test means of the correction vector by layer and coefficient, coefficient 0 once for each layer. `places`:
    every layer and chosen band on test, with its slope (edit ratio per coef, least squares over the usable
    coefficients) and `slope_ends` over the end coefficients and 0, the one that nulls are measured on too;
    `slope_per_dose` is slope_ends over the dose of coef 1; `over_null` = |slope_ends| / largest |null slope|, None
    where no null moves anything; p: `null_p` against the nulls of the same layers. `bands`: the search on validation.
    """
    folder = Path(run)
    about, config, cells = (*(read_json(folder, name) for name in ("bands", "config")), read_rows(folder, "map"))
    if not about or not (folder / "DONE").exists():
        raise UserError(f"{folder} is no finished map; run python -m analysis.map, which resumes one that was cut off")
    test = [r for r in cells if r["split"] == "test"]
    rows = [r for r in read_rows(folder, "edits") if r["split"] == "test"]
    values = _values(rows)
    problems = [r["problem"] for r in rows if r["direction"] == UNSTEERED]
    plain = next(r for r in test if r["direction"] == UNSTEERED)
    steered = [r for r in test if r["direction"] == CORRECTION]
    places = [_place(layers, test, values, problems) for layers in dict.fromkeys(tuple(r["layers"]) for r in steered)]
    best = next(tuple(b["layers"]) for b in about["bands"] if b["best"])
    for place in places:
        place["best"] = tuple(place["layers"]) == best
    grid = [{**plain, "layer": p["layers"][0], "layers": p["layers"]} for p in places] + steered
    numbers: Row = {
        **{"run": folder.resolve().name, "task": config["task"], "n_items": plain["n"]},
        **{name: config[name] for name in ("method", "read", "span", "operator", "fit_on", "measure_on")},
        **{name: about[name] for name in ("corrector", "model_organism", "n_layers")},
        **{"n_questions": plain["n_questions"], "unsteered": plain["edit_ratio"]},
        "coefs": sorted({r["coef"] for r in grid}),
        "cells": sorted((r for r in grid), key=lambda r: (len(r["layers"]), r["layers"], r["coef"])),
        **{"places": places, "bands": about["bands"]},
    }
    return to_plain(_known(numbers), "map", SIGNIFICANT_DIGITS)


def _values(rows: list[Row]) -> dict[tuple[tuple[int, ...], str, float], list[float]]:
    """Edit ratios by item, of every cell."""
    out: dict[tuple[tuple[int, ...], str, float], list[float]] = {}
    for r in rows:
        out.setdefault((tuple(r["layers"]), r["direction"], r["coef"]), []).append(r["edit_ratio"])
    return out


def _place(layers: tuple[int, ...], test: list[Row], values: Any, problems: list[str]) -> Row:
    """The line of `places` of one layer or band."""
    mine = {r["coef"]: r for r in test if tuple(r["layers"]) == layers and r["direction"] == CORRECTION}
    plain = next(r for r in test if r["direction"] == UNSTEERED)
    coefs = sorted({*mine, 0.0})
    formed = [mine.get(c, plain)["well_formed"] for c in coefs]
    usable, ends = usable_range(coefs, formed), sorted({coefs[0], 0.0, coefs[-1]})

    def slopes(direction: str, at: list[float]) -> Any:
        return item_slopes(at, np.array([values[(layers, direction, c) if c else ((), UNSTEERED, 0.0)] for c in at]).T)

    names = dict.fromkeys(d for k, d, _ in values if k == layers and d != CORRECTION)
    nulls = {d: float(slopes(d, ends).mean()) for d in names}
    largest = max((abs(v) for v in nulls.values()), default=0.0)
    at_ends, unit = bootstrap_mean(slopes(CORRECTION, ends), problems), mine[coefs[-1] or coefs[0]]["dose"]
    unit = unit / abs(coefs[-1] or coefs[0]) if unit else None
    own = bootstrap_mean(slopes(CORRECTION, usable), problems) if len(usable) > 1 else None
    return {
        **{"layers": list(layers), "dose": unit, "usable": usable, "well_formed": min(formed)},
        **{name: getattr(own, key, None) for name, key in (("slope", "mean"), ("slope_low", "low"))},
        **{"slope_high": own.high if own else None, "slope_ends": at_ends.mean},
        **{"slope_ends_low": at_ends.low, "slope_ends_high": at_ends.high},
        "slope_per_dose": at_ends.mean / unit if unit else None,
        **{"null_slopes": nulls, "over_null": abs(at_ends.mean) / largest if largest > ZERO else None},
        "p": null_p(at_ends.mean, [*nulls.values()]) if nulls else None,
        "kl": max(r["kl"] for r in mine.values()),
    }


def report(run: str | Path, console: Console | None = None) -> Row:
    """Write map.json, print the map, the bands and a verdict; returns what was written."""
    numbers = map_statistics(run)
    (Path(run) / "map.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    how = f"{numbers['method']} at {numbers['span']}{conditions(numbers)}"
    console.print(f"{numbers['task']}, {numbers['corrector']}: {how}", markup=False)
    for table in tables(numbers):
        console.print(table)
    console.print(verdict(numbers), markup=False)
    if numbers["model_organism"]:
        console.print(f"{numbers['task']}: {NOTE}", style="dim")
    return numbers


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
        "well formed",
        "largest KL",
    )
    slopes = _table("Slopes, edit ratio per coef (* best on validation)", "layers", "dose\nof 1", *columns)
    for p in _top_down(numbers):
        nulls, usable = sorted(p["null_slopes"].values()), p["usable"]
        slopes.add_row(
            *(_layers(p) + "*" * p["best"], _number(p["dose"]), _interval(p, "slope")),
            f"{_coef(usable[0])}..{_coef(usable[-1])}" if usable else "none",
            *(_interval(p, "slope_ends"), _number(p["slope_per_dose"])),
            f"{nulls[0]:.2f}..{nulls[-1]:.2f}" if nulls else "",
            *(_number(p["over_null"], 1), _number(p["well_formed"]), _number(p["kl"])),
        )
    yield slopes


def verdict(numbers: Row) -> str:
    """Where the vector steers on test, and what the band search found, in plain words.

    A layer steers where the interval of slope_ends lies above 0 and the slope is above every null's in size.
    """
    single = [p for p in numbers["places"] if len(p["layers"]) == 1]
    good = [str(p["layers"][0]) for p in single if steers(p)]
    best = next((p for p in numbers["places"] if p["best"]), None)
    found = f"Steers at {len(good)} of {len(single)} layers ({', '.join(good) or 'none'})."
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


def conditions(numbers: Row) -> str:
    """On what the vector was fitted and measured, where that is not any pair."""
    fit, measured = numbers["fit_on"], numbers["measure_on"]
    return "" if fit == measured == "any" else f", fitted on {fit}, measured on {measured}"


def steers(place: Row) -> bool:
    """Whether slope_ends lies above 0 with its interval, and above all nulls of the place in size."""
    low = place["slope_ends_low"]
    nulls = [abs(v) for v in place["null_slopes"].values()]
    return low is not None and low > 0 and place["slope_ends"] > max(nulls, default=0.0)


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


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def main(config: Map) -> None:
    """Run or resume the map, print it, draw it."""
    from steering.mapping import run

    folder = run(config)
    report(folder)
    # Figures are a floor above this one, so they are run as programs, not imported.
    subprocess.run([sys.executable, "-m", "figures.map", str(folder)], check=True)


def cli() -> None:
    """Parse the command line; here and not on import, so that reading a map loads no torch."""
    from steering.mapping import Map

    run_cli(Map, main, "analysis.map")


if __name__ == "__main__":
    cli()
