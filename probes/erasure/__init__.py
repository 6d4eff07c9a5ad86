"""Erase a binary concept: affine maps after which no linear read-out finds it, their nulls, and what is left after."""

from probes.erasure.erasers import Eraser, leace, mean_projection, random_eraser, shuffled_labels
from probes.erasure.matched import complement, matched, size_matched
from probes.erasure.order import Items, fit_eraser, fit_in_order
from probes.erasure.remains import decision_gap, measure, probe_auroc, probe_scores

__all__ = [
    "Eraser",
    "Items",
    "complement",
    "decision_gap",
    "fit_eraser",
    "fit_in_order",
    "leace",
    "matched",
    "mean_projection",
    "measure",
    "probe_auroc",
    "probe_scores",
    "random_eraser",
    "shuffled_labels",
    "size_matched",
]
