"""The layer x coefficient map and the best band of layers.

python -m analysis.map --corrector dialogue-0 --task dialogue --coef -2 -1 0 1 2

runs the map (steering.mapping), prints it, writes map.json into its run folder and draws map.png and map.pdf. As a
module it reads run folders only, and loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from analysis.curves.nulls import told_apart
from analysis.drawing import draw
from analysis.tables.map import conditions, tables, verdict
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import canonical, rounded
from corrector.statistics import TIE, Interval, bootstrap_mean, item_slopes, max_null_p
from steering.sweeping.collapse import usable_range

if TYPE_CHECKING:
    from steering.mapping import Map

Row = dict[str, Any]
CORRECTION, UNSTEERED = "correction", "none"
WIDTH = 150
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
    where no null moves anything. `bands`: the search on validation.

    A map shows all places on the same test pairs, so `p_corrected` of a place is `max_null_p` over all of them: each
    null direction counts by the place where it does most, as a reader goes by the place where the vector does. Nulls
    are drawn apart at each layer while the vector's layers are alike, so nulls have more chances and p is if anything
    too large. Of bands the chosen ones are measured; p leaves out that the vector, and no null, had that choice.
    `p_least` = 1 / (1 + `n_nulls`), the least that p can be. Both are None without nulls.
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
    n_nulls = len(places[0]["null_slopes"])
    for place, p in zip(places, _corrected(places), strict=True):
        place |= {"best": tuple(place["layers"]) == best, "p_corrected": p}
    grid = [{**plain, "layer": p["layers"][0], "layers": p["layers"]} for p in places] + steered
    numbers: Row = {
        **{"run": folder.resolve().name, "task": config["task"], "n_items": plain["n"]},
        **{name: config[name] for name in ("method", "read", "span", "operator", "fit_on", "measure_on")},
        **{name: about[name] for name in ("corrector", "model_organism", "n_layers")},
        **{"n_questions": plain["n_questions"], "unsteered": plain["edit_ratio"], "n_nulls": n_nulls},
        "p_least": 1 / (1 + n_nulls) if n_nulls else None,
        "coefs": sorted({r["coef"] for r in grid}),
        "cells": sorted((r for r in grid), key=lambda r: (len(r["layers"]), r["layers"], r["coef"])),
        **{"places": places, "bands": about["bands"]},
    }
    return rounded(numbers, "map")


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
        **{"null_slopes": nulls, "over_null": abs(at_ends.mean) / largest if largest > TIE else None},
        "kl": max(r["kl"] for r in mine.values()),
    }


def _corrected(places: list[Row]) -> list[float | None]:
    """The p_corrected of each place, by the maxima of the nulls over all places; None without nulls."""
    names = [*places[0]["null_slopes"]]
    if not names:
        return [None] * len(places)
    nulls = np.array([[place["null_slopes"][name] for place in places] for name in names])
    largest = np.abs(nulls).max(0)
    own = (Interval(*(place[f"slope_ends{end}"] for end in ("", "_low", "_high")), n=0) for place in places)
    told = [told_apart(slope, most if most > TIE else 0.0) for slope, most in zip(own, largest, strict=True)]
    return max_null_p(told, nulls).tolist()


def report(run: str | Path, console: Console | None = None) -> Row:
    """Print a map (see `tell`) and write map.json; returns what was written."""
    numbers = tell(run, console or Console())
    (Path(run) / "map.json").write_text(canonical(numbers), encoding="utf-8")
    return numbers


def tell(run: str | Path, console: Console) -> Row:
    """Print the map, the bands and a verdict; nothing is written."""
    numbers = map_statistics(run)
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    how = f"{numbers['method']} at {numbers['span']}{conditions(numbers)}"
    console.print(f"{numbers['task']}, {numbers['corrector']}: {how}", markup=False)
    for table in tables(numbers):
        console.print(table)
    console.print(verdict(numbers), markup=False)
    if numbers["model_organism"]:
        console.print(f"{numbers['task']}: {NOTE}", style="dim")
    return numbers


def main(config: Map) -> None:
    """Run or resume the map, print it, draw it."""
    from steering.mapping import run

    folder = run(config)
    report(folder)
    draw("map", folder)


def cli() -> None:
    """Parse the command line; here and not on import, so that reading a map loads no torch."""
    from steering.mapping import Map

    run_cli(Map, main, "analysis.map")


if __name__ == "__main__":
    cli()
