"""Steering through TransformerLens hooks: a context manager for a TransformerBridge in raw mode."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from corrector.errors import UserError
from corrector.models import LanguageModel
from probes.backends.bridge import _BRIDGES, _NAMES
from steering.interventions.composition import Composition, Edit, compose
from steering.interventions.context import Start, Steered, check_bare, follow, whole_prompts
from steering.interventions.writes import Change


@contextmanager
def steer_transformer_lens(
    bridge: Any, edits: Sequence[Edit], prompt_lengths: Sequence[int] | None = None
) -> Generator[Steered]:
    """`steer_all` for a TransformerBridge: its forwards, `run_with_cache` and `generate` are steered in the block.

    Feed token ids with an attention mask. TransformerLens' generate samples unless do_sample=False and stops rows at
    eos unless stop_at_eos=False. Raises UserError for a bridge in compatibility mode, whose residual stream is
    recentred, so that vectors of the plain model do not fit it.
    """
    check_bare(edits)
    steering = compose(edits)
    with bridged(bridge, steering, whole_prompts(steering), prompt_lengths) as record:
        yield record


def bridged(
    bridge: Any, steering: Composition, start: Start, prompt_lengths: Sequence[int] | None = None
) -> AbstractContextManager[Steered]:
    """Follow the bridge's forwards with the interventions as its hooks."""
    if getattr(bridge, "compatibility_mode", False):
        raise UserError(
            "the TransformerBridge is in compatibility mode, whose activations are recentred; boot one and steer it raw"
        )
    # The Hugging Face model inside is what sees the mask and the cache of every forward.
    model = bridge.original_model
    steering.check(model)
    hooks = [(f"blocks.{w.layer}.{_NAMES[w.site]}", partial(_hook, w.change)) for w in steering.writes()]
    return follow(model, steering, bridge.hooks(fwd_hooks=hooks), start, prompt_lengths)


def _hook(change: Change, h: Tensor, hook: Any) -> Tensor | None:
    # hook_z comes as [batch, seq, head, d_head].
    new = change(h.flatten(2))
    return None if new is None else new.reshape(h.shape)


def generate(
    lm: LanguageModel,
    ids: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
    steering: Composition,
    start: Start,
    max_new_tokens: int,
    use_cache: bool = True,
) -> tuple[Int[Tensor, "batch new"], Steered]:
    """TransformerLens' own generate, greedy, all rows to the last token; the tokens written, and what was run."""
    bridge = _BRIDGES.of(lm)
    with bridged(bridge, steering, start) as record:
        tokens = bridge.generate(
            ids,
            attention_mask=mask.long(),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            stop_at_eos=False,
            use_past_kv_cache=use_cache,
            return_type="tokens",
            verbose=False,
        )
    return tokens[:, ids.shape[1] :], record
