"""Classifiers of the residual stream with their controls: items, labels, models, metrics, baselines, transfer."""
