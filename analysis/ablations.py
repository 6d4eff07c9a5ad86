"""Ablations that the papers leave open: identity data, warm-up, annotation noise, unit of correction, other upstreams.

python -m analysis.ablations --only identity warm-up --seeds 0 1 2

trains what is not trained yet (analysis.experiments.variants says what, analysis.experiments.trials measures it),
prints the tables, writes summary.csv and statistics.json into the run folder and draws ablations.png and ablations.pdf.
As a module it reads run folders only, and loads no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from analysis.claims.found import Found, lines, plain
from analysis.drawing import cell, draw
from analysis.experiments.measured import AUROC, EDITS, RANDOM, SLOPE, Measured, tables
from analysis.experiments.variants import Ablations
from analysis.experiments.verbosity import VERBOSITY, verbosity
from analysis.rounds import LENGTH, NOTE
from corrector.errors import UserError, run_cli
from corrector.records import read_json, read_rows
from corrector.records.canonical import canonical, rounded
from corrector.statistics import crossed_mean

Row = dict[str, Any]
ITSELF = (AUROC, SLOPE)
"""Measures that are findings by themselves, not only as differences; gains are so too."""
NULLS = {AUROC: 0.5}
"""Measures that are not 0 where there is nothing."""
WIDTH = 200


def load_ablations(run: str | Path) -> tuple[dict[str, list[Row]], Row]:
    """The rows of a finished run by file, and what it says of its variants; UserError for another folder."""
    folder = Path(run)
    if not (folder / "DONE").exists() or not (about := read_json(folder, "about")) or "variants" not in about:
        raise UserError(f"{folder} is no finished run of analysis.ablations; run its command, which resumes it")
    files = ("models", "edits", "directions", "steered", "answers")
    return {name: read_rows(folder, name) for name in files}, about


def ablation_statistics(run: str | Path) -> Row:
    """`points`: one row a variant and measure, with its difference to the base; `findings`; `verbosity`; `models`.

    Means are over seeds and problems, intervals resample both (`crossed_mean`), `seed_low` and `seed_high` are the
    least and largest mean of a seed. `difference` is to the variant's base, by seed and problem. In JSON's types.
    """
    files, about = load_ablations(run)
    config = read_json(Path(run), "config")
    boot, subject = int(config["seed"]), about["task"]
    every = tables(files, about["outcomes"])
    points, found = list[Row](), list[Found]()
    for variant in about["variants"]:
        base = every[variant["base"]]
        for name, own in every[variant["name"]].items():
            point = {**variant, "measure": name, **_mean(own, "mean", boot), "n_seeds": len(own.seeds)}
            by_seed = own.values.mean(1)
            point |= {"seed_low": float(by_seed.min()), "seed_high": float(by_seed.max()), "seeds": by_seed.tolist()}
            key = f"ablation/{variant['name']}/{name}"
            of = f"{len(own.seeds)} training seeds"
            less = own.less(base[name]) if variant["name"] != variant["base"] and name in base else None
            if less:
                point |= _mean(less, "difference", boot)
                found.append(_finding(key, subject, less, boot, f"less {variant['base']}, {of}"))
            if name in ITSELF or name.startswith("gain_"):
                found.append(_finding(f"{key} itself", subject, own, boot, of, NULLS.get(name, 0.0)))
            points.append(point)
    runs = [r for r in config["rounds"] if (Path(r) / "DONE").exists()]
    growth, slopes = verbosity(runs)
    numbers = {
        **{"run": Path(run).resolve().name, "task": subject, "variants": about["variants"], "points": points},
        **{"models": files["models"], "verbosity": growth, "absent": [r for r in config["rounds"] if r not in runs]},
        "findings": plain([*found, *slopes]),
    }
    return rounded(numbers, "statistics")


def _mean(table: Measured, name: str, seed: int) -> Row:
    mean = crossed_mean(table.values, seed=seed)
    n = "n" if name == "mean" else f"{name}_n"
    return {name: mean.mean, f"{name}_low": mean.low, f"{name}_high": mean.high, n: mean.n}


def _finding(key: str, subject: str, table: Measured, seed: int, note: str, null: float = 0.0) -> Found:
    mean = crossed_mean(table.values, seed=seed)
    low, high = (None if x != x else x for x in (mean.low, mean.high))
    return Found(key, subject, mean.mean, low, high, mean.n, note, null)


def report(run: str | Path, console: Console | None = None) -> Row:
    """Write summary.csv and statistics.json, print the tables and how answers grow with rounds."""
    numbers = ablation_statistics(run)
    folder = Path(run)
    table = pd.DataFrame(numbers["points"]).drop(columns="seeds")
    table.to_csv(folder / "summary.csv", index=False, float_format="%.6g", lineterminator="\n")
    (folder / "statistics.json").write_text(canonical(numbers), encoding="utf-8")
    console = console or Console()
    console.width = max(console.width, WIDTH)  # a narrower table would lose digits without a word
    names = list(dict.fromkeys(p["measure"] for p in numbers["points"]))
    pairs = [name for name in names if name in EDITS]
    read = [name for name in names if name in (AUROC, SLOPE, RANDOM)]
    loop = [name for name in names if name not in (*pairs, *read)]
    for title, chosen in (("test pairs", pairs), ("align loop", loop), ("correction direction", read)):
        if chosen:
            console.print(_table(f"{title}: mean \\[95 %], range over seeds", numbers["points"], chosen, "mean"))
            console.print(_table(f"{title}: less the base \\[95 %]", numbers["points"], chosen, "difference"))
    console.print(_models(numbers["models"]))
    for line in lines([f for f in numbers["findings"] if f["key"].startswith(VERBOSITY)]):
        console.print(line, markup=False, highlight=False)
    for absent in numbers["absent"]:
        console.print(f"absent: {absent} is no finished run, so verbosity is not of it", markup=False)
    if any(m["model_organism"] for m in numbers["models"]):
        console.print(NOTE, style="dim")
    return numbers


def _table(title: str, points: Sequence[Row], names: Sequence[str], value: str) -> Table:
    known = [p for p in points if p["measure"] in names and value in p]
    out = Table(title=title, title_justify="left")
    out.add_column("variant")
    for name in names:
        n = {p["n" if value == "mean" else f"{value}_n"] for p in known if p["measure"] == name} or {0}
        out.add_column(f"{name} (n = {min(n)}{f' to {max(n)}' if len(n) > 1 else ''})", justify="right")
    for variant in dict.fromkeys(p["name"] for p in known):
        of = {p["measure"]: p for p in known if p["name"] == variant}
        out.add_row(variant, *(_cell(of[name], value) if name in of else "" for name in names))
    return out


def _models(models: Sequence[Row]) -> Table:
    """What was trained, and where each seed's direction is: values of the seeds side by side."""
    out = Table(title="correctors, by seed", title_justify="left")
    for name in ("variant", "parameters", "trained tokens", "layer read and steered", "dose of coefficient 1"):
        out.add_column(name, justify="left" if name == "variant" else "right")
    for variant in dict.fromkeys(m["variant"] for m in models):
        mine = [m for m in models if m["variant"] == variant]
        layers, doses = ([m[key] for m in mine if key in m] for key in ("layer", "dose"))
        out.add_row(
            variant,
            ", ".join(f"{n:,}" for n in dict.fromkeys(m["parameters"] for m in mine)),
            ", ".join(f"{m['trained_tokens']:,}" for m in mine),
            ", ".join(map(str, layers)),
            ", ".join(f"{dose:.2f}" for dose in doses),
        )
    return out


def _cell(point: Row, value: str) -> str:
    digits = 1 if point["measure"] == LENGTH else 2
    ends = f" {point['seed_low']:.{digits}f}..{point['seed_high']:.{digits}f}"
    return cell(point, value, digits) + (ends if value == "mean" and point["n_seeds"] > 1 else "")


def main(config: Ablations) -> None:
    """Run or resume, print, draw."""
    from analysis.experiments.trials import run

    folder = run(config)
    report(folder)
    draw("ablations", folder)


if __name__ == "__main__":
    run_cli(Ablations, main, "analysis.ablations")
