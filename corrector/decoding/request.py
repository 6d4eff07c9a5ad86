"""What is asked of a decoder, what it gives, and what it needs of an intervention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded

Stop = Callable[[list[int]], bool]


@runtime_checkable
class Steering(Protocol):
    """What plain decoding needs of an intervention. Rows are indices that the caller gives its prompts.

    For every batch `begin` is called once, `forward` before each forward of the model, and `keep` when rows leave.
    Positions are absolute: 0 is a row's first real token, with or without cache and padding.
    """

    @property
    def applied(self) -> Int[Tensor, " live"]:
        """Applications so far (tokens x layers) of each live row, counted where the hooks write."""
        ...

    def attach(self, model: Any) -> AbstractContextManager[Any]:
        """Install the hooks; leaving removes them."""
        ...

    def begin(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        """A new batch; counts restart."""
        ...

    def forward(self, position_ids: Int[Tensor, "live seq"], real: Bool[Tensor, "live seq"]) -> None:
        """The next forward feeds these positions; padding is not real."""
        ...

    def keep(self, index: Int[Tensor, " kept"]) -> None:
        """Only these live rows go on, in this order."""
        ...

    def expected(self, row: int, n_fed: int) -> int:
        """Applications due once a row's first n_fed tokens were fed, from lengths alone."""
        ...


@runtime_checkable
class LiveSteering(Steering, Protocol):
    """What decoding with drafts and rows that come and go needs besides."""

    @property
    def n_below(self) -> int:
        """How many blocks, from the first, give the same whatever it does."""
        ...

    def admit(self, rows: Sequence[int], prompts: Sequence[Encoded]) -> None:
        """More rows behind the live ones; their counts start at 0."""
        ...

    def forward(self, position_ids: Int[Tensor, "fed seq"], real: Bool[Tensor, "fed seq"], first: int = 0) -> None:
        """The next forward feeds these positions of the live rows first, first + 1, ..."""
        ...

    def pass_by(self, position_ids: Int[Tensor, "fed seq"]) -> None:
        """The next forward feeds rows that are not the steering's."""
        ...

    def retract(self, n_fed: Int[Tensor, " fed"]) -> None:
        """Of the rows of the last forward, what was fed at positions n_fed and beyond is taken back."""
        ...

    def reach(self, row: int, prompt: Encoded) -> int:
        """First absolute position at which the row is written to or read; what comes before is as unsteered."""
        ...


@dataclass(frozen=True)
class Output:
    """Tokens a row wrote, end token left out; `ended`: it wrote that; `applied`: its steered tokens x layers."""

    ids: tuple[int, ...]
    ended: bool
    applied: int = 0


def batches(prompts: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Indices of the prompts by length (ties in input order), cut into batches."""
    if batch_size < 1:
        raise UserError(f"batch_size={batch_size} is below 1; choose --batch-size 1 or more")
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def window(lm: LanguageModel) -> int | None:
    """Positions the model has (prompt and output together); None where its config names no limit."""
    return getattr(lm.model.config, "max_position_embeddings", None)


def fits_window(lm: LanguageModel, n_prompt: int, max_new_tokens: int) -> bool:
    """Whether a prompt and its output fit the model's positions."""
    limit = window(lm)
    return limit is None or n_prompt + max_new_tokens <= limit


def check_request(
    lm: LanguageModel, prompts: Sequence[Encoded], new: int, temperature: float, seeds: Sequence[int] | None
) -> None:
    """Raise UserError for a request that cannot be met: see `decode`."""
    if new < 1:
        raise UserError(f"max_new_tokens={new} is below 1; choose 1 or more")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature={temperature} is not a finite number >= 0; 0 is greedy")
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        n = "none" if seeds is None else len(seeds)
        raise UserError(f"seeds: got {n} for {len(prompts)} prompts; sampling needs one seed a prompt")
    if lm.model.training:
        raise UserError(f"model {lm.ref!r} is in training mode, where dropout draws; call model.eval() first")
    longest = max(map(len, prompts), default=0)
    if any(len(p) == 0 for p in prompts):
        raise UserError(f"prompt {[len(p) for p in prompts].index(0)} is empty; give every row at least one token")
    if not fits_window(lm, longest, new):
        raise UserError(
            f"a prompt of {longest} tokens and max_new_tokens={new} exceed the {window(lm)} positions of model "
            f"{lm.ref!r}; shorten one of them"
        )


def left_pad(
    sequences: Sequence[Sequence[int]], lm: LanguageModel
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Token ids padded on the left, which slots are real, and each slot's absolute position (0 in the padding)."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*[lm.eos_id] * (longest - len(s)), *s] for s in sequences], device=lm.device)
    n_pad = torch.tensor([longest - len(s) for s in sequences], device=lm.device)
    slots = torch.arange(longest, device=lm.device)[None]
    return ids, slots >= n_pad[:, None], (slots - n_pad[:, None]).clamp(min=0)


def greedy(logits: Float[Tensor, "*rows vocab"]) -> Int[Tensor, "*rows"]:
    """Argmax in float32; UserError for NaN."""
    top, tokens = logits.float().max(dim=-1)
    if bool(top.isnan().any()):
        raise UserError("logits are NaN, so the model computes no next token; use a smaller --coef or --dtype float32")
    return tokens


def draw(logits: Float[Tensor, " vocab"], temperature: float, generator: torch.Generator) -> int:
    """The inverse of the cumulative distribution (float64) at one uniform draw."""
    steps = (logits.double() / temperature).softmax(-1).cumsum(-1).cpu()
    u = torch.rand(1, generator=generator, dtype=torch.float64)
    return int(torch.searchsorted(steps, u * steps[-1:], right=True).clamp(max=len(steps) - 1))


def checked_applied(steering: Steering, live: int, row: int, n_fed: int) -> int:
    """The applications counted for a row; RuntimeError unless they are the expected number."""
    applied, expected = int(steering.applied[live]), steering.expected(row, n_fed)
    if applied != expected:
        raise RuntimeError(
            f"row {row}: the intervention was applied {applied} times where {expected} were due in {n_fed} tokens; "
            "its hooks do not reach the model's blocks as they should"
        )
    return applied
