"""The one batched decoder: greedy or seeded sampling, with an optional intervention.

Greedy results equal HF `generate` token for token, whatever the batch, its order and its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
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
    """What the decoder needs of an intervention. Rows are indices into the prompts given to the decoder.

    For every batch the decoder calls `begin` once, `forward` before each forward of the model, and `keep` when rows
    leave. Positions are absolute: 0 is a row's first real token, with or without cache and padding.
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
        """Only these live rows go on."""
        ...

    def expected(self, row: int, n_fed: int) -> int:
        """Applications due once a row's first n_fed tokens were fed, from lengths alone."""
        ...


@dataclass(frozen=True)
class Output:
    """Tokens a row wrote, end token left out; `ended`: it wrote that; `applied`: its steered tokens x layers."""

    ids: tuple[int, ...]
    ended: bool
    applied: int = 0


@dataclass(frozen=True)
class _Plan:
    """What holds for every row of one call."""

    lm: LanguageModel
    prompts: Sequence[Encoded]
    max_new_tokens: int
    steering: Steering | None
    temperature: float
    seeds: Sequence[int] | None
    stop: Stop | None


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
) -> list[Output]:
    """Continue every prompt until its end token, `max_new_tokens` or `stop(ids)`; outputs in the prompts' order.

    Temperature 0 is greedy (argmax in float32). Otherwise row i draws from its own generator, seeded by `seeds[i]`,
    so a row's output does not depend on its neighbours. `stop` sees the tokens written so far, the newest included.
    Raises UserError for impossible arguments and for logits that are NaN; RuntimeError when the applications of
    `steering` are not the expected number.
    """
    outputs: dict[int, Output] = {}
    for rows, done in decode_batches(
        lm,
        prompts,
        max_new_tokens=max_new_tokens,
        steering=steering,
        temperature=temperature,
        seeds=seeds,
        batch_size=batch_size,
        stop=stop,
        progress=progress,
    ):
        outputs |= dict(zip(rows, done, strict=True))
    return [outputs[i] for i in range(len(prompts))]


def decode_batches(
    lm: LanguageModel,
    prompts: Sequence[Encoded],
    *,
    max_new_tokens: int,
    steering: Steering | None = None,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
    stop: Stop | None = None,
    skip: Collection[int] = (),
    progress: str = "",
) -> Iterator[tuple[list[int], list[Output]]]:
    """`decode`, batch by batch as `batches` orders them: yields (indices into prompts, their outputs).

    A batch whose rows are all in `skip` is left out; one that is partly in it is decoded whole, so that a resumed
    run forms the same batches as a clean one. No hook is on the model while the generator waits.
    """
    check_request(lm, prompts, max_new_tokens, temperature, seeds)
    plan = _Plan(lm, prompts, max_new_tokens, steering, temperature, seeds, stop)
    done = frozenset(skip)
    return _run(plan, [b for b in batches(prompts, batch_size) if not done.issuperset(b)], progress)


def batches(prompts: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Indices of the prompts by length (ties in input order), cut into batches: the decoder's own order."""
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


def _run(plan: _Plan, todo: list[list[int]], progress: str) -> Iterator[tuple[list[int], list[Output]]]:
    from tqdm.auto import tqdm

    with tqdm(total=sum(map(len, todo)), desc=progress, unit="row", disable=not progress) as bar:
        for rows in todo:
            outputs = _decode_batch(plan, rows)
            bar.update(len(rows))
            yield rows, outputs


@torch.inference_mode()
def _decode_batch(plan: _Plan, rows: list[int]) -> list[Output]:
    from transformers import DynamicCache

    lm, steering = plan.lm, plan.steering
    prompts = [plan.prompts[r] for r in rows]
    ids, mask, positions = left_pad([p.ids for p in prompts], lm)
    cache = DynamicCache(config=lm.model.config)
    seeds = plan.seeds if plan.temperature > 0 else None
    draws = [torch.Generator().manual_seed(seeds[r]) for r in rows] if seeds is not None else []
    written: list[list[int]] = [[] for _ in rows]
    outputs: dict[int, Output] = {}
    live = list(range(len(rows)))
    with steering.attach(lm.model) if steering else nullcontext():
        if steering:
            steering.begin(rows, prompts)
        while live:
            if steering:
                steering.forward(positions, mask[:, -positions.shape[1] :])
            logits = lm.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens = _choose(logits, plan.temperature, [draws[i] for i in live] if draws else [])
            kept: list[int] = []
            for j, (i, token) in enumerate(zip(live, tokens, strict=True)):
                ended = token == lm.eos_id
                if not ended:
                    written[i].append(token)
                full = len(written[i]) == plan.max_new_tokens
                if ended or full or (plan.stop is not None and plan.stop(written[i])):
                    n_fed = len(prompts[i]) + len(written[i]) - (not ended)
                    applied = checked_applied(steering, j, rows[i], n_fed) if steering else 0
                    outputs[i] = Output(tuple(written[i]), ended, applied)
                else:
                    kept.append(j)
            if len(kept) < len(live):
                index = torch.tensor(kept, dtype=torch.long, device=lm.device)
                live, mask, positions = [live[j] for j in kept], mask[index], positions[index]
                if live:
                    cache.batch_select_indices(index)
                    if steering:
                        steering.keep(index)
            ids = torch.tensor([[tokens[j]] for j in kept], dtype=torch.long, device=lm.device)
            positions = positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
    return [outputs[i] for i in range(len(rows))]


def left_pad(
    sequences: Sequence[Sequence[int]], lm: LanguageModel
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"], Int[Tensor, "batch seq"]]:
    """Token ids padded on the left, which slots are real, and each slot's absolute position (0 in the padding)."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*[lm.eos_id] * (longest - len(s)), *s] for s in sequences], device=lm.device)
    n_pad = torch.tensor([longest - len(s) for s in sequences], device=lm.device)
    slots = torch.arange(longest, device=lm.device)[None]
    return ids, slots >= n_pad[:, None], (slots - n_pad[:, None]).clamp(min=0)


def _choose(logits: Float[Tensor, "live vocab"], temperature: float, draws: list[torch.Generator]) -> list[int]:
    """Argmax, or the inverse of the cumulative distribution at one uniform draw a row."""
    wide = logits.float()
    top, tokens = wide.max(dim=-1)
    if bool(top.isnan().any()):
        raise UserError("logits are NaN, so the model computes no next token; use a smaller --coef or --dtype float32")
    if not draws:
        return tokens.tolist()
    steps = (wide.double() / temperature).softmax(-1).cumsum(-1).cpu()
    u = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in draws])
    found = torch.searchsorted(steps, u * steps[:, -1:], right=True)
    return found.squeeze(1).clamp(max=steps.shape[1] - 1).tolist()


def checked_applied(steering: Steering, live: int, row: int, n_fed: int) -> int:
    """The applications counted for a row; RuntimeError unless they are the expected number."""
    applied, expected = int(steering.applied[live]), steering.expected(row, n_fed)
    if applied != expected:
        raise RuntimeError(
            f"row {row}: the intervention was applied {applied} times where {expected} were due in {n_fed} tokens; "
            "its hooks do not reach the model's blocks as they should"
        )
    return applied
