"""What a curve's statistics come to in plain sentences, each empty where there is nothing to say."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.curves.nulls import NULLS, family
from analysis.dose import WELL_FORMED
from analysis.summary import UNSTEERED, outcomes
from steering.sweeping.collapse import KINDS


def statistics_line(numbers: dict[str, Any]) -> str:
    """The curve on its usable range in one sentence; empty when there is no such range."""
    if "slope" not in numbers:
        return ""
    low, high = numbers["relative"]
    ends = f"{coefficient(numbers['usable'][0])} to {coefficient(numbers['usable'][-1])}"
    return (
        f"Usable coefs {ends} (well-formed in {WELL_FORMED:.0%} or more): slope {number(numbers['slope'])} "
        f"[{number(numbers['slope_low'])}, {number(numbers['slope_high'])}] edit ratio per coef, "
        f"R² {number(numbers['r2']) or 'undefined'}, Spearman {number(numbers['spearman']) or 'undefined'}; "
        f"{number(low)} to {number(high)} times the unsteered {number(numbers['unsteered'])}; "
        f"copied {number(numbers['copied_at_lowest'])} at {coefficient(numbers['usable'][0])}, "
        f"{number(numbers['copied_unsteered'])} unsteered; "
        f"{numbers['wrong_way']:.0%}{_span(numbers, 'wrong_way')} of items move the wrong way, "
        f"{numbers['unmoved']:.0%} not at all.{_overall(numbers)}"
    )


def _span(numbers: dict[str, Any], name: str) -> str:
    low, high = numbers[f"{name}_low"], numbers[f"{name}_high"]
    return f" [{low:.0%}, {high:.0%}]" if low is not None and high > 0 else ""


def _overall(numbers: dict[str, Any]) -> str:
    """The line over all coefficients, where it is another than on the usable ones."""
    if math.isclose(numbers["slope_all"], numbers["slope"], rel_tol=1e-9, abs_tol=1e-9):
        return ""
    return f" Over all coefs: slope {number(numbers['slope_all'])}, R² {number(numbers['r2_all']) or 'undefined'}."


def controls_line(numbers: dict[str, Any]) -> str:
    """The slope among the null directions, and those of the named controls; empty when there are none."""
    parts: list[str] = []
    if numbers.get("n_null"):
        counted = [(len(numbers[f"{name}_slopes"]), name) for name in NULLS]
        drawn = " and ".join(f"{n} {name}" for n, name in counted if n)
        ratio, z = number(numbers["ratio"], 1), number(numbers["z"], 1)
        least = ", the least that so many can give" if numbers["p"] <= numbers["p_least"] else ""
        parts.append(
            f"{drawn} directions of equal norm: largest |slope| {number(numbers['largest_random_slope'])}, "
            f"ratio {ratio or 'undefined'}, z {z or 'undefined (' + numbers['z_absent'] + ')'}, "
            f"p {number(numbers['p'], 3)}{least}{_scope(numbers['n_candidates'])}"
        )
    named = numbers.get("control_slopes", {})
    parts += [f"{name}: slope {number(slope)}" for name, slope in named.items() if family(name) == name]
    return f"Controls: {'; '.join(parts)}." if parts else ""


def _scope(n_candidates: int) -> str:
    """What p does not cover where the setting was chosen; empty where it was given."""
    if n_candidates == 1:
        return ""
    return (
        f" (at the setting chosen from {n_candidates} on validation pairs, which needs no correction for items; the "
        "nulls had no such choice, and analysis.map corrects for it over layers)"
    )


def shuffled_line(numbers: dict[str, Any]) -> str:
    """The fits on shuffled labels, apart from the nulls, since they may land on the vector; empty without any."""
    named = numbers.get("control_slopes", {})
    slopes = [slope for name, slope in named.items() if family(name) == "shuffled" != name]
    if not slopes:
        return ""
    return (
        f"Shuffled labels, {len(slopes)} fits at the vector's norm, no nulls of chance alone (they land near plus or "
        f"minus the vector where the classes are the strongest axis): slopes {', '.join(map(number, slopes))}."
    )


def prompts_line(table: Any) -> str:
    """What asking in the prompt does, unsteered; empty where no such row is."""
    rows = table.loc[table["direction"].str.startswith("prompt-")]
    told = [
        f"{r['direction']} edit ratio {number(r['edit_ratio'])}, copied {number(r['copied'])}"
        for _, r in rows.iterrows()
    ]
    return f"Prompt baselines: {'; '.join(told)}." if told else ""


def absent_line(controls: Any, unreached: Any) -> str:
    """The controls that could not be made, and why; empty where all were."""
    absent: dict[str, list[str]] = {}
    for name, reason in (controls.get("absent", {}) if isinstance(controls, dict) else {}).items():
        absent.setdefault(reason, []).append(name)
    told = [f"{', '.join(names)} ({reason})" for reason, names in absent.items()]
    if unreached:
        told.append(f"{len(unreached)} cells that reach no such KL ({', '.join(list(unreached)[:3])}, ...)")
    return f"Absent: {'; '.join(told)}." if told else ""


def collapse_line(rows: Any) -> str:
    """Where corrections break down, and how; empty where none does or the rows do not tell."""
    if "collapsed" not in rows:
        return ""
    told: list[str] = []
    for _, row in rows.iterrows():
        kinds = [(kind, row[f"collapse_{kind}"]) for kind in KINDS if kind != "none"]
        broken = [f"{share:.0%} {kind}" for kind, share in kinds if share > 0]
        told += [f"{coefficient(row['coef'])} {', '.join(broken)}"] if broken else []
    return f"Collapse: {'; '.join(told)}." if told else ""


def changes_lines(loop: dict[str, Any]) -> list[str]:
    """Problems that the steered loop mends and breaks against the unsteered one, a line an outcome."""
    out: list[str] = []
    for name, rows in loop.items():
        if rows:
            up, down = [key for key in rows[0] if key not in ("coef", "n")]
            told = [f"{coefficient(row['coef'])}: {row[up]} and {row[down]}" for row in rows]
            words = f"{up.replace('_', ' ')} and {down.replace('_', ' ')}"
            base = "no steering" if any(row["coef"] == 0 for row in rows) else "coef 0"
            out.append(f"Loop, {name}, of {rows[0]['n']} problems against {base}, {words}: {'; '.join(told)}.")
    return out


def improvement_lines(improvement: dict[str, Any]) -> list[str]:
    """The coefficient that validation problems choose, and its paired gain on test problems, a line an outcome."""
    out: list[str] = []
    for name, found in improvement.items():
        apart = "unsteered" in found  # where coefficient 0 steers too
        best = "none" if found["best"] is None else coefficient(found["best"])
        head = f"Best coef for {name} on {found['n_validation']} validation problems: {best}"
        if found["best"] is None or (found["best"] == 0 and not apart):
            out.append(f"{head}, so steering is not chosen.")
        elif found["difference"] is None:
            out.append(f"{head}; its test rows are not there yet.")
        else:
            gain = f"{number(found['difference'], 3)} [{number(found['low'], 3)}, {number(found['high'], 3)}]"
            base = "no steering" if apart else "coef 0"
            out.append(f"{head}; on {found['n']} test problems it changes {name} by {gain} (paired, against {base}).")
    return out


def unsteered_line(rows: Any) -> str:
    """What the corrector does unsteered, where coefficient 0 steers too; empty where the table's 0 is it."""
    names = ("edit_ratio", "copied", "false_rewrite", "missed_rewrite", "well_formed", "right_after")
    told: list[str] = []
    for _, row in rows.loc[rows["direction"] == UNSTEERED].iterrows():
        told += [f"{name.replace('_', ' ')} {number(row[name])}" for name in names if not pd.isna(row[name])]
        told += [f"loop {name} {number(row[f'loop_{name}'])}" for name in outcomes(rows)]
    return f"Unsteered, which coef 0 of this operator is not: {', '.join(told)}." if told else ""


def condition_line(condition: Any, rows: Any) -> str:
    """Where the sweep's gate let it steer, and in how many of the items; empty without a gate."""
    if not condition or "opened" not in rows:
        return ""
    shares = sorted(rows["opened"].dropna())
    if not shares:
        return ""
    told = " to ".join(dict.fromkeys((number(shares[0]), number(shares[-1]))))
    of = "its own direction" if condition["direction"] == "own" else f"vector {condition['direction']}"
    return (
        f"Steered only where the projection on {of} at layer {condition['layer']} lies {condition['side']} "
        f"{number(condition['threshold'], 3)} ({condition['when']}): {told} of the items."
    )


def gate_line(gate: Any) -> str:
    """Whether the corrector tells minimal pairs apart, in its state and in what it does; empty where none was made."""
    if not isinstance(gate, dict):
        return ""
    states: list[str] = []
    for span, layers in gate["auroc"].items():
        if layers is None:
            states.append(f"equal states at {span}")
            continue
        layer, best = max(layers.items(), key=lambda entry: entry[1]["auroc"])
        states.append(
            f"{number(best['auroc'])} [{number(best['low'])}, {number(best['high'])}] at {span} (layer {layer})"
        )
    gap = gate["rewrite"]
    return (
        f"Gate, {gate['n_test']} minimal pairs: largest AUROC of a layer {', '.join(states)}; "
        f"rewrites {number(gap['bad'])} of the bad, {number(gap['good'])} of the good, gap {number(gap['gap'])} "
        f"[{number(gap['low'])}, {number(gap['high'])}]."
    )


def coefficient(coef: float) -> str:
    """A coefficient with its sign; 0 without."""
    return f"{coef:+g}" if coef else "0"


def number(value: Any, digits: int = 2) -> str:
    """A number of fixed digits; blank where it is missing."""
    return "" if value is None or pd.isna(value) else f"{float(value):.{digits}f}"
