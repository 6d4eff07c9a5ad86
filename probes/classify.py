"""Probe a corrector: what its residual stream says of each sentence, against controls and baselines.

python -m probes.classify --corrector dialogue-0 --task dialogue
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corrector.errors import run_cli
from corrector.records import RunFolder, default_name
from corrector.tasks.base import data_hash
from probes.classifiers.cells import measured, probe_cells, transfer_cells
from probes.classifiers.config import Classify, check
from probes.classifiers.items import PARTS, SPLIT_PARTS
from probes.classifiers.labels import LABELS, Labelled, Target, absence, cross_table, label_items, target
from probes.classifiers.reading import read
from probes.classifiers.report import chosen, show, write_csv
from probes.classifiers.transfer import Space
from probes.classifiers.work import Work, prepare

__all__ = ["Classify", "chosen", "run", "show"]


def run(config: Classify) -> Path:
    """Run, resume or find a run; returns its folder, which `show` prints and `chosen` gives as a table.

    The folder holds config.json, env.json, items.jsonl (every item with its labels), probes.jsonl, transfer.jsonl
    where something is transferred to, summary.json (counts, cross table, what is absent), summary.csv and DONE.
    """
    check(config)
    out = Path("runs") / default_name("classify", config) if config.out == Path() else config.out
    work = None if (out / "DONE").exists() else prepare(config)
    with RunFolder(out, config, config.device) as folder:
        if work is not None and not folder.done:
            _measure(config, work, folder)
            folder.finish()
    return out


def main(config: Classify) -> None:
    """Run and print."""
    show(out := run(config))
    print(f"rows are in {out}")


def _measure(config: Classify, work: Work, folder: RunFolder) -> None:
    labelled = _labelled(work, folder)
    targets = {label: target(labelled, label, config.seed) for label in config.label}
    readings = read(work.lm, work.items, config.span, config.site, list(work.layers))
    absent = measured(folder, "probes", probe_cells(config, work, readings, targets))
    here = Space(work.lm.ref, work.layers, readings, targets)
    absent += measured(folder, "transfer", transfer_cells(config, work, here))
    folder.write_once("summary", _summary(config, work, labelled, targets, absent))
    write_csv(folder.path)


def _labelled(work: Work, folder: RunFolder) -> Labelled:
    """Label the items and write them down; a resumed run reads back what an earlier one decoded."""
    rows = folder.rows("items")
    if len(rows) < len(work.items.every):
        labelled = label_items(work.lm, work.task, work.items)
        folder.append("items", list(_item_rows(labelled))[len(rows) :])
        return labelled
    by = {part: [row for row in rows if row["part"] == part] for part in SPLIT_PARTS}
    return Labelled(
        work.items,
        {part: tuple(row["correction"] for row in of) for part, of in by.items()},
        {label: {part: tuple(row[label] for row in of) for part, of in by.items()} for label in LABELS},
    )


def _item_rows(labelled: Labelled) -> Iterator[dict[str, Any]]:
    for part in PARTS:
        for i, pair in enumerate(labelled.items.parts[part]):
            row = {"part": part, "problem": pair.problem, "question": pair.question, "prefix": pair.prefix}
            row |= {"last": pair.last, "kind": pair.kind}
            if part in labelled.corrections:
                row["correction"] = labelled.corrections[part][i]
                row |= {label: labelled.values[label][part][i] for label in LABELS}
            yield row


def _summary(
    config: Classify, work: Work, labelled: Labelled, targets: dict[str, Target], absent: list[dict[str, Any]]
) -> dict[str, Any]:
    """Whose numbers these are, on which items, and what is missing from the rows: never a 0 in its place."""
    unprobed = [{"label": label, "reason": why} for label, of in targets.items() if (why := absence(of))]
    parts = work.items.parts
    return {
        "task": config.task,
        "corrector": work.lm.ref,
        "fingerprint": work.lm.fingerprint,
        "model_organism": bool(work.lm.card.get("model_organism", False)),
        "data_hash": data_hash(work.items.every),
        "items": {p: {"items": len(parts[p]), "problems": len({q.problem for q in parts[p]})} for p in PARTS},
        "labels": {
            label: {
                part: {
                    "n": len(of.y[part]),
                    "n_positive": int(of.y[part].sum()),
                    "n_unknown": len(parts[part]) - len(of.y[part]),
                }
                for part in SPLIT_PARTS
            }
            for label, of in targets.items()
        },
        "cross_table": {part: cross_table(labelled, part) for part in SPLIT_PARTS},
        "n_absent_labels": len(unprobed),
        "n_absent_rows": len(absent),
        "absent": [*unprobed, *absent],
        "notes": list(work.notes),
    }


if __name__ == "__main__":
    run_cli(Classify, main, "probes.classify")
