"""States of items while something is erased, and erasers of several layers, each fitted under the ones before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from corrector.decoding import Steering, checked_applied
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded
from probes.backends import Backend, Batch, Point, Visit
from probes.backends.hooks import hooked
from probes.capture import capture_tokens
from probes.erasure.erasers import Eraser, leace, mean_projection, random_eraser, shuffled_labels
from probes.erasure.matched import complement, size_matched
from probes.spans import Sequence as Tokens


def fit_eraser(
    method: str, h: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], generator: torch.Generator, size: float = 0.0
) -> Eraser:
    """An eraser by the name of its fit; `random` has the rank of a binary concept's, 1, `matched` moves `size`.

    Raises UserError for another name, and as the fit does.
    """
    fits: dict[str, Callable[[], Eraser]] = {
        "leace": lambda: leace(h, labels),
        "mean_projection": lambda: mean_projection(h, labels),
        "shuffled_labels": lambda: shuffled_labels(h, labels, generator),
        "complement": lambda: complement(h, labels),
        "matched": lambda: size_matched(h, labels, size, generator),
        "random": lambda: random_eraser(h, 1, generator),
    }
    if method not in fits:
        raise UserError(f"method={method!r} is not one of {', '.join(fits)}; choose among them")
    return fits[method]()


@dataclass(frozen=True)
class Items:
    """Sequences, the absolute positions that are read in each, and whether the corrector rewrites it."""

    sequences: Sequence[Tokens]
    places: Sequence[Sequence[int]]
    rewritten: Bool[Tensor, " n"]

    def states(
        self, lm: LanguageModel, layers: Sequence[int], steering: Steering | None = None
    ) -> list[Float[Tensor, "layer token d"]]:
        """Outputs of blocks at each item's positions while an intervention is on, read as the intervention left them.

        RuntimeError where it was not applied as often as due; UserError for an item without a position.
        """
        if empty := [i for i, place in enumerate(self.places) if not place]:
            raise UserError(f"item {empty[0]} has no token to read; choose a --span that every item has")
        both = list(zip(self.sequences, self.places, strict=True))
        cut = [Tokens(s.ids[: p[-1] + 1], {"read": (p[0], p[-1] + 1)}, s.problem) for s, p in both]
        prompts = {c.ids: Encoded(c.ids, s.spans) for c, s in zip(cut, self.sequences, strict=True)}
        backend = hooked if steering is None else _under(steering, prompts)
        tokens = capture_tokens(lm, cut, "resid_post", list(layers), "read", backend=backend)
        return [h[:, [x - p[0] for x in p]] for h, p in zip(tokens, self.places, strict=True)]


def fit_in_order(
    lm: LanguageModel,
    items: Items,
    plain: Mapping[int, Float[Tensor, "token d"]],
    layers: Sequence[int],
    name: str,
    seed: int,
    intervene: Callable[[dict[int, Eraser]], Steering],
    sizes: Mapping[int, float] | None = None,
) -> dict[int, Eraser]:
    """Erasers of `layers`, each fitted on all tokens of the items while the layers before it are erased.

    `plain` are the states with nothing erased, `intervene` turns erasers into an intervention. `name` is a method with
    a number behind it at will, random-03; draws depend on seed, model, name and layer alone. `sizes` are what `matched`
    is to move at each layer. Source: 2306.03819, 6.
    """
    out: dict[int, Eraser] = {}
    n_tokens = torch.tensor([len(place) for place in items.places])
    for k in layers:
        h = torch.cat([x[0] for x in items.states(lm, [k], intervene(out))]) if out else plain[k]
        digest = hashlib.sha256(f"{seed}/{lm.fingerprint}/{name}/{k}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8]) >> 1)
        labels = items.rewritten.repeat_interleave(n_tokens)
        out[k] = fit_eraser(name.split("-")[0], h, labels, generator, (sizes or {}).get(k, 0.0))
    return out


def _under(steering: Steering, prompts: Mapping[tuple[int, ...], Encoded]) -> Backend:
    """The hooked backend over an intervention; a backend is told no row's name, so rows are known by their ids."""

    def run(lm: LanguageModel, batch: Batch, wanted: list[Point], visit: Visit) -> None:
        rows = [tuple(ids[real].tolist()) for ids, real in zip(batch.ids, batch.mask, strict=True)]
        # Hooks run in the order they were put on, so what is read is what was written.
        with steering.attach(lm.model):
            steering.begin(range(len(rows)), [prompts[row] for row in rows])
            steering.forward(batch.positions, batch.mask)
            hooked(lm, batch, wanted, visit)
        for i, row in enumerate(rows):
            checked_applied(steering, i, i, len(row))

    return run
