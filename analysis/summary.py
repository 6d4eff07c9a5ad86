"""A run's rows as one table: a line per task, direction and coefficient, with intervals over questions."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from corrector.errors import UserError
from corrector.records import read_json, read_rows
from corrector.statistics import bootstrap_mean
from steering.sweeping.collapse import KINDS

CORRECTION, UNSTEERED, UPSTREAM = "correction", "none", "upstream"
"""Directions by name: the one under study, the unsteered rows, the loop without corrector."""
ACTS_AT_ZERO = frozenset({"clamp"})
"""Operators of which coefficient 0 steers too (those that `steering.operators.IDENTITY_AT_ZERO` leaves out)."""
COUNTS = ("unparsed", "no_answer")
"""What graders count apart from their outcomes: in the CSV, not in tables and figures."""
EDIT_FIELDS = (
    *("task", "coef", "direction", "item", "problem", "edit_ratio", "copied", "length_ratio"),
    *("is_wrong", "is_right_after", "well_formed", "ended", "kl"),
)
ALIGNMENT_FIELDS = ("task", "coef", "direction", "problem", "outcomes")
Key = tuple[str, str, float]


@dataclass(frozen=True)
class Records:
    """What a run folder holds. Unsteered rows stand in it at coefficient 0, once for every direction they belong to.

    Where coefficient 0 steers too (`acts_at_zero`) they belong to none, and are a direction of their own, `none`.
    """

    run: Path
    config: dict[str, Any]
    selection: dict[str, Any]
    edits: pd.DataFrame
    alignments: pd.DataFrame
    finished: bool
    validation: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Loop rows of validation problems, where the sweep chose a coefficient by them."""

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of their first row."""
        return list(dict.fromkeys(self.edits["task"]))

    def setting(self, task: str, key: str) -> Any:
        """A task's entry of selection.json, else the run's, else config.json's; None when nobody says."""
        chosen = self.selection.get(task)
        places = (chosen if isinstance(chosen, dict) else {}, self.selection, self.config)
        return next((place[key] for place in places if key in place), None)

    def acts_at_zero(self, task: str) -> bool:
        """Whether the task was swept by an operator of which coefficient 0 steers too."""
        return self.setting(task, "operator") in ACTS_AT_ZERO

    def unsteered(self, rows: Any, task: str) -> Any:
        """A task's unsteered ones among `edits`, `alignments` or `validation`, or among lines of a summary."""
        if not len(rows):
            return rows
        return select(rows, task=task, coef=0.0, direction=UNSTEERED if self.acts_at_zero(task) else CORRECTION)


def load_records(run: str | Path) -> Records:
    """Read a run folder, finished or still going on.

    Raises UserError when it is no run, has no edit rows, lacks a field, or holds a row twice.
    """
    folder = Path(run)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} holds no config.json, so no run; give a folder that a sweep wrote")
    edits = _frame(folder, "edits", EDIT_FIELDS)
    if edits.empty:
        raise UserError(f"{folder} has no rows in edits.jsonl yet; run the sweep first")
    if "seed" not in edits:
        edits["seed"] = 0
    for name in ("copied", "is_wrong", "is_right_after", "well_formed", "ended"):
        edits[name] = [float("nan") if value is None else float(value) for value in edits[name]]
    twice: Any = edits.loc[edits.duplicated(["task", "direction", "coef", "seed", "item"])]
    if len(twice):
        row = twice.iloc[0]
        where = f"task={row['task']}, direction={row['direction']}, coef={row['coef']:g}, item={row['item']}"
        raise UserError(f"{folder}/edits.jsonl holds {where} twice; delete the folder and run the sweep again")
    alignments, validation = (_frame(folder, name, ALIGNMENT_FIELDS) for name in ("alignments", "validation"))
    records = Records(
        folder,
        read_json(folder, "config"),
        read_json(folder, "selection"),
        edits,
        alignments,
        (folder / "DONE").exists(),
        validation,
    )
    apart = [task for task in records.tasks if records.acts_at_zero(task)]
    for task in apart:
        if select(edits, task=task, direction=CORRECTION, coef=0.0).empty:
            raise UserError(f"{folder} has no row of {task} steered at coefficient 0 yet; let its sweep go on")
    shared = {name: _share_unsteered(getattr(records, name), apart) for name in ("edits", "alignments", "validation")}
    return replace(records, **shared)


def summarise(run: str | Path | Records) -> pd.DataFrame:
    """One line per task, direction and coef, sorted so.

    `edit_ratio`, the rates and each `loop_<outcome>` come with `_low` and `_high` (95 %, bootstrap over problems).
    Rates are shares of items: `copied`, `well_formed`, `ended`, `right_after` of all whose label is known;
    `false_rewrite` (edited) of the `n_right` items that were right, `missed_rewrite` (copied) of the `n_wrong` that
    were wrong. Blank where nothing is known. `kl` is in nats a token, `dose` is |coef|·‖v‖ / mean‖h‖. `collapsed` is
    the share that broke down and `collapse_<kind>` that of each kind (`steering.sweeping.collapse`), where the rows
    tell. `opened` is the share of items that a gate let be steered, where the sweep had one. Direction `upstream` has
    loop columns only; `none` are the unsteered items, where they are not the lines at coefficient 0.
    """
    records = run if isinstance(run, Records) else load_records(run)
    lines: dict[Key, dict[str, Any]] = {key: _edit_line(rows) for key, rows in _cells(records.edits)}
    for key, rows in _cells(records.alignments):
        lines.setdefault(key, {}).update(_loop_line(rows))
    order = {task: i for i, task in enumerate(records.tasks)}
    keys = sorted(lines, key=lambda key: (order.get(key[0], len(order)), _rank(key[1]), key[1], key[2]))
    frame = pd.DataFrame([{"task": k[0], "direction": k[1], "coef": k[2], **lines[k]} for k in keys])
    return frame.reindex(columns=sorted(frame, key=lambda name: name.startswith("loop_")))


def outcomes(table: pd.DataFrame) -> list[str]:
    """Loop outcomes that have a value in a summary, without the counts (COUNTS)."""
    known = [str(name) for name in table.columns[table.notna().any()]]
    names = [name.removeprefix("loop_") for name in known if name.startswith("loop_")]
    return [name for name in names if name not in COUNTS and not name.endswith(("_low", "_high"))]


def select(table: pd.DataFrame, **fields: Any) -> Any:
    """The rows, as a DataFrame, whose columns have these values."""
    keep = pd.Series(True, index=table.index)
    for name, value in fields.items():
        keep &= table[name] == value
    return table.loc[keep]


def item_values(records: Records, rows: Any, direction: str, coefs: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Edit ratios [item, coef] and the problem of each item, of the items measured at every one of the coefs.

    Raises UserError where an item of a finished run lacks one.
    """
    chosen = select(rows, direction=direction)
    wide = chosen.loc[chosen["coef"].isin(coefs)].pivot(
        index=["seed", "item", "problem"], columns="coef", values="edit_ratio"
    )[coefs]
    whole = wide.dropna()
    if records.finished and len(whole) < len(wide):
        raise UserError(
            f"{records.run}: {len(wide) - len(whole)} of {len(wide)} items of {direction!r} lack some coef of {coefs}; "
            "delete the folder and run the sweep again"
        )
    return whole.to_numpy(dtype=float), whole.index.get_level_values("problem").to_numpy()


def _edit_line(rows: Any) -> dict[str, Any]:
    wrong, right = select(rows, is_wrong=1), select(rows, is_wrong=0)
    return {
        "n_items": len(rows),
        "n_questions": rows["problem"].nunique(),
        "n_right": len(right),
        "n_wrong": len(wrong),
        **_interval("edit_ratio", rows["edit_ratio"], rows["problem"]),
        **_rate("copied", rows["copied"], rows["problem"]),
        **_rate("false_rewrite", 1 - right["copied"], right["problem"]),
        **_rate("missed_rewrite", wrong["copied"], wrong["problem"]),
        **_rate("right_after", rows["is_right_after"], rows["problem"]),
        **_rate("well_formed", rows["well_formed"], rows["problem"]),
        "ended": rows["ended"].mean(),
        "length_ratio": rows["length_ratio"].astype(float).mean(),
        "kl": rows["kl"].astype(float).mean(),
        **({"dose": rows["dose"].astype(float).mean()} if "dose" in rows else {}),
        **({"opened": rows["opened"].astype(float).mean()} if "opened" in rows else {}),
        **(_collapse(rows) if "collapse" in rows else {}),
    }


def _collapse(rows: Any) -> dict[str, Any]:
    known = rows.dropna(subset="collapse")
    broken = known["collapse"] != "none"
    kinds = {f"collapse_{kind}": (known["collapse"] == kind).mean() for kind in KINDS if kind != "none"}
    return _rate("collapsed", broken.astype(float), known["problem"]) | kinds


def _loop_line(rows: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"n_problems": rows["problem"].nunique()}
    names = dict.fromkeys(name for outcome in rows["outcomes"] for name in outcome)
    for name in names:
        values = pd.Series([outcome.get(name) for outcome in rows["outcomes"]], index=rows.index, dtype=float).dropna()
        if len(values):
            out |= _interval(f"loop_{name}", values, rows.loc[values.index, "problem"])
    return out


def _interval(name: str, values: Any, groups: Any) -> dict[str, Any]:
    interval = bootstrap_mean(values.to_numpy(dtype=float), groups.to_numpy())
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _rate(name: str, hits: Any, problems: Any) -> dict[str, Any]:
    """A rate over the items whose label is known; blank where that is none."""
    known = hits.notna()
    if not known.any():
        return {name: float("nan"), f"{name}_low": float("nan"), f"{name}_high": float("nan")}
    return _interval(name, hits[known], problems[known])


def _cells(rows: pd.DataFrame) -> Iterable[tuple[Key, Any]]:
    if rows.empty:
        return
    for key, cell in rows.groupby(["task", "direction", "coef"], sort=False):
        task, direction, coef = cast("tuple[Hashable, ...]", key)
        yield (str(task), str(direction), float(str(coef))), cell


def _rank(direction: str) -> int:
    """Correction first, the unsteered ones, controls next, upstream last."""
    return {CORRECTION: 0, UNSTEERED: 1, UPSTREAM: 3}.get(direction, 2)


def _share_unsteered(rows: pd.DataFrame, apart: Sequence[str]) -> Any:
    """Give the unsteered rows, recorded once as `none`, to every direction that has no rows at coefficient 0 itself.

    In the tasks that are `apart` they stay what they are: coefficient 0 is steered there.
    """
    if rows.empty:
        return rows
    unsteered, steered = select(rows, direction=UNSTEERED), rows.loc[rows["direction"] != UNSTEERED]
    if any(unsteered["coef"] != 0):
        raise UserError("a row of direction 'none' has a coefficient other than 0; run the sweep again")
    parts = [steered]
    for task, shared in unsteered.groupby("task", sort=False):
        if task in apart:
            parts.append(shared)
            continue
        mine = select(steered, task=task)
        own = {*select(mine, coef=0)["direction"], UPSTREAM}
        for direction in dict.fromkeys([CORRECTION, *mine["direction"]]):
            if direction not in own:
                parts.append(shared.assign(direction=direction))
    return pd.concat(parts, ignore_index=True)


def _frame(folder: Path, name: str, fields: tuple[str, ...]) -> Any:
    rows = read_rows(folder, name)
    for number, row in enumerate(rows, start=1):
        lacking = [field for field in fields if field not in row]
        if lacking:
            raise UserError(f"{folder}/{name}.jsonl line {number} lacks {', '.join(lacking)}; run the sweep again")
    frame: Any = pd.DataFrame(rows, columns=None if rows else list(fields))
    frame["coef"] = frame["coef"].astype(float).fillna(0.0)  # the upstream alone has no coefficient
    return frame
