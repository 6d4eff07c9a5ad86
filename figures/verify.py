"""Whether the gallery is what its runs and code give: one line a fault."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from corrector.errors import UserError
from figures.catalogue import Listed
from figures.drawn import Row
from figures.manifest import IMAGES, digest, made_with, read

ROUNDING = 1e-5
"""How far a rebuilt number may be off, as a share: the last of six digits, which other machines may round otherwise."""
WORDS = ("module", "shows", "runs", "n", "n_rows", "dropped", "interval", "caption")
"""What the manifest says of a figure and a rebuilt one must say too."""
CURE = "run python -m figures.build"
Draw = Callable[[Listed, Path, Path], Row]


def verify(figures: Sequence[Listed], root: Path, gallery: Path, draw: Draw, whole: bool) -> list[str]:
    """Rebuild the figures by `draw` and compare; with `whole`, tell what belongs to no figure. Prints the faults."""
    known, faults, compared = read(gallery), list[str](), 0
    for listed in tqdm(figures, desc="check", unit="figure", leave=False):
        found, same = figure_faults(listed, root, gallery, known.get(listed.name), draw)
        faults += found
        compared += same
    if whole:
        faults += orphans(figures, gallery, known)
    for fault in faults:
        print(fault)
    print(f"{len(figures)} figures checked, {len(faults)} faults; {_machines(compared, len(figures))}.")
    return faults


def _machines(compared: int, n: int) -> str:
    here = ", ".join(f"{name} {version}" for name, version in made_with().items())
    if compared == n:
        return f"image bytes compared of all ({here})"
    return f"image bytes compared of {compared}: the others were not made with what is here ({here}), numbers were"


def figure_faults(listed: Listed, root: Path, gallery: Path, known: Row | None, draw: Draw) -> tuple[list[str], bool]:
    """The faults of one figure, and whether its images were compared byte by byte."""
    name = listed.name
    if not (root / listed.run).exists():
        return [f"{name}: its run {listed.run} is missing"], False
    if known is None:
        return [f"{name}: not in manifest.json; {CURE} {name}"], False
    faults = file_faults(name, gallery, known)
    with tempfile.TemporaryDirectory() as folder:
        try:
            now = draw(listed, root, Path(folder))
        except (UserError, OSError, ValueError, KeyError) as error:
            return [*faults, f"{name}: cannot be rebuilt: {' '.join(str(error).split())}"], False
        rebuilt = (Path(folder) / f"{name}.csv").read_text(encoding="utf-8")
    for kind in ("inputs", "code"):
        for file in sorted({*known[kind], *now[kind]}):
            if known[kind].get(file) != now[kind].get(file):
                faults.append(f"{name}: {file} is not what the figure was made of; {CURE} {name}")
    if known["style"] != now["style"]:
        faults.append(f"{name}: figures/style.py is not what the figure was drawn with; {CURE} {name}")
    faults += [
        f"{name}: {word} is {now[word]}, the manifest has {known[word]}" for word in WORDS if known[word] != now[word]
    ]
    if (file := gallery / f"{name}.csv").exists() and (off := differing(file.read_text(encoding="utf-8"), rebuilt)):
        faults.append(f"{name}: {name}.csv {off}")
    if known["made_with"] != made_with():
        return faults, False
    changed = [kind for kind in IMAGES if known[kind] != now[kind]]
    return [*faults, *(f"{name}: a rebuilt {kind} has other bytes than the manifest's" for kind in changed)], True


def file_faults(name: str, gallery: Path, known: Row) -> list[str]:
    """Files that are missing, empty, or not those of the manifest; PDFs are not committed, so may be missing or old."""
    faults: list[str] = []
    for kind, part in (("csv", "table"), ("png", "png"), ("pdf", "")):
        file = gallery / f"{name}.{kind}"
        if not file.exists():
            faults += [f"{name}: {file.name} is missing; {CURE} {name}"] if part else []
        elif not (data := file.read_bytes()):
            faults.append(f"{name}: {file.name} is empty; {CURE} {name}")
        elif part and digest(data) != known[part]:
            faults.append(f"{name}: {file.name} is not the manifest's; {CURE} {name}")
    return faults


def orphans(figures: Sequence[Listed], gallery: Path, known: Row) -> list[str]:
    """Files and entries of the manifest that belong to no listed figure."""
    names = {figure.name for figure in figures}
    owned = {f"{name}.{kind}" for name in names for kind in ("csv", *IMAGES)} | {"manifest.json"}
    here = sorted(file.name for file in gallery.iterdir()) if gallery.exists() else []
    faults = [f"{name}: belongs to no figure of figures/catalogue.py; delete it" for name in here if name not in owned]
    return faults + [
        f"manifest.json: {name} is no figure of figures/catalogue.py" for name in known if name not in names
    ]


def differing(kept: str, rebuilt: str) -> str:
    """Where two tables first differ by more than rounding, in words; empty where they do not."""
    a, b = ([*csv.reader(io.StringIO(text))] for text in (kept, rebuilt))
    if len(a) != len(b):
        return f"has {len(a) - 1} rows, rebuilt {len(b) - 1}"
    for line, (mine, other) in enumerate(zip(a, b, strict=True), start=1):
        if len(mine) != len(other):
            return f"has {len(mine)} cells in line {line}, rebuilt {len(other)}"
        for column, was, now in zip(b[0], mine, other, strict=True):
            if was != now and not _near(was, now):
                return f"has {column}={was or 'nothing'} in line {line}, rebuilt {now or 'nothing'}"
    return ""


def _near(a: str, b: str) -> bool:
    try:
        x, y = float(a), float(b)
    except ValueError:
        return False
    return abs(x - y) <= ROUNDING * max(abs(x), abs(y))
