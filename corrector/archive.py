"""Archive a finished run: rows compressed, so small that it can be committed; every reader takes it as the run itself.

python -m corrector.archive runs/sweep-1234abcd figures/runs/fig8
"""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

from corrector.errors import UserError, run_cli

DERIVED = (".png", ".pdf", ".csv", ".html", ".lock", ".tmp")
"""What the run's commands make again from its rows."""


@dataclass(frozen=True)
class Archive:
    """Copy a finished run with its rows compressed."""

    run: tyro.conf.Positional[Path]
    """Run folder with a DONE."""
    out: tyro.conf.Positional[Path]
    """Folder to write; it must not exist."""


def archive(config: Archive) -> Path:
    """Write `<name>.jsonl.xz` for every row file and copy what is not DERIVED; the same run gives the same bytes.

    Raises UserError where the run is not finished, was changed since, or `out` exists.
    """
    if not (config.run / "DONE").is_file():
        raise UserError(f"{config.run} holds no DONE, so no finished run; run its command to the end first")
    if config.out.exists():
        raise UserError(f"{config.out} exists and is kept; choose another folder")
    done = json.loads((config.run / "DONE").read_text(encoding="utf-8"))
    if lost := sorted(name for name in done if not (config.run / f"{name}.jsonl").is_file()):
        raise UserError(
            f"{config.run} lacks {lost[0]}.jsonl, which its DONE names; delete it and run its command again"
        )
    half = config.out.with_name(config.out.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for file in sorted(f for f in config.run.iterdir() if f.is_file() and not f.name.endswith(DERIVED)):
        if file.suffix != ".jsonl":
            (half / file.name).write_bytes(file.read_bytes())
            continue
        data = file.read_bytes()
        if file.stem not in done or hashlib.sha256(data).hexdigest() != done[file.stem]["sha256"]:
            raise UserError(f"{file} changed after the run was finished; delete the run and start its command again")
        (half / f"{file.name}.xz").write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    half.replace(config.out)
    return config.out


def main(config: Archive) -> None:
    """Archive, and say how large it became."""
    out = archive(config)
    print(f"wrote {out}: {sum(f.stat().st_size for f in out.iterdir()) / 1e3:.0f} kB")


if __name__ == "__main__":
    run_cli(Archive, main, "corrector.archive")
