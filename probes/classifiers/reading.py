"""Read the residual stream of every item once: a matrix a (span, layer) and part."""

from __future__ import annotations

from corrector.models import LanguageModel
from corrector.tasks.base import Pair
from probes.capture import capture_all
from probes.classifiers.items import PARTS, Items
from probes.classifiers.measure import Features
from probes.sites import Site
from probes.spans import resolve_span, sequence

Readings = dict[tuple[str, int], Features]
"""Features by (span, layer)."""


def check_readable(lm: LanguageModel, pairs: list[Pair], spans: tuple[str, ...]) -> None:
    """Raise UserError unless every pair has only words that the model knows, and a token in every span."""
    for pair in pairs:
        s = sequence(lm, pair)
        for span in spans:
            resolve_span(s.spans, span)


def read(lm: LanguageModel, items: Items, spans: tuple[str, ...], site: Site, layers: list[int]) -> Readings:
    """Activations of the prompts, each span reduced to its mean, float64. Raises UserError as `capture_all` does."""
    captured = capture_all(lm, [sequence(lm, p) for p in items.every], (site,), layers, spans)
    out: Readings = {}
    for span in spans:
        for layer in layers:
            h = captured[site, span].at(layer).double().numpy()
            features, start = {}, 0
            for part in PARTS:
                end = start + len(items.parts[part])
                features[part], start = h[start:end], end
            out[span, layer] = features
    return out
