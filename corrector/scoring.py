"""Teacher-forced scores of given targets: log-probabilities, and the divergence that an intervention causes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.decoding import Steering, batches, check_request, checked_applied, left_pad
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded

LOGITS_HELD = 2**26
"""Logits (row x target token x vocabulary) that one scoring batch may hold, so that memory does not follow the data."""


def target_logprobs(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    targets: Sequence[Sequence[int]],
    steering: Steering | None = None,
    batch_size: int = 32,
) -> list[Float[Tensor, " target"]]:
    """Teacher-forced log p(target token | prompt, earlier targets) in nats, float64 on the CPU, one tensor a row."""
    out: dict[int, Tensor] = {}
    for rows in _score_batches(lm, prompts, targets, batch_size):
        for r, logits in zip(rows, _target_logits(lm, rows, prompts, targets, steering), strict=True):
            picked = torch.tensor(targets[r], device=logits.device)[:, None]
            out[r] = logits.double().log_softmax(-1).gather(1, picked).squeeze(1).cpu()
    return [out[i] for i in range(len(prompts))]


Plain = dict[int, Float[Tensor, "target vocab"]]
"""Unsteered log-probabilities by row, kept from one call of `kl_per_token` to the next on the same rows."""


def kl_per_token(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    targets: Sequence[Sequence[int]],
    steering: Steering,
    batch_size: int = 32,
    plain: Plain | None = None,
) -> list[float]:
    """Mean over a row's target tokens of KL(unsteered ‖ steered) = Σ p (log p - log q), in nats, teacher-forced.

    `targets` hold the end token where it counts (`lm.encode_target`). Exactly 0.0 for a row of coefficient 0. Callers
    that score the same prompts and targets again hand over one `plain`, at first empty: the unsteered side is then
    computed once, as long as all of it is no more than LOGITS_HELD. The numbers are the same to the bit.
    """
    out: dict[int, float] = {}
    keeps = plain is not None and sum(map(len, targets)) * lm.model.config.vocab_size <= LOGITS_HELD
    known: Plain = plain if plain is not None and keeps else {}
    for rows in _score_batches(lm, prompts, targets, batch_size):
        if any(r not in known for r in rows):
            logits = _target_logits(lm, rows, prompts, targets, None)
            known |= {r: x.double().log_softmax(-1) for r, x in zip(rows, logits, strict=True)}
        steered = _target_logits(lm, rows, prompts, targets, steering)
        for r, q in zip(rows, steered, strict=True):
            log_p, log_q = known[r] if keeps else known.pop(r), q.double().log_softmax(-1)
            # a token of probability 0 adds nothing, where -inf - -inf would make NaN
            terms = torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0)
            out[r] = terms.sum(-1).mean().item()
    return [out[i] for i in range(len(prompts))]


def _score_batches(
    lm: LanguageModel, prompts: Sequence[Encoded], targets: Sequence[Sequence[int]], batch_size: int
) -> list[list[int]]:
    if len(targets) != len(prompts):
        raise UserError(f"{len(targets)} targets for {len(prompts)} prompts; give one target a prompt")
    if any(len(t) == 0 for t in targets):
        raise UserError(f"target {[len(t) for t in targets].index(0)} is empty; a target holds at least the end token")
    longest = max(map(len, targets), default=1)
    check_request(lm, prompts, longest, 0.0, None)
    return batches(prompts, min(batch_size, max(1, LOGITS_HELD // (longest * lm.model.config.vocab_size))))


@torch.inference_mode()
def _target_logits(
    lm: LanguageModel,
    rows: list[int],
    prompts: Sequence[Encoded],
    targets: Sequence[Sequence[int]],
    steering: Steering | None,
) -> list[Float[Tensor, "target vocab"]]:
    """Logits that predict each target token, in one forward; the last target token itself is not fed."""
    fed = [[*prompts[r].ids, *targets[r][:-1]] for r in rows]
    ids, mask, positions = left_pad(fed, lm)
    longest = max(len(targets[r]) for r in rows)
    with steering.attach(lm.model) if steering else nullcontext():
        if steering:
            steering.begin(rows, [prompts[r] for r in rows])
            steering.forward(positions, mask)
        logits = lm.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=longest
        ).logits
        for j, r in enumerate(rows):
            if steering:
                checked_applied(steering, j, r, len(fed[j]))
    return [logits[j, longest - len(targets[r]) :] for j, r in enumerate(rows)]
