"""The doctor's checks of this floor (see corrector.doctor): what the backends read, and how often the hooks fire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from corrector.checks import Row, Subject
from corrector.models import LanguageModel, blocks
from probes.backends import bridge, pad, traces
from probes.backends.base import Batch, Point
from probes.backends.copies import hooks_of
from probes.backends.hooks import hooked
from probes.capture import capture_all
from probes.sites import SITES, Site, submodule
from probes.spans import sequence

ROWS = 3
"""Prompts that the backends are compared on."""
LOGITS = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF_LOGITS = 0.1
"""Largest difference of log-probabilities, in nats, that counts as rounding; half precision rounds more."""
STREAM = {torch.float32: 1e-4, torch.float64: 1e-7}
HALF_STREAM = 0.05
"""Largest difference of residual states, in units of their root mean square."""


def backend_rows(s: Subject) -> list[Row]:
    """Log-probabilities under plain hooks, TransformerLens and nnsight against the bare model's, and their residual
    streams against the hooks'.
    """
    lm = s.lm
    sequences = [sequence(lm, p) for p in s.pairs[:ROWS]]
    batch = pad([q.ids for q in sequences], "right", lm.device)
    with torch.no_grad():
        bare = lm.model(**batch.inputs(), use_cache=False).logits
    h = capture_all(lm, sequences, spans=("prompt",), batch_size=ROWS, progress="")["resid_post", "prompt"].h
    rows: list[Row] = []
    for name, logits in LOGITS_OF.items():
        try:
            with torch.no_grad():
                got = logits(lm, batch)
            own = capture_all(lm, sequences, spans=("prompt",), batch_size=ROWS, backend=name, progress="")
        except Exception as error:  # a library says in its own way that it does not know a model
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            rows.append(Row(f"parity {name}", "skip", f"not supported here ({reason})", "use --backend torch"))
            continue
        real = batch.mask
        nats = (got.double().log_softmax(-1) - bare.double().log_softmax(-1)).abs()[real].max().item()
        stream = float((own["resid_post", "prompt"].h - h).abs().max() / h.square().mean().sqrt())
        said = f"log-probabilities within {nats:.1e} nats, residual stream within {stream:.1e} of its size"
        dtype = lm.model.dtype
        fine = nats <= LOGITS.get(dtype, HALF_LOGITS) and stream <= STREAM.get(dtype, HALF_STREAM)
        rows.append(Row(f"parity {name}", "ok" if fine else "FAIL", said, "" if fine else "use --backend torch"))
    return rows


def _hooked_logits(lm: LanguageModel, batch: Batch) -> Tensor:
    handles = [block.register_forward_hook(lambda *_: None) for block in blocks(lm.model)]
    try:
        return lm.model(**batch.inputs(), use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()


def _bridged_logits(lm: LanguageModel, batch: Batch) -> Tensor:
    inputs = batch.inputs()
    return bridge._BRIDGES.of(lm)(inputs.pop("input_ids"), return_type="logits", use_cache=False, **inputs)


def _traced_logits(lm: LanguageModel, batch: Batch) -> Tensor:
    with traces._LOCK:
        model = traces._LOCAL.of(lm)
        with model.trace(batch.inputs(), use_cache=False):
            logits: Any = model.output.logits.save()
    return logits


LOGITS_OF: dict[str, Callable[[LanguageModel, Batch], Tensor]] = {
    "torch": _hooked_logits,
    "transformer_lens": _bridged_logits,
    "nnsight": _traced_logits,
}


def hook_rows(s: Subject) -> list[Row]:
    """Whether every hook fires once a forward at every site and layer, and none is left behind."""
    lm = s.lm
    before = hooks_of(lm.model)
    batch = pad([sequence(lm, p).ids for p in s.pairs[:ROWS]], "left", lm.device)
    sites: list[Site] = [site for site in SITES if _has(lm, site)]
    wanted: list[Point] = [(site, layer) for layer in range(lm.n_layers) for site in sites]
    seen: list[Point] = []
    with torch.no_grad():
        hooked(lm, batch, wanted, lambda site, layer, _: seen.append((site, layer)))
    left = len(hooks_of(lm.model)) - len(before)
    said = f"{len(seen)} of {len(wanted)} fired ({len(sites)} of {len(SITES)} sites, {lm.n_layers} layers), {left} left"
    if sorted(seen) != sorted(wanted) or left:
        return [Row("hooks", "FAIL", said, "the model calls its blocks in a way of its own; report it")]
    if len(sites) < len(SITES):
        lacking = ", ".join(site for site in SITES if site not in sites)
        return [Row("hooks", "warn", said, f"of {type(lm.model).__name__} {lacking} is not known; use resid_post")]
    return [Row("hooks", "ok", said)]


def _has(lm: LanguageModel, site: Site) -> bool:
    try:
        submodule(blocks(lm.model)[0], site)
    except ValueError:
        return False
    return True
