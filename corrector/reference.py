"""Retrain the shipped references by their recipes: `python -m corrector.reference` (`make reference`)."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from corrector.errors import UserError, run_cli
from corrector.models import REFERENCES
from corrector.recipes import KNOWN, RECIPES, STARTS, Train
from corrector.train import run as train


@dataclass(frozen=True)
class Reference:
    """Retrain references and put them where `corrector.load` finds them. A stopped run resumes."""

    names: tuple[str, ...] = tuple(RECIPES)
    """References to retrain; other seeds and baselines too, by name."""
    data: str = ""
    """Folder of the GSM8K files; without it, and without CORRECTOR_LAB_DATA, gsm8k is left as it is."""


def run(config: Reference) -> None:
    """Train one recipe after the other, each in runs/, and replace the shipped checkpoint by it."""
    if unknown := [name for name in config.names if name not in KNOWN]:
        raise UserError(f"reference {unknown[0]!r} is not one of {', '.join(KNOWN)}; choose --names among them")
    for name in config.names:
        task = KNOWN[name].task
        if task == "gsm8k" and not config.data and "CORRECTOR_LAB_DATA" not in os.environ:
            print(f"{name}: left as it is, since no GSM8K data was given (--data)")
            continue
        checkpoint = train(Train(recipe=name, data=config.data if task == "gsm8k" else ""))
        if name not in STARTS:
            publish(checkpoint, name)


def publish(checkpoint: Path, name: str) -> Path:
    """Copy a finished checkpoint to the references, whole or not at all: a failed copy leaves the old one there."""
    home = REFERENCES / name
    half, old = REFERENCES / f".{name}.part", REFERENCES / f".{name}.old"
    for rest in (half, old):
        shutil.rmtree(rest, ignore_errors=True)
    shutil.copytree(checkpoint, half)
    # A folder cannot replace one that holds files, and deleting takes longer than renaming.
    if home.exists():
        home.replace(old)
    half.replace(home)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{name}: {home}")
    return home


if __name__ == "__main__":
    run_cli(Reference, run, "corrector.reference")
