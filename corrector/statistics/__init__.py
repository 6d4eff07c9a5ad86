"""Intervals and lines with the question as the unit: items of one question are not independent.

A missing value is not 0 and an empty set has no mean, so both raise UserError.
"""

from corrector.statistics.bootstrap import bootstrap_mean, bootstrap_ratio, crossed_mean, crossed_means, crossed_ratio
from corrector.statistics.chance import max_null_p, mcnemar, null_p, wilson, z_score
from corrector.statistics.lines import Line, item_slopes, line, slope_bootstrap, spearman
from corrector.statistics.numbers import CONFIDENCE, LEVEL, TIE, Interval, Numbers

__all__ = [
    "CONFIDENCE",
    "LEVEL",
    "TIE",
    "Interval",
    "Line",
    "Numbers",
    "bootstrap_mean",
    "bootstrap_ratio",
    "crossed_mean",
    "crossed_means",
    "crossed_ratio",
    "item_slopes",
    "line",
    "max_null_p",
    "mcnemar",
    "null_p",
    "slope_bootstrap",
    "spearman",
    "wilson",
    "z_score",
]
