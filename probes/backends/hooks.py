"""The reference backend: plain forward hooks on the model itself, whatever else is hooked or steered there."""

from __future__ import annotations

from functools import partial

from corrector.models import LanguageModel, blocks
from probes.backends.base import Batch, Countdown, Point, Visit
from probes.sites import read_hook


class _Enough(Exception):
    """Everything asked for has been read; the rest of the forward is not needed."""


def hooked(lm: LanguageModel, batch: Batch, wanted: list[Point], visit: Visit) -> None:
    """Run a batch under forward hooks, call `visit(site, layer, h)` for each, stop after the last one needed."""
    countdown = Countdown(len(wanted), visit, _Enough)
    decoder = blocks(lm.model)
    handles = [read_hook(decoder[layer], site, partial(countdown.read, site, layer)) for site, layer in wanted]
    try:
        # The base model has no output head, and the early stop makes a cache useless.
        lm.model.base_model(**batch.inputs(), use_cache=False)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()
