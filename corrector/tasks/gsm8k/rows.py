"""The two files of GSM8K, from a folder or a hub, checked row by row."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from corrector.errors import UserError

FILES = ("train", "test")
ENVIRONMENT = "CORRECTOR_LAB_DATA"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
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
    if HUB_ID.fullmatch(data):
        return _download(data)
    raise UserError(
        f"--data={data!r} is no folder; give one with train.jsonl and test.jsonl, or the hub id openai/gsm8k"
    )


def _read(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} is missing; a gsm8k folder holds train.jsonl and test.jsonl")
    rows: list[tuple[str, str]] = []
    for n, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{n}: no JSON ({error}); one object a line is expected") from None
        rows.append(_row(row, f"{path}:{n}"))
    if not rows:
        raise UserError(f"{path} holds no rows; one JSON object with question and answer a line is expected")
    return rows


def _download(name: str) -> dict[str, list[tuple[str, str]]]:
    try:
        from datasets import load_dataset  # pyright: ignore
    except ImportError:
        raise UserError(f"--data={name!r} is read through datasets; pip install datasets, or give a folder") from None
    try:
        sets: Mapping[str, Iterable[Any]] = load_dataset(name, "main")  # pyright: ignore
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise UserError(f"--data={name!r} is no folder and no data set to be had ({reason}); give a folder") from error
    if missing := set(FILES) - set(sets):
        raise UserError(f"--data={name!r} has no split {', '.join(sorted(missing))}; give openai/gsm8k or a folder")
    return {file: [_row(row, f"{name} {file}:{n}") for n, row in enumerate(sets[file], 1)] for file in FILES}


def _row(row: Any, where: str) -> tuple[str, str]:
    if not isinstance(row, dict):
        raise UserError(f"{where}: {type(row).__name__} is no row; an object with question and answer is expected")
    for field in ("question", "answer"):
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise UserError(f"{where}: field {field!r} is {row.get(field)!r}; a text is expected")
    if not FINAL_LINE.fullmatch(row["answer"].strip().split("\n")[-1]):
        raise UserError(f"{where}: field 'answer' does not end in a line '#### N'; give GSM8K's own answers")
    return row["question"], row["answer"].strip()
