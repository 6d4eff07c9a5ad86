"""Teacher-forced scores of given targets: log-probabilities, and the divergence that an intervention causes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.decoding import Steering, batches, check_request, checked_applied, left_pad
from corrector.errors import UserError
from corrector.memory import LOGITS_HELD
from corrector.models import LanguageModel
from corrector.prompts import Encoded


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


def divergence(plain: Float[Tensor, "target vocab"], steered: Float[Tensor, "target vocab"]) -> float:
    """Mean over tokens of KL(p ‖ q) = Σ p (log p - log q) in nats, of two sets of logits, in float64."""
    log_p, log_q = (logits.double().log_softmax(-1) for logits in (plain, steered))
    # a token of probability 0 adds nothing, where -inf - -inf would make NaN
    return torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0).sum(-1).mean().item()


def kl_per_token(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    targets: Sequence[Sequence[int]],
    steering: Steering,
    batch_size: int = 32,
) -> list[float]:
    """Mean over a row's target tokens of KL(unsteered ‖ steered) in nats, teacher-forced.

    `targets` hold the end token where it counts (`lm.encode_target`). Exactly 0.0 for a row of coefficient 0.
    """
    out: dict[int, float] = {}
    for rows in _score_batches(lm, prompts, targets, batch_size):
        plain, steered = (_target_logits(lm, rows, prompts, targets, s) for s in (None, steering))
        out |= {r: divergence(p, q) for r, p, q in zip(rows, plain, steered, strict=True)}
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
