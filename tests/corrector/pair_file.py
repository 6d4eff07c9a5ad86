"""A file of pairs for trainings that are small and need no data of the lab's."""

import json
from pathlib import Path

FIFTY = [
    {"question": f"What is {a} + {b}?", "prefix": "", "last": f"It is {a + b + c}.", "correction": f"It is {a + b}."}
    for a in range(5)
    for b in range(5)
    for c in range(2)
]
"""Half of them are right as they are."""


def write_pairs(file: str | Path = "pairs.jsonl") -> None:
    """Fifty sums, one a line, in the fields of `--task jsonl`."""
    Path(file).write_text("\n".join(map(json.dumps, FIFTY)))
