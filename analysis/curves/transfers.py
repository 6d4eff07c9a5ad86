"""What a run of steering.transfer comes to: each vector's slope in each corrector, beside that one's own vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.records import read_json, read_rows
from corrector.records.canonical import rounded
from steering.transfers.slopes import measure


def transfer_statistics(run: str | Path) -> dict[str, Any]:
    """`points`: a line a route (`steering.transfers.slopes.measure`); `organisms` and `absent` as the run tells; JSON's
    types.

    Raises UserError unless the run is finished.
    """
    folder = Path(run)
    about = read_json(folder, "transfer")
    if not about or not (folder / "DONE").exists():
        raise UserError(f"{folder} is no finished run of steering.transfer; run its command, which resumes it")
    config = read_json(folder, "config")
    points = measure(about["routes"], read_rows(folder, "transfer"), int(config["seed"]))
    kept = {name: config[name] for name in ("method", "span", "items", "coef", "scale")}
    same = {"run": folder.resolve().name, "organisms": about["organisms"], "absent": about["absent"]}
    return rounded({**same, **kept, "points": points}, "transfer")
