"""Steering as a context manager on a bare Hugging Face model, and what it shares with the adapters."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from corrector.errors import UserError
from corrector.prompts import FIELDS, Encoded
from steering.interventions.banks import Coef, Vector
from steering.interventions.composition import Composition, Edit, compose
from steering.interventions.gates import Gate
from steering.interventions.tracking import Tracker


@dataclass
class Steered:
    """What a `steer` block did so far: forwards of the model, and applications (tokens x layers)."""

    forwards: int = 0
    applied: int = 0


def steer(
    model: Any,
    vector: Vector,
    coef: Coef = 1.0,
    layers: Sequence[int] | None = None,
    operator: str = "add",
    span: str = "prompt_last",
    prompt_lengths: Sequence[int] | None = None,
    *,
    site: str = "resid_post",
    head: int | None = None,
    gate: Gate | None = None,
    origin: Sequence[float] | None = None,
) -> AbstractContextManager[Steered]:
    """Steer a bare Hugging Face model while the block lasts: plain forwards and `generate`, cached or not.

    h ← operator(h, v, coef) in each of `layers`, at the tokens of `span`; all else as `Edit` says. See `steer_all`.
    """
    edit = Edit(vector, coef, layers, operator, span, site, head, gate, origin)
    return steer_all(model, [edit], prompt_lengths)


@contextmanager
def steer_all(model: Any, edits: Sequence[Edit], prompt_lengths: Sequence[int] | None = None) -> Generator[Steered]:
    """Steer a bare Hugging Face model with several vectors at once, in the order of the list.

    Positions are absolute: they are read from the attention mask and the cache on the top module, so left padding
    and a cache change nothing. The prompt is what the first forward of a sequence feeds (its real tokens, row by
    row); a forward with a cache, or one whose `input_ids` begin with the prompt's, continues it, and any other starts
    a new one. Give `prompt_lengths` (real tokens, one a row) where that is not so, as in teacher forcing.

    On leaving, the model is as before. Leaving without an exception raises RuntimeError when forwards ran and the
    hooks never fired, and UserError when no token of any forward lay in an edit's span: it had no effect. A gate that
    stayed closed is no error.
    """
    check_bare(edits)
    steering = compose(edits)
    with follow(model, steering, steering.attach(model), whole_prompts(steering), prompt_lengths) as record:
        yield record


Start = Callable[[tuple[int, ...]], None]
"""Called with the lengths of the prompts that begin."""


def check_bare(edits: Sequence[Edit]) -> None:
    """Raise UserError for spans that only a prompt with fields has."""
    for edit in edits:
        if any(name in edit.span.split("+") for name in FIELDS):
            raise UserError(
                f"span={edit.span!r} needs a prompt's fields; use decode(..., steering=Intervention(...)) instead"
            )


def whole_prompts(steering: Composition) -> Start:
    """Begin with prompts of which only the lengths are known."""

    def start(lengths: tuple[int, ...]) -> None:
        for p in steering.parts:
            if not p.shared and len(p.coef) != len(lengths):
                raise UserError(f"{len(p.coef)} coefficients for {len(lengths)} rows; give one a row, or one for all")
        prompts = [Encoded(tuple(range(n)), {"prompt": (0, n), "prompt_last": (n - 1, n)}) for n in lengths]
        steering.begin(range(len(lengths)), prompts)

    return start


@contextmanager
def follow(
    module: Any,
    steering: Composition,
    installed: AbstractContextManager[Any],
    start: Start,
    prompt_lengths: Sequence[int] | None = None,
) -> Generator[Steered]:
    """Tell `steering` of every forward of `module`, with `installed` hooks, and check on leaving that it acted."""
    record, tracker = Steered(), Tracker(prompt_lengths)

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        fed = tracker.read(module, args, kwargs)
        record.forwards += 1
        if fed.prompt_lengths is not None:
            start(fed.prompt_lengths)
        steering.forward(fed.positions, fed.real)

    with installed:
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
        try:
            yield record
        finally:
            handle.remove()
            record.applied = steering.total
    if record.forwards:
        _check_effect(steering, record.forwards)


def _check_effect(steering: Composition, forwards: int) -> None:
    for p in steering.parts:
        if not any(p.active):
            continue
        if p.calls == 0:
            raise RuntimeError(
                f"{forwards} forwards ran and no hook fired: the blocks that were hooked are not the ones that run"
            )
        if not p.reached:
            raise UserError(
                f"no token of the {forwards} forwards lay in span={p.span!r}, so nothing was steered; "
                "choose another span, or generate more tokens"
            )
