"""Directions: arrays [n, d] of two classes in, a frozen direction of one layer out. Positive = more correction."""

from probes.directions.consistency import ccs, ccs_polarity
from probes.directions.direction import Direction, without
from probes.directions.fitting import METHODS, Method, fit
from probes.directions.supervised import diff_means, lda, length_direction, logistic, rda
from probes.directions.unsupervised import cluster_mean, lat, lat_repe, random, random_direction

__all__ = [
    "METHODS",
    "Direction",
    "Method",
    "ccs",
    "ccs_polarity",
    "cluster_mean",
    "diff_means",
    "fit",
    "lat",
    "lat_repe",
    "lda",
    "length_direction",
    "logistic",
    "random",
    "random_direction",
    "rda",
    "without",
]
