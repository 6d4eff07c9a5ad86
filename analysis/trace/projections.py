"""What the unsteered corrector's states say of every token: projections on the correction direction, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from corrector.display.diff import diff, joined
from corrector.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from corrector.models import LanguageModel
    from probes.spans import Sequence as Tokens
    from steering.vectors import SteeringVector

Row = Mapping[str, Any]
DIGITS = 3
LIMIT = 98
"""Percentile of |projection| at which the colour scale ends."""


@dataclass(frozen=True)
class Read:
    """Tokens of one text and their projections h·u [layer, token], u = v / ‖v‖; `ends` with the end token or not."""

    tokens: list[str]
    values: Any
    ends: bool = False


@dataclass(frozen=True)
class Traced:
    """One item: its `last` and the prompt's last token, and every correction of it that was recorded, once each.

    `at[stop]` is the correction of a stop; None where it has no tokens, and `absent[stop]` says why.
    """

    item: int
    last: Read
    prompt_last: Read
    norms: Any
    """‖h‖ of the prompt's last token, layer by layer."""
    corrections: list[Read]
    at: list[int | None]
    absent: dict[int, str]


def traces(
    run: Path, config: Mapping[str, Any], task: str, items: Sequence[Sequence[Row | None]], n_of: int, device: str
) -> dict[str, Any]:
    """Projections of the items, each given as its rows at the stops of the slider (None: no such row).

    In units of the layer's mean residual norm ‖h‖ (as `dose` is), counted from the threshold on the vector's card,
    or from the mean of the traced prompts' last tokens where the card has none. `{"absent": reason}` where the run has
    no vector or its corrector cannot be had. `n_of` is how many items the run has.
    """
    try:
        lm, vector = _models(run, config, task, device)
        found = [_trace(lm, vector, rows) for rows in tqdm(items, desc=f"{task}: projections", unit="item")]
    except UserError as error:
        return {"absent": str(error)}
    centre, unit, words = _scale(vector, found)
    out = {str(of.item): _plain(of, centre, unit) for of in found}
    parts = [part for of in out.values() for part in (of["last"], *of["corrections"])]
    every = np.abs(np.array([x for part in parts for layer in part["values"] for x in layer]))
    return {
        "layers": list(vector.layers),
        "limit": max(round(float(np.percentile(every, LIMIT)), DIGITS), 10.0**-DIGITS),
        "within": LIMIT,
        "words": f"{words} Read at {vector.site} of {_name(vector.ref)}, unsteered.",
        "n": len(found),
        "of": n_of,
        "items": out,
    }


def pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each token behind those before it, since some tokenizers drop the space of a first one."""
    texts = [str(tokenizer.decode(list(ids[:i]))) for i in range(len(ids) + 1)]
    return [after[len(before) :] for before, after in pairwise(texts)]


def aligned(last: Sequence[str], correction: Sequence[str]) -> list[list[int]]:
    """Columns of a token diff: [i, j, same] of `last` token i over `correction` token j, -1 where one has none.

    Tokens are the same whatever blank stands before the first one of either.
    """
    out: list[list[int]] = []
    i = j = 0
    for part in joined(diff(_bare(last), _bare(correction))):
        a, b = len(part.last), len(part.correction)
        for k in range(max(a, b)):
            out.append([i + k if k < a else -1, j + k if k < b else -1, int(part.kind == "equal")])
        i, j = i + a, j + b
    return out


def _bare(tokens: Sequence[str]) -> list[str]:
    return [tokens[0].lstrip(), *tokens[1:]] if tokens else []


def _models(run: Path, config: Mapping[str, Any], task: str, device: str) -> tuple[LanguageModel, SteeringVector]:
    """The run's corrector and vector; UserError where there is none, or one is not of the other."""
    from corrector.models import load
    from steering.vectors import SteeringVector

    file = run / f"vector-{task}.safetensors"
    if not file.is_file():
        raise UserError(f"the run holds no {file.name}")
    vector = SteeringVector.load(file)
    lm = load(config.get("corrector") or task, config.get("template") or "", device, config.get("dtype", "float32"))
    vector.check(lm)
    return lm, vector


def _trace(lm: LanguageModel, vector: SteeringVector, rows: Sequence[Row | None]) -> Traced:
    """Read one item: its prompt, and every correction teacher-forced behind it. All of its states leave with it."""
    from corrector.tasks.base import Pair
    from probes.capture import capture_tokens
    from probes.sites import check_site
    from probes.spans import Sequence as Tokens
    from probes.spans import sequence

    first = next(row for row in rows if row is not None)
    pair = Pair(str(first["problem"]), first["question"], first["prefix"], first["last"], "")
    prompt = sequence(lm, pair)
    start, end = prompt.spans["last"][0], len(prompt)
    asked: list[Tokens] = [Tokens(prompt.ids, {"traced": (start, end)}, pair.problem)]
    places: dict[tuple[str, bool], int] = {}
    ends = [False]
    at, absent = list[int | None](), dict[int, str]()
    for stop, row in enumerate(rows):
        key = (row["correction"], bool(row.get("ended", True))) if row else ("", False)
        if key not in places and (read := _forced(lm, pair, *key)) is not None:
            places[key] = len(asked) - 1
            asked.append(read)
            ends.append(key[1])
        at.append(places.get(key))
        if key not in places:
            absent[stop] = "no row" if row is None else "the corrector's tokenizer has no tokens for this text"
    states = capture_tokens(lm, asked, check_site(vector.site), list(vector.layers), "traced", batch_size=8)
    values = [_project(h, vector) for h in states]
    tokens = [pieces(lm.tokenizer, s.ids[slice(*s.spans["traced"])]) for s in asked]
    read = [Read(*of) for of in zip(tokens, values, ends, strict=True)]
    n_last = prompt.spans["last"][1] - start
    return Traced(
        int(first["item"]),
        Read(read[0].tokens[:n_last], values[0][:, :n_last]),
        Read(read[0].tokens[-1:], values[0][:, -1:]),
        states[0][:, -1].norm(dim=-1).numpy(),
        read[1:],
        at,
        absent,
    )


def _forced(lm: LanguageModel, pair: Any, correction: str, ended: bool) -> Tokens | None:
    """The prompt with a correction behind it, and the end token where it was written; None without such tokens."""
    from probes.spans import Sequence as Tokens
    from probes.spans import sequence

    try:
        whole = sequence(lm, pair, target=correction)
    except UserError:  # a collapsed correction may hold what a closed vocabulary cannot spell
        return None
    start, end = whole.spans["output"]
    end -= not ended
    return Tokens(whole.ids, {"traced": (start, end)}, pair.problem) if end > start else None


def _project(h: Float[Tensor, "layer token d"], vector: SteeringVector) -> Any:
    """h·u of every layer and token, float64."""
    import torch

    u = torch.stack([vector.at(k).double() / vector.at(k).double().norm() for k in vector.layers])
    return torch.einsum("ltd,ld->lt", h.double(), u).numpy()


def _scale(vector: SteeringVector, found: Sequence[Traced]) -> tuple[Any, Any, str]:
    """What is taken off and divided by, [layer, 1] each, and both in words."""
    from steering.sweeping.doses import mean_norms

    norms = mean_norms(vector.card)
    known = all(k in norms for k in vector.layers)
    unit = [norms[k] for k in vector.layers] if known else np.mean([of.norms for of in found], axis=0)
    words = "Unit: the layer's mean residual norm ‖h‖, as of a dose"
    words += "." if known else f" (here of the {len(found)} traced prompts, the card has none)."
    thresholds = [vector.card.get("layers", {}).get(str(k), {}).get("threshold") for k in vector.layers]
    if all(x is not None for x in thresholds):
        centre: Any = thresholds
        words += f" 0 is the threshold on the vector's card, between the classes at {vector.span}."
    else:
        centre = np.mean([of.prompt_last.values[:, 0] for of in found], axis=0)
        words += f" 0 is the mean over the prompts' last tokens of the {len(found)} traced items (the card names no"
        words += " threshold)."
    return (
        np.reshape(np.asarray(centre, dtype=float), (-1, 1)),
        np.reshape(np.asarray(unit, dtype=float), (-1, 1)),
        words,
    )


def _plain(of: Traced, centre: Any, unit: Any) -> dict[str, Any]:
    """One item in JSON's types; the columns of a correction end with its end token (same = 2), where it has one."""

    def scaled(read: Read) -> dict[str, Any]:
        return {"tokens": read.tokens, "values": np.round((read.values - centre) / unit, DIGITS).tolist()}

    def columns(read: Read) -> list[list[int]]:
        n = len(read.tokens) - read.ends
        return [*aligned(of.last.tokens, read.tokens[:n]), *([[-1, n, 2]] * read.ends)]

    return {
        "last": scaled(of.last),
        "prompt_last": scaled(of.prompt_last),
        "corrections": [{**scaled(part), "columns": columns(part)} for part in of.corrections],
        "at": of.at,
        "absent": {str(stop): reason for stop, reason in of.absent.items()},
    }


def _name(ref: str) -> str:
    """A model's name without the folders of the machine it was on."""
    return Path(ref).name if Path(ref).is_absolute() else ref
