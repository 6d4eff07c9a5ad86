"""The two files of GSM8K, from a folder or a hub, checked row by row."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.tasks.fields import Fields
from corrector.tasks.reading import HUB, read_rows, rows_of

FILES = ("train", "test")
ENVIRONMENT = "CORRECTOR_LAB_DATA"
FINAL_LINE = re.compile(r"#### *-?\$?[0-9][0-9,]*(\.[0-9]+)?$")


def load(data: str) -> dict[str, list[tuple[str, str]]]:
    """(question, annotated answer) of every row, by file; "" means the folder `gsm8k` in $CORRECTOR_LAB_DATA.

    Raises UserError for data that is not there, and for a row of another shape, naming file, line and field.
    """
    if not data:
        if not os.environ.get(ENVIRONMENT):
            raise UserError(
                "task 'gsm8k' has no data; give --data a folder with train.jsonl and test.jsonl or the hub id "
                f"openai/gsm8k, or set {ENVIRONMENT} to the folder that holds gsm8k/"
            )
        data = str(Path(os.environ[ENVIRONMENT]) / "gsm8k")
    folder = Path(data).expanduser()
    if folder.is_dir():
        return {name: _read(folder / f"{name}.jsonl") for name in FILES}
    if HUB.fullmatch(data):
        return _download(data)
    raise UserError(
        f"--data={data!r} is no folder; give one with train.jsonl and test.jsonl, or the hub id openai/gsm8k"
    )


def _read(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} is missing; a gsm8k folder holds train.jsonl and test.jsonl")
    rows = [_row(row, where) for where, row in read_rows(path)]
    if not rows:
        raise UserError(f"{path} holds no rows; one JSON object with question and answer a line is expected")
    return rows


def _download(name: str) -> dict[str, list[tuple[str, str]]]:
    """Both splits of a hub data set, by default of its configuration `main`, as openai/gsm8k has it."""
    found: dict[str, list[tuple[str, str]]] = {file: [] for file in FILES}
    for read in rows_of(name if ":" in name else f"{name}:main", FILES):
        found[read.source].append(_row(read.row, read.where))
    return found


def _row(row: Any, where: str) -> tuple[str, str]:
    fields = Fields(row, where, ("question", "answer"))
    question, answer = fields.text("question"), fields.text("answer").strip()
    if not FINAL_LINE.fullmatch(answer.split("\n")[-1]):
        raise UserError(f"{where}: field 'answer' does not end in a line '#### N'; give GSM8K's own answers")
    return question, answer
