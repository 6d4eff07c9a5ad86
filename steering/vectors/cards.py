"""A steering vector's card as a table: for the terminal, and as what a notebook shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from corrector.display.console import of_table
from corrector.display.table import Html, card, framed

if TYPE_CHECKING:
    from steering.vectors import SteeringVector


def layer_table(vector: SteeringVector) -> Table:
    """A line a layer: AUROC on held-out questions, norm, dose and cosines; of a vector without them its norms."""
    size = f" (n={vector.card['n']})" if "n" in vector.card else ""
    title = f"{vector.method} at {vector.site}, {vector.span}, of {vector.ref}{size}"
    measured: dict[str, dict[str, Any]] = vector.card.get("layers", {})
    cosines: dict[str, dict[str, float]] = vector.card.get("cosine", {})
    if not all(str(k) in measured for k in vector.layers):
        out = Table("layer", "‖v‖", title=title)
        for k in vector.layers:
            out.add_row(str(k), f"{float(vector.at(k).norm()):.3g}")
    else:
        out = Table("layer", "AUROC", "95 % interval", "‖v‖", "dose of coef 1", "explained", title=title)
        for method in cosines:
            out.add_column(f"cos {method}")
        for k in vector.layers:
            row = measured[str(k)]
            out.add_row(
                str(k),
                f"{row['auroc']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{row['norm']:.3g}",
                f"{row['dose']:.3f}",
                "" if row["explained_variance"] is None else f"{row['explained_variance']:.2f}",
                *(f"{by_layer[str(k)]:.3f}" for by_layer in cosines.values()),
            )
    for column in out.columns:
        column.justify = "right"
    return out


def card_of(vector: SteeringVector) -> Html:
    """Of which model it is, how it was made, on how much, and what each layer is worth."""
    c = vector.card
    pairs = f"{c['n']} matched pairs, tested on {c['n_validation']} of other questions" if "n_validation" in c else ""
    fields = {
        "model": f"{vector.ref} (fingerprint {vector.fingerprint or 'unknown'}), template {vector.template}",
        "read at": f"{vector.site}, {vector.span}",
        "method": vector.method,
        "contrast": c.get("contrast"),
        "task": c.get("task"),
        "fitted on": pairs,
        "data": c.get("data_hash"),
        "made by": c.get("operation"),
        "of": ", ".join(f"{p['method']} {p['digest']}" for p in c.get("parents", ())),
    }
    return framed(card("Steering vector", fields), of_table(layer_table(vector)))
