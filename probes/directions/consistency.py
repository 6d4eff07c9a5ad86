"""Contrast-consistent search: a probe that must answer a contrast pair with p and 1 - p, trained without labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from corrector.errors import UserError
from probes.directions.direction import Direction, mean_difference, oriented, paired_differences

RESTARTS, EPOCHS, RATE, DECAY = 10, 1000, 1e-3, 0.01
"""As in the published code: ten probes, full batches, AdamW."""
CONSTANT_LOSS = 0.2
"""Least loss of a probe that answers the same to everything: (2p - 1)² + p² at p = 2/5."""


def ccs(pos: Float[Tensor, "n_pos d"], neg: Float[Tensor, "n_neg d"], seed: int = 0) -> Direction:
    """Contrast-consistent search: p(h) = sigmoid(w·(h - μ) + b) of least mean (p + p' - 1)² + min(p, p')².

    The published normalisation subtracts the mean of each slot of the pair (its "yes" and its "no" wording), whose
    order says nothing of the label. Here the order (h⁺, h⁻) is the label, and subtracting class means would subtract
    the very signal. So each pair is taken in both orders; then both slots have the pooled mean μ, and the loss, which
    is symmetric, is that of either order. One common scale (E‖h - μ‖² = d) makes the rate fit any activations.

    The best of ten seeded starts by the loss alone, kept as `loss`. The loss does not know which of a pair is positive,
    so the sign is not identified, and is set by the training labels. b serves the search only: at low confidence it
    drifts from the middle, so `threshold` is midway between the class means. Raises UserError as lat does, and where
    no start beats a constant answer. Source: 2212.03827.
    """
    mean_difference(pos, neg)
    paired_differences(pos, neg, "ccs")
    centre = torch.cat([pos, neg]).double().mean(0)
    w, loss = search(pos.double() - centre, neg.double() - centre, seed)
    return oriented(w, pos, neg, "ccs", sign_identified=False, loss=loss)


def ccs_polarity(
    pos: Float[Tensor, "n d"], neg: Float[Tensor, "n d"], polarity: Sequence[int], seed: int = 0
) -> Direction:
    """Polarity-aware CCS: contrast pairs that cross two groups of opposite polarity.

    Pair i is (h⁺ᵢ, h⁻ᵢ) of polarity sᵢ = ±1: a cue that goes with the label in one group and against it in the other
    (the rewritten suffix is the longer one, or the shorter). With labels τ = ±1 the model of 2407.12831 is
    h = τ t_G + τ s t_P + noise, and within a group t_G + s t_P cannot be told from t_G. So the k-th pair of group +1
    meets the k-th of group -1 crosswise, h⁺ with h⁻: their answers are opposite, and t_P moves both the same way, so
    consistency turns w away from it. The slots are the groups, whose means are subtracted as published, which
    takes away what polarity itself adds. 2511.21737, which has the name, measures consistency under polarity with the
    plain loss; this trains on it. Raises UserError as ccs does, and unless both groups have as many pairs.
    """
    mean_difference(pos, neg)
    paired_differences(pos, neg, "ccs_polarity")
    signs = torch.tensor(list(polarity))
    plus, minus = signs == 1, signs == -1
    if len(signs) != len(pos) or not bool((plus | minus).all()) or int(plus.sum()) != int(minus.sum()):
        raise UserError(
            f"ccs_polarity got {len(pos)} pairs with {int(plus.sum())} of polarity 1 and {int(minus.sum())} of -1; "
            "give every pair 1 or -1, and as many of each"
        )
    slots = [torch.cat([pos[plus], neg[plus]]).double(), torch.cat([neg[minus], pos[minus]]).double()]
    w, loss = search(slots[0] - slots[0].mean(0), slots[1] - slots[1].mean(0), seed)
    return oriented(w, pos, neg, "ccs_polarity", sign_identified=False, loss=loss)


def search(first: Float[Tensor, "n d"], second: Float[Tensor, "n d"], seed: int) -> tuple[Float[Tensor, " d"], float]:
    """Best start of p = sigmoid(w·x + b) on two slots that the caller has centred: its w and its loss."""
    scale = (torch.cat([first, second]).square().sum(1).mean() / first.shape[1]).sqrt()
    a, b = first.double() / scale, second.double() / scale
    generator = torch.Generator().manual_seed(seed)
    bound = first.shape[1] ** -0.5
    # The uniform start of a torch Linear layer, drawn at once for all starts; they share no term of the loss.
    w, bias = (
        bound * (2 * torch.rand(*shape, RESTARTS, generator=generator, dtype=torch.float64) - 1)
        for shape in ((first.shape[1],), ())
    )
    w.requires_grad_()
    bias.requires_grad_()
    optimiser = torch.optim.AdamW([w, bias], lr=RATE, weight_decay=DECAY)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        _loss(a @ w + bias, b @ w + bias).sum().backward()
        optimiser.step()
    with torch.no_grad():
        losses = _loss(a @ w + bias, b @ w + bias)
        best = int(losses.argmin())
        if not float(losses[best]) < CONSTANT_LOSS:
            raise UserError(
                f"ccs found nothing: best loss {float(losses[best]):.3f}, a constant answer has {CONSTANT_LOSS}; "
                "read at another --span or --site"
            )
        # What of w no activation can see got no gradient: it is the random start, and no score changes without it.
        data = torch.cat([a, b])
        seen = torch.linalg.lstsq(data, (data @ w[:, best])[:, None], driver="gelsd").solution[:, 0]
        return seen, float(losses[best])


def _loss(x: Float[Tensor, "n restart"], y: Float[Tensor, "n restart"]) -> Float[Tensor, " restart"]:
    p, q = torch.sigmoid(x), torch.sigmoid(y)
    return ((p + q - 1).square() + torch.minimum(p, q).square()).mean(0)
