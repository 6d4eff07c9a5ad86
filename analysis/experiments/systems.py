"""What may write the answers of a task: the upstream alone, best of n, and every trained method (Fig 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from corrector.decoding.proxy import proxy
from corrector.decoding.scoring import target_logprobs
from corrector.errors import UserError
from corrector.loop import Alignment, Mode, align
from corrector.models import LanguageModel, load, references
from corrector.recipes import KNOWN, recipe
from corrector.tasks.base import Problem, Task
from corrector.upstreams import LocalUpstream, derived_seed

Method = Literal["upstream", "best-of-n", "stream", "aligner", "sft", "dpo", "proxy"]
UNTRAINED: tuple[Method, ...] = ("upstream", "best-of-n")
"""Methods that train nothing, so have no training seed."""
EXPERTS = ("expert", "antiexpert")
SIZE = {"arithmetic": "-s"}
"""The size of a task's correctors that are compared, where it has several."""


@dataclass(frozen=True)
class Stage:
    """What all methods share: task, problems, upstream, how answers are bounded and decoded."""

    task: Task
    upstream: LocalUpstream
    max_rounds: int
    max_tokens: int
    template: str
    device: str
    dtype: str

    def load(self, ref: str) -> LanguageModel:
        """A model by its name, as the stage has them."""
        return load(ref, self.template, self.device, self.dtype)

    def answers(self, problems: Sequence[Problem], mode: Mode, lm: LanguageModel | None = None) -> list[Alignment]:
        """The loop in one mode; in mode `upstream` a model that is given writes in the upstream's place."""
        writer = replace(self.upstream, lm=lm) if lm and mode == "upstream" else self.upstream
        return align(
            problems,
            writer,
            lm if mode != "upstream" else None,
            task=self.task,
            mode=mode,
            max_rounds=self.max_rounds,
            max_tokens=self.max_tokens,
            batch_size=self.upstream.batch_size,
        )


def names(method: Method, task: str, seed: int) -> tuple[str, ...]:
    """The checkpoints that a method needs of a task and training seed, by the recipes' names."""
    size = SIZE.get(task, "")
    if method in UNTRAINED:
        return ()
    if method == "stream":
        return (f"{task}{size}" if size and seed == 0 else f"{task}{size}-{seed}",)
    return tuple(f"{task}-{m}{size}-{seed}" for m in (EXPERTS if method == "proxy" else (method,)))


def trained(name: str, retrain: bool) -> str | None:
    """Where the checkpoint of a recipe is: shipped or in runs/train-<name>; None where it is nowhere.

    With `retrain` it is the one in runs/, trained now (or resumed) where it is not finished.
    """
    folder = _folder(name)
    if retrain:
        return str(_train(name))
    if name in references():
        return name
    return str(folder) if (folder / "card.json").is_file() else None


def _folder(name: str) -> Path:
    return Path("runs") / f"train-{name}"


def _train(name: str) -> Path:
    """The finished checkpoint of a recipe, and of the one that it starts from before it."""
    from corrector.train import run_resolved

    folder, config = _folder(name), recipe(name)
    if not (folder / "card.json").is_file():
        for start in KNOWN:
            if config.init == str(_folder(start)):
                _train(start)
        run_resolved(replace(config, recipe=name, out=folder))
    return folder


def best_of(stage: Stage, problems: Sequence[Problem], n: int, temperature: float) -> list[Alignment]:
    """Of `n` sampled answers of the upstream the one with the largest mean log-likelihood a token, by the upstream.

    They are drawn at `temperature`, since a greedy upstream has one answer only; UserError where that is 0.
    """
    if temperature <= 0 or n < 2:
        raise UserError(
            f"best-of-n with n={n} at temperature {temperature:g} has one answer to choose from; choose --n 2 or "
            "more and a --sampling above 0, or leave best-of-n out of --method"
        )
    up = replace(stage.upstream, temperature=temperature)
    stages = [replace(stage, upstream=replace(up, seed=derived_seed(up.seed, "best-of-n", j))) for j in range(n)]
    drawn = [each.answers(problems, "upstream") for each in stages]
    scores = np.array([likelihoods(up.lm, answers, up.batch_size) for answers in drawn])
    return [drawn[j][i] for i, j in enumerate(scores.argmax(0))]


def likelihoods(lm: LanguageModel, answers: Sequence[Alignment], batch_size: int) -> list[float]:
    """Mean log p a token of each answer behind its question; -inf of an empty answer."""
    ids = [list(lm.tokenizer(a.answer, add_special_tokens=False)["input_ids"]) for a in answers]
    some = [i for i, tokens in enumerate(ids) if tokens]
    prompts = [lm.encode_upstream(answers[i].problem.question, "") for i in some]
    scored = target_logprobs(lm, prompts, [ids[i] for i in some], batch_size=batch_size)
    out = [-np.inf] * len(ids)
    for i, logprobs in zip(some, scored, strict=True):
        out[i] = float(logprobs.mean())
    return out


def chosen_alpha(
    stage: Stage, experts: Sequence[LanguageModel], alphas: Sequence[float], problems: Sequence[Problem]
) -> tuple[float, dict[str, float]]:
    """Of proxy-tuning's alphas the one with the best sum of outcomes on validation problems, and every alpha's sum."""
    if len(alphas) == 1:
        return alphas[0], {}
    sums: dict[str, float] = {}
    for alpha in alphas:
        answers = stage.answers(problems, "upstream", proxy(stage.upstream.lm, experts[0], experts[1], alpha))
        sums[f"{alpha:g}"] = float(np.mean([sum(outcomes_of(stage.task, a).values()) for a in answers]))
    best = max(range(len(alphas)), key=lambda i: sums[f"{alphas[i]:g}"])
    return alphas[best], sums


def outcomes_of(task: Task, answer: Alignment) -> dict[str, float]:
    """The outcomes that the task is scored by, without what its grader counts beside them."""
    return {name: answer.outcomes[name] for name in task.outcomes}


def sizes(stage: Stage, models: Sequence[LanguageModel], mode: Mode) -> dict[str, Any]:
    """Parameters of what was trained, and of all that runs when an answer is written."""
    n_trained = sum(int(lm.model.num_parameters()) for lm in models)
    alone = mode == "upstream" and len(models) == 1
    n_upstream = 0 if alone else int(stage.upstream.lm.model.num_parameters())
    return {"n_trained": n_trained, "n_parameters": n_trained + n_upstream}
