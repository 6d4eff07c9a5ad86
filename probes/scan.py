"""The LAT scan: layer by output token, for what a corrector copies and for what it rewrites.

python -m probes.scan --corrector dialogue-0 --task dialogue
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tqdm.auto import tqdm

from corrector import tasks
from corrector.decoding import check_request
from corrector.errors import run_cli
from corrector.models import LanguageModel, load
from corrector.records import RunFolder, default_name, read_json
from corrector.tasks.base import Task
from probes.contrasts import contrast_pairs
from probes.scanning.config import Scan, check
from probes.scanning.measure import Measured, measure
from probes.spans import resolve_span, sequence

__all__ = ["Scan", "run"]


def run(config: Scan) -> Path:
    """Run or resume a scan; returns the run folder with rows, tables and figure."""
    check(config)
    out = Path("runs") / default_name("scan", config) if config.out == Path() else config.out
    todo = [] if (out / "DONE").exists() else prepare(config, out)
    with RunFolder(out, config, config.device) as folder:
        for name, task, lm in tqdm(todo, desc="scan", unit="corrector", disable=None if len(todo) > 1 else True):
            _record(folder, name, lm.ref, measure(config, task, lm))
        if not folder.done:
            folder.finish()
    # Tables and figures are floors above this one, so they are run as programs, not imported.
    subprocess.run([sys.executable, "-m", "figures.scan", str(out)], check=True)
    return out


def prepare(config: Scan, out: Path) -> list[tuple[str, Task, LanguageModel]]:
    """The correctors that `out` has no result of yet, loaded; raises UserError for all that can be seen to fail later.

    A name is that of the file `<name>.json`, which is written last and so says that a corrector is done.
    """
    task = tasks.get(config.task, config.data)
    neutral = task.pairs("validation", config.neutral, config.seed)
    contrast_pairs(task, "train", config.pairs, config.seed)
    pairs = contrast_pairs(task, "test", config.items, config.seed)
    works: list[tuple[str, Task, LanguageModel]] = []
    for i, ref in enumerate(config.corrector or (config.task,)):
        if read_json(out, name := f"corrector-{i}"):
            continue
        lm = load(ref, config.template, config.device, config.dtype)
        prompts = [lm.encode(p.question, p.prefix, p.last) for p in (*neutral, *pairs)]
        check_request(lm, prompts, task.max_sentence_tokens, 0.0, None)
        resolve_span(sequence(lm, pairs[0], pairs[0].correction).spans, config.span)
        works.append((name, task, lm))
    return works


def _record(folder: RunFolder, name: str, ref: str, found: Measured) -> None:
    """Append what a killed run has not yet appended of this corrector, then say that it is done."""
    for file, rows in (("scan", found.scan), ("items", found.items), ("onset", found.onset)):
        there = sum(row["corrector"] == ref for row in folder.rows(file))
        folder.append(file, rows[there:])
    folder.write_once(name, found.about)


if __name__ == "__main__":
    run_cli(Scan, run, "probes.scan")
