"""Transfer: whether a correction vector steers another seed, another size, another task.

python -m steering.transfer --corrector dialogue-0 dialogue-1 dialogue-2 --task dialogue --layers 4
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from corrector.errors import run_cli
from corrector.records import RunFolder, default_name, read_json
from steering.sweeping.cells import Cell, Setting, correct
from steering.transfers.config import Transfer, check
from steering.transfers.places import Place, prepare
from steering.transfers.routes import plan
from steering.transfers.slopes import show


def run(config: Transfer) -> Path:
    """Run or resume; returns the run folder with transfer.jsonl, transfer.json, directions.safetensors, summary.csv."""
    check(config)
    out = Path("runs") / default_name("transfer", config) if config.out == Path() else config.out
    prepared = None if (out / "DONE").exists() else prepare(config)
    with RunFolder(out, config) as folder:
        if prepared is not None:
            routes, directions = _routes(config, *prepared, folder)
            cells = list(_cells(config, prepared[0], routes, directions))
            for i, (about, place, cell) in enumerate(tqdm(cells, desc="transfer", unit="cell")):
                missing = (i + 1) * config.items - max(folder.count("transfer"), i * config.items)
                if missing > 0:
                    where = Setting((place.layer,), config.write or config.span)
                    rows = correct(place.lm, place.task, place.pairs, cell, where)
                    folder.append("transfer", [{**about, **row} for row in rows][-missing:])
            folder.finish()
    show(out, config.seed)
    return out


def _routes(
    config: Transfer, places: list[Place], absent: list[str], folder: RunFolder
) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Every way a vector goes, with the directions to steer with; a resumed run reads back those of the first."""
    file = folder.path / "directions.safetensors"
    if not read_json(folder.path, "transfer"):
        routes, directions, absent = plan(config, places, absent)
        save_file(directions, file)
        organisms = sorted({p.lm.ref for p in places if p.lm.card.get("model_organism", False)})
        folder.write_once("transfer", {"routes": routes, "absent": absent, "organisms": organisms})
    return read_json(folder.path, "transfer")["routes"], load_file(file)


def _cells(
    config: Transfer, places: list[Place], routes: Sequence[dict[str, Any]], directions: dict[str, Tensor]
) -> Iterator[tuple[dict[str, Any], Place, Cell]]:
    """Each target unsteered, then by every direction of every route at every coefficient but 0, in a fixed order."""
    coefs = sorted({c for c in config.coef if c != 0})
    for place in places:
        ends = {"target": place.lm.ref, "task": place.task.name}
        yield {**ends, "route": None}, place, Cell("none", 0.0)
        for i, route in enumerate(routes):
            if {k: route[k] for k in ends} != ends:
                continue
            for j, v in enumerate(directions[str(i)]):
                name = "correction" if j == 0 else f"random-{j - 1:02d}"
                for coef in coefs:
                    yield {**ends, "route": i}, place, Cell(name, coef, {place.layer: v})


if __name__ == "__main__":
    run_cli(Transfer, run, "steering.transfer")
