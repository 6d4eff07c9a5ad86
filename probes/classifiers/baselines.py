"""What a probe must beat: surface features of the sentence, an untrained model, the model before its training."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float

from corrector.decoding.scoring import target_logprobs
from corrector.errors import UserError
from corrector.models import LanguageModel, references
from corrector.prompts import Encoded, token_ids
from corrector.tasks.base import Pair, Task
from corrector.upstreams import REPLAY
from probes.classifiers.items import Items
from probes.classifiers.labels import word_counts
from probes.classifiers.models import BAG_GRID, Fit, logistic, prior
from probes.spans import n_common

Column = Float[np.ndarray, "n k"]


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """Features by part, and the fit that reads them."""

    name: str
    features: Mapping[str, Column]
    fit: Fit = logistic


def surface(lm: LanguageModel, upstream: LanguageModel | None, task: Task, items: Items) -> list[Baseline]:
    """`prior` (no feature), `length` (characters of `last`), `position`, the two perplexities, `bag_of_words`.

    `position` is the sentence's number in the answer and the prefix's characters. `perplexity_corrector` is the mean
    negative log-likelihood of `last` in the corrector's own prompt, `perplexity_upstream` that of the upstream model
    writing it behind question and prefix (left out without one; see `nll_of_upstream`).
    """
    by: dict[str, Callable[[Sequence[Pair]], Column]] = {
        "prior": lambda pairs: np.zeros((len(pairs), 1)),
        "length": lambda pairs: np.array([[len(p.last)] for p in pairs], dtype=float).reshape(-1, 1),
        "position": partial(_position, task),
        "perplexity_corrector": partial(nll_in_prompt, lm),
    }
    if upstream is not None:
        by["perplexity_upstream"] = partial(nll_of_upstream, upstream)
    found = {name: {part: column(pairs) for part, pairs in items.parts.items()} for name, column in by.items()}
    out = [Baseline(name, features, prior if name == "prior" else logistic) for name, features in found.items()]
    bag = word_counts(items.train, items.parts)
    return [*out, Baseline("bag_of_words", bag, partial(logistic, grid=BAG_GRID, standardise=False))]


def nll_in_prompt(lm: LanguageModel, pairs: Sequence[Pair]) -> Float[np.ndarray, "n 1"]:
    """Mean -log p of the tokens of `last` in the corrector's prompt, in nats a token."""
    prompts: list[Encoded] = []
    targets: list[tuple[int, ...]] = []
    for pair in pairs:
        encoded = lm.encode(pair.question, pair.prefix, pair.last)
        start, end = encoded.spans["last"]
        prompts.append(Encoded(encoded.ids[:start], {}))
        targets.append(encoded.ids[start:end])
    return np.array([[-float(logp.mean())] for logp in target_logprobs(lm, prompts, targets)]).reshape(-1, 1)


def nll_of_upstream(lm: LanguageModel, pairs: Sequence[Pair]) -> Float[np.ndarray, "n 2"]:
    """Mean -log p of `last` behind question and prefix in the upstream's prompt, in nats a token; its unknown share.

    The text is tokenised whole, and what is scored is what follows the tokens shared with the prompt alone, so a
    token across the seam counts as written. A token that the upstream does not have it cannot write: such tokens are
    left out of the mean (0 where there is no other), and their share is the second column. Raises UserError for a
    question or prefix with such a token.
    """
    prompts: list[Encoded] = []
    targets: list[tuple[int, ...]] = []
    for pair in pairs:
        prompt = lm.encode_upstream(pair.question, pair.prefix)
        lead = " " if pair.prefix and not pair.prefix[-1].isspace() else ""
        text = lm.template.render_upstream(pair.question, pair.prefix + lead + pair.last).text
        whole = token_ids(lm.tokenizer, text)
        start = n_common(whole, list(prompt.ids))
        prompts.append(Encoded(tuple(whole[:start]), {}))
        targets.append(tuple(whole[start:]))
    rows: list[list[float]] = []
    for target, logp in zip(targets, target_logprobs(lm, prompts, targets), strict=True):
        known = torch.tensor([i != lm.tokenizer.unk_token_id for i in target])
        rows.append([float(-logp[known].mean()) if known.any() else 0.0, float((~known).double().mean())])
    return np.array(rows, dtype=float).reshape(-1, 2)


def untrained(lm: LanguageModel, seed: int = 0) -> LanguageModel:
    """A model of the same configuration, tokenizer and template with seeded random weights."""
    import transformers

    auto: type = transformers.AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = auto.from_config(lm.model.config, dtype=lm.model.dtype)
    fresh = model.to(lm.device).eval().requires_grad_(False)
    return LanguageModel(fresh, lm.tokenizer, lm.template, f"untrained {lm.ref}")


def as_corrector(model: LanguageModel, lm: LanguageModel) -> LanguageModel:
    """Another model under the corrector's template, so that both read the same text."""
    return dataclasses.replace(model, template=lm.template)


def default_upstream(task: Task) -> str:
    """The shipped upstream of a task; UserError where it has none."""
    name = task.upstream or f"{task.name}-upstream"
    if name == REPLAY or name not in references():
        raise UserError(f"task {task.name!r} ships no upstream model; name one by --upstream or --before")
    return name


def _position(task: Task, pairs: Sequence[Pair]) -> Float[np.ndarray, "n 2"]:
    def row(pair: Pair) -> list[float]:
        return [float(sum(bool(s.strip()) for s in task.sentences(pair.prefix))), float(len(pair.prefix))]

    return np.array([row(p) for p in pairs], dtype=float).reshape(-1, 2)
