"""Rebuild the gallery from the shipped runs, or check it: `python -m figures.build [NAME...] [--check]`.

Writes `<name>.png`, `<name>.pdf`, the plotted numbers as `<name>.csv`, and manifest.json.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from corrector.errors import UserError, run_cli
from corrector.records.canonical import canonical
from figures import style
from figures.catalogue import FIGURES, GALLERY, ROOT, Listed
from figures.drawn import Drawn, Row
from figures.manifest import IMAGES, csv_text, digest, entry, made_with, read
from figures.verify import verify


@dataclass(frozen=True)
class Build:
    """Rebuild figures of the shipped runs: PNG, PDF, the plotted numbers as CSV, and the manifest."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Figures; none: all."""
    check: bool = False
    """Change nothing: rebuild into a temporary folder, compare with the gallery, and exit with 1 where it differs."""
    width: Literal["page", "column"] = "page"
    """Width of the figures: of a page, as in the gallery, or of one column of a two-column page."""
    out: Path = GALLERY
    """Folder to write, or to check."""


def draw(listed: Listed, root: Path, out: Path, width: float = style.PAGE) -> Row:
    """Draw a figure and write its files into a folder; returns its entry in the manifest."""
    return write(listed, listed.build(root / listed.run, width), root, out)


def write(listed: Listed, drawn: Drawn, root: Path, out: Path) -> Row:
    """Write the files of a drawn figure; returns its entry in the manifest."""
    found = write_table(listed, drawn, root, out)
    style.save(drawn.figure, out, listed.name)
    return found | {kind: digest((out / f"{listed.name}.{kind}").read_bytes()) for kind in IMAGES}


def write_table(listed: Listed, drawn: Drawn, root: Path, out: Path) -> Row:
    """Write the plotted numbers alone; returns the figure's entry in the manifest without its images."""
    found, table = entry(listed, drawn, root), csv_text(drawn.rows, listed.name)
    (out / f"{listed.name}.csv").write_text(table, encoding="utf-8")
    counted = {"n_rows": table.count("\n") - 1, "made_with": made_with()}
    return {**found, "table": digest(table.encode()), **counted}


def build(
    figures: Sequence[Listed], root: Path, out: Path, width: float = style.PAGE, whole: bool = False
) -> list[Listed]:
    """Draw the figures whose runs are there and bring the manifest up to date; with `whole`, forget all others.

    Returns those whose run is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    known, missing = {} if whole else read(out), list[Listed]()
    for listed in figures:
        if not (root / listed.run).exists():
            missing.append(listed)
            continue
        began = time.perf_counter()
        known[listed.name] = draw(listed, root, out, width)
        size, n_rows = (out / f"{listed.name}.png").stat().st_size, known[listed.name]["n_rows"]
        print(f"{listed.name}: {size / 1e3:.0f} kB, {n_rows} rows, {time.perf_counter() - began:.1f} s")
        (out / "manifest.json").write_text(canonical({"figures": known}), encoding="utf-8")
    return missing


def chosen(names: Sequence[str], figures: Sequence[Listed] = FIGURES) -> list[Listed]:
    """The listed figures of these names; all where there is none. Raises UserError for names that are not listed."""
    listed = {figure.name: figure for figure in figures}
    if unknown := [name for name in names if name not in listed]:
        raise UserError(f"{unknown[0]!r} is no figure; choose of {', '.join(listed)}")
    return [figure for figure in figures if not names or figure.name in names]


def main(config: Build, figures: Sequence[Listed] = FIGURES, root: Path = ROOT) -> None:
    """Build or check; SystemExit 1 where a check finds a fault, UserError where a run is missing."""
    some = chosen(config.names, figures)
    if config.width != "page" and (config.check or config.out.resolve() == GALLERY.resolve()):
        raise UserError(
            "the gallery's figures are as wide as a page; give --width column with --out FOLDER of your own"
        )
    if config.check:
        if verify(some, root, config.out, draw, whole=not config.names):
            raise SystemExit(1)
        return
    missing = build(some, root, config.out, style.WIDTHS[config.width], whole=not config.names)
    if missing:
        lost = ", ".join(listed.run for listed in missing)
        raise UserError(f"{lost} is missing; restore it, or take its figure from figures/catalogue.py")


if __name__ == "__main__":
    run_cli(Build, main, "figures.build")
