"""The numbers of tradeoff.json as tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.table import Table

Row = dict[str, Any]


def tables(task: str, numbers: Row) -> Iterator[Table]:
    """Both errors, changes against coefficient 0, and a table a front."""
    if numbers["roc"]:
        counts = f"{numbers['n_right']} right and {numbers['n_wrong']} wrong items"
        yield _table(
            f"{task}: both errors, {counts} of {numbers['n_questions']} questions",
            ("coef", "false rewrite", "missed rewrite", "1 - missed - false"),
            [
                (_coef(p["coef"]), *(_interval(p, name) for name in ("false_rewrite", "missed_rewrite", "youden")))
                for p in numbers["roc"]
            ],
            [not p["usable"] for p in numbers["roc"]],
        )
    changed = [(name, row) for name, rows in numbers["flips"].items() for row in rows]
    if changed:
        yield _table(
            f"{task}: changes against coefficient 0, same items",
            ("of", "coef", "n", "wrong to right", "right to wrong", "p"),
            [
                (name, _coef(r["coef"]), str(r["n"]), str(r["better"]), str(r["worse"]), f"{r['p']:.3f}")
                for name, r in changed
            ],
        )
    for name, rows in numbers["pareto"].items():
        cost, outcome = name.split("/")
        yield _table(
            f"{task}: Pareto of {cost.replace('_', ' ')} (less is better) against loop {outcome} (more is better)",
            ("coef", cost.replace("_", " "), outcome, "front in", "verdict", "dominated by"),
            [
                (
                    *(_coef(r["coef"]), _interval(r, "cost", 3), _interval(r, "gain"), f"{r['share_on_front']:.0%}"),
                    *(r["verdict"], ", ".join(map(_coef, r["dominated_by"]))),
                )
                for r in rows
            ],
            [r["verdict"] == "dominated" for r in rows],
        )


def sentences(numbers: Row) -> Iterator[str]:
    """The reached area, the items' slopes and what the fronts come to, each in one line."""
    area = numbers["area"]
    if area:
        yield (
            f"Area under hit rate (1 - missed) against false rewrite, over the reached {area['reached_from']:.2f} to "
            f"{area['reached_to']:.2f} only: {area['area_reached']:.3f}, mean height {area['height']:.2f}, "
            f"{area['over_chance']:+.2f} [{_number(area['over_chance_low'])}, {_number(area['over_chance_high'])}] "
            "over the diagonal there."
        )
    elif numbers["roc"]:
        yield "The false rewrite rate does not move over the usable coefficients, so there is no area."
    else:
        yield "The task does not say both which items are right and which are wrong: no curve of both errors."
    if numbers["items"]:
        for name in ("all", "copied", "rewritten"):
            of = numbers["items"][name]
            if of:
                quantiles = "/".join(f"{round(x, 2) + 0.0:.2f}" for x in of["quantiles"])
                yield (
                    f"Slopes of {of['n']} {'items' if name == 'all' else f'items {name} unsteered'}: mean "
                    f"{_interval(of, 'slope', escape=False)}, 10/50/90 % {quantiles}; wrong way "
                    f"{_interval(of, 'wrong_way', escape=False)}, unmoved {of['unmoved']:.2f}."
                )
    for name, rows in numbers["pareto"].items():
        kept = {v: [_coef(r["coef"]) for r in rows if r["verdict"].startswith(v)] for v in ("front", "dominated")}
        beaten = [_coef(r["coef"]) for r in rows if r["verdict"] == "dominated"]
        yield (
            f"{name}: on the front {', '.join(kept['front']) or 'none'}; dominated {', '.join(kept['dominated'])}"
            f" (beyond error: {', '.join(beaten) or 'none'})."
        )


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]], dim: list[bool] | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*row, style="dim" if dim and dim[i] else None)
    return table


def _coef(coef: float) -> str:
    return f"{coef:+g}" if coef else "0"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _interval(row: Row, name: str, digits: int = 2, escape: bool = True) -> str:
    """`mean [low, high]`, the bracket escaped from markup for tables."""
    low, high = _number(row[f"{name}_low"], digits), _number(row[f"{name}_high"], digits)
    bracket = "\\[" if escape else "["
    return f"{_number(row[name], digits)} {bracket}{low}, {high}]" if low else _number(row[name], digits)
