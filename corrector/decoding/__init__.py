"""Decoding: greedy or seeded sampling, with an optional intervention, and whatever spares work without changing tokens.

Greedy results equal HF `generate` token for token, whatever the batch, its order, its padding and the tricks used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from corrector.decoding.engine import Decoder
from corrector.decoding.fitness import unfit
from corrector.decoding.jobs import EVERY, PLAIN, Job, Trick, Tricks
from corrector.decoding.plain import PlainDecoder
from corrector.decoding.request import (
    LiveSteering,
    Output,
    Steering,
    Stop,
    batches,
    check_request,
    checked_applied,
    fits_window,
    left_pad,
    window,
)
from corrector.models import LanguageModel
from corrector.prompts import Encoded

__all__ = [
    "EVERY",
    "PLAIN",
    "Decoder",
    "Job",
    "LiveSteering",
    "Output",
    "PlainDecoder",
    "Steering",
    "Trick",
    "Tricks",
    "batches",
    "check_request",
    "checked_applied",
    "decode",
    "decoder_of",
    "draft_of",
    "fits_window",
    "left_pad",
    "unfit",
    "window",
]

OnDraft = Callable[[int, Float[Tensor, "draft vocab"]], None]
"""Given a prompt's index and the logits that predict each token of its draft."""


def decoder_of(
    lm: LanguageModel,
    steering: Steering | None = None,
    temperature: float = 0.0,
    batch_size: int = 64,
    tricks: Tricks | None = None,
) -> Decoder | PlainDecoder:
    """The fast decoder, or the plain one: where no trick is wanted, and, with a warning, where model or steering
    cannot be served fast.
    """
    chosen = tricks or Tricks()
    if chosen == PLAIN:
        return PlainDecoder(lm, steering, temperature, batch_size)
    live = steering if isinstance(steering, LiveSteering) else None
    if steering is not None and live is None:
        reason = f"{type(steering).__name__} does not follow rows that come and go"
    else:
        reason = unfit(lm)
    if reason:
        warnings.warn(f"{lm.ref}: decoding plainly, since {reason}", stacklevel=2)
        return PlainDecoder(lm, steering, temperature, batch_size)
    return Decoder(lm, live, temperature, batch_size, chosen)


def draft_of(lm: LanguageModel, prompt: Encoded) -> tuple[int, ...]:
    """The suffix that the prompt asks to correct, with the end token: a corrector mostly copies. Empty without one."""
    start, end = prompt.spans.get("last", (0, 0))
    return (*prompt.ids[start:end], lm.eos_id) if end > start else ()


def decode(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    *,
    max_new_tokens: int,
    steering: Steering | None = None,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    stop: Stop | None = None,
    progress: str = "",
    drafts: Sequence[Sequence[int]] | None = None,
    on_draft: OnDraft | None = None,
    tricks: Tricks | None = None,
) -> list[Output]:
    """Continue every prompt until its end token, `max_new_tokens` or `stop(ids)`; outputs in the prompts' order.

    Temperature 0 is greedy (argmax in float32). Otherwise row i draws from its own generator, seeded by `seeds[i]`,
    so a row's output does not depend on its neighbours. `stop` sees the tokens written so far, the newest included.
    `drafts` say what each row will probably write (`draft_of` the prompt where none are given); they save time where
    they are right and change nothing. `on_draft` is given the logits of each whole draft, teacher-forced, which needs
    the fast decoder.

    Raises UserError for impossible arguments and for logits that are NaN; RuntimeError when the applications of
    `steering` are not the expected number.
    """
    from tqdm.auto import tqdm

    check_request(lm, prompts, max_new_tokens, temperature, seeds)
    decoder = decoder_of(lm, steering, temperature, batch_size, tricks)
    for i in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), prompts[i].ids, i)):
        decoder.submit(
            Job(
                prompts[i],
                max_new_tokens,
                -1 if steering is None else i,
                tuple(drafts[i]) if drafts else draft_of(lm, prompts[i]),
                (lambda logits, i=i: on_draft(i, logits)) if on_draft else None,
                seeds[i] if seeds else None,
                stop,
                tag=i,
            )
        )
    outputs: dict[int, Output] = {}
    with decoder.running(), tqdm(total=len(prompts), desc=progress, unit="row", disable=not progress) as bar:
        while decoder.load:
            outputs |= {job.tag: output for job, output in decoder.step()}
            bar.update(len(outputs) - bar.n)
    return [outputs[i] for i in range(len(prompts))]
