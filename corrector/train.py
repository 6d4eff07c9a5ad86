"""`python -m corrector.train`: train a corrector or an upstream, write the checkpoint and its card."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from corrector.draws import answers_hash, counted
from corrector.errors import UserError, run_cli
from corrector.heldout import Heldout, variant
from corrector.heldout import run as measure
from corrector.models import CARD, LanguageModel, load
from corrector.preference import prefer
from corrector.prompts import template
from corrector.recipes import Train, recipe
from corrector.tasks.base import Problem, Task, data_hash
from corrector.tokenizers import bpe_tokenizer, word_tokenizer
from corrector.training import STATE, train

BESIDE_WEIGHTS = ("out", "save_every", "evaluate")
"""Fields that do not change the weights, so a resumed run may differ in them."""
TAUGHT = ("unit", "identity", "warmup", "noise")
"""Fields that say which corrections a stream corrector is taught."""


def resolve(config: Train) -> Train:
    """A recipe with the fields that differ from their defaults laid over it."""
    if not config.recipe:
        return config
    given = {
        f.name: getattr(config, f.name) for f in dataclasses.fields(config) if getattr(config, f.name) != f.default
    }
    return replace(recipe(config.recipe), **given)


def given_recipe() -> Train:
    """The recipe that the command line names, so that every other flag changes it, also one equal to its default."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--recipe", default="")
    name = parser.parse_known_args()[0].recipe
    return replace(recipe(name), recipe=name) if name else Train()


def training_texts(task: Task, n: int = 4000) -> list[str]:
    """Prompts, answers and corrections of the train split, from which a tokenizer's vocabulary is taken."""
    texts: list[str] = []
    for problem in task.problems("train", min(n, task.size("train"))):
        rng = random.Random(f"vocabulary/{problem.id}")
        texts += [problem.question, *(span for span, _ in task.upstream_spans(problem, rng))]
        for step in task.example(problem, rng).steps:
            texts += [step.chosen, *(t for p in step.branches for t in (p.prefix, p.last, p.correction))]
    return texts


def plain_texts(task: Task, n: int = 2000) -> list[str]:
    """Questions and corrected answers of the train split: what subwords are counted on, each text once."""
    problems = task.problems("train", min(n, task.size("train")))
    answers = [task.example(p, random.Random(f"vocabulary/{p.id}")).answer for p in problems]
    return [*(p.question for p in problems), *answers]


def new_model(config: Train, task: Task) -> LanguageModel:
    """A Llama-style model from scratch, seeded, with a tokenizer of the task's own."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if config.vocabulary:
        tokenizer = bpe_tokenizer(plain_texts(task), config.vocabulary)
    else:
        tokenizer = word_tokenizer(training_texts(task))
    torch.manual_seed(config.seed)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.d,
        "intermediate_size": config.ff,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "attn_implementation": "eager",
    }
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    return LanguageModel(model, tokenizer, template("lab"), "new")


def run(config: Train) -> Path:
    """Train by a config, or by the recipe that it names and changes; return the checkpoint's folder."""
    return run_resolved(resolve(config))


def run_resolved(config: Train) -> Path:
    """Train by a config whose every field counts, save the checkpoint with its card, return its folder."""
    _check(config)
    kind = config.makes if config.method == "stream" else config.method
    name = config.recipe or f"{config.task}-{kind}-{config.seed}"
    out = config.out if config.out != Path() else Path("runs") / f"train-{name}"
    work = Path("runs") / f"train-{name}.work" if config.out == Path() else out.with_name(out.name + ".work")
    task = variant(config.task, config.data, config.opener, config.unit)
    _guard(work, out, config)
    lm = load(config.init) if config.init else new_model(config, task)
    pool = task.problems("train", min(config.pool, task.size("train")))
    fit = prefer if config.method == "dpo" else train
    result = fit(lm, task, pool, config, work)
    save(lm, out, card_of(config, task, lm, pool, result))
    if config.evaluate:
        measure(Heldout(out, config.data, config.evaluate))
    shutil.rmtree(work)
    print(f"wrote {out}")
    return out


def _check(config: Train) -> None:
    """Raise UserError for numbers that cannot be trained with, and for settings that the method has no use for."""
    if config.steps < 1 or config.batch < 1:
        raise UserError(f"steps={config.steps}, batch={config.batch}: both must be at least 1")
    if config.method != "stream" and config.role == "upstream":
        raise UserError(f"--role upstream --method {config.method}: leave one of them out, since the method says it")
    if config.method == "dpo" and not config.init:
        raise UserError("method='dpo' starts from an upstream that writes answers; give --init, or use --method sft")
    for name in ("identity", "warmup", "noise"):
        if not 0 <= (share := getattr(config, name)) <= 1:
            raise UserError(f"{name}={share} is no share; choose --{name} in 0..1")
    changed = [name for name in TAUGHT if getattr(config, name) != getattr(Train(), name)]
    if changed and (config.method != "stream" or config.role == "upstream"):
        raise UserError(
            f"{changed[0]}={getattr(config, changed[0])} is of correctors that --method stream trains; leave it out"
        )


def _guard(work: Path, out: Path, config: Train) -> None:
    """Resume only under the config that began, as far as it decides the weights; replace only a checkpoint."""
    if out.exists() and not (out / CARD).is_file():
        raise UserError(f"{out} exists and is no checkpoint with a {CARD}, so it is kept; choose another --out")
    record = work / "config.json"
    now = json.loads(json.dumps(asdict(config), default=str, sort_keys=True))
    if (work / STATE).is_file():
        if not record.is_file():
            raise UserError(f"{work} has a state but no config.json; delete it, or choose another --out")
        # A field that came later had its default.
        began = json.loads(json.dumps(asdict(Train()), default=str)) | json.loads(record.read_text())
        if changed := [k for k in now if k not in BESIDE_WEIGHTS and began[k] != now[k]]:
            raise UserError(
                f"{work} holds a half-trained run of another config (other: {', '.join(changed)}); "
                "delete it, or choose another --out"
            )
    work.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(now, indent=1))


def card_of(
    config: Train, task: Task, lm: LanguageModel, pool: list[Problem], result: dict[str, float]
) -> dict[str, Any]:
    """What a checkpoint says of itself: recipe, seed, minutes, data; held-out scores come once it is saved.

    `answers_hash` is equal for methods that drew the same questions and corrected answers.
    """
    sample = task.pairs("train", min(500, task.size("train")), config.seed)
    draws: dict[str, Any] = dict(counted(pool, config))
    if config.method != "stream" or config.role == "corrector":
        draws["answers_hash"] = answers_hash(pool, task, config)
    preference = {k: round(result[k], 4) for k in ("no_preference", "preferred") if k in result}
    return {
        "recipe": {k: v for k, v in asdict(config).items() if k != "out"} | {"data": Path(config.data).name},
        "role": config.makes,
        "method": config.method,
        "template": lm.template.name,
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "data_hash": data_hash(sample),
        "minutes": round(result["minutes"], 1),
        **draws,
        "trained_tokens": int(result["trained_tokens"]),
        **preference,
        "final_loss": round(result["loss"], 4),
        "torch": torch.__version__.split("+")[0],
        "model_organism": True,
        "note": "A miniature built so that the behaviour exists (a model organism); stored in float16.",
    }


def save(lm: LanguageModel, out: Path, card: dict[str, Any]) -> None:
    """Write model, tokenizer and card; the folder appears whole or not at all.

    Weights are stored as float16 safetensors, and `lm.model` is left rounded to them.
    """
    half = out.with_name(out.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    lm.model.to(torch.float16).save_pretrained(half)
    lm.tokenizer.save_pretrained(half)
    lm.model.to(torch.float32)
    weights = hashlib.sha256((half / "model.safetensors").read_bytes()).hexdigest()[:16]
    (half / CARD).write_text(json.dumps({**card, "weights_sha256": weights}, indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    half.replace(out)


if __name__ == "__main__":
    run_cli(Train, run_resolved, "corrector.train", given_recipe)
