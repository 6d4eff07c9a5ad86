"""The TransformerLens backend: a TransformerBridge in raw mode, whose weights and activations are the model's own.

Compatibility mode is not offered: it recentres what the residual stream holds, so its vectors would not be ours.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from torch import Tensor

from corrector.models import LanguageModel
from probes.backends.base import Batch, Countdown, Point, Visit
from probes.backends.copies import Wrappers
from probes.sites import Site

# For Gemma2 TransformerLens points hook_attn_out and hook_mlp_out at the norms behind the sublayers, as sites.py does.
_NAMES: dict[Site, str] = {
    "resid_pre": "hook_resid_pre",
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}


def _boot(model: Any, lm: LanguageModel) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    # The name is a label only. The bridge is fed ids and never text; told that its tokenizer puts a begin token, it
    # leaves it alone instead of loading another one by its name.
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.init_kwargs |= {"name_or_path": lm.ref, "add_bos_token": True}
    return TransformerBridge.boot_transformers(
        lm.ref, hf_model=model, tokenizer=tokenizer, device=str(lm.device), dtype=model.dtype
    )


_BRIDGES = Wrappers("transformer_lens", _boot)


def bridged(lm: LanguageModel, batch: Batch, wanted: list[Point], visit: Visit) -> None:
    """Run a batch through the model's TransformerBridge, with eager attention, up to the last point needed."""
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    countdown = Countdown(len(wanted), visit, StopAtLayerException)

    hooks = [(f"blocks.{k}.{_NAMES[site]}", partial(_hook, countdown, site, k)) for site, k in wanted]
    inputs = batch.inputs()
    _BRIDGES.of(lm).run_with_hooks(
        inputs.pop("input_ids"), fwd_hooks=hooks, return_type=None, use_cache=False, logits_to_keep=1, **inputs
    )


def _hook(countdown: Countdown, site: Site, layer: int, h: Tensor, hook: Any) -> None:
    # hook_z comes as [batch, seq, head, d_head].
    countdown.read(site, layer, h.flatten(2))
