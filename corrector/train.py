"""`python -m corrector.train`: train a corrector or an upstream, write the checkpoint and its card."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from corrector.errors import UserError, run_cli
from corrector.heldout import Heldout, variant
from corrector.heldout import run as measure
from corrector.models import CARD, LanguageModel, load
from corrector.prompts import template
from corrector.recipes import Train, recipe
from corrector.tasks.base import Problem, Task, data_hash
from corrector.training.checkpoints import save, stored_as
from corrector.training.distributed import Ranks, joined, leave
from corrector.training.draws import answers_hash, counted
from corrector.training.loop import train
from corrector.training.lora import check_lora, with_lora
from corrector.training.preference import prefer
from corrector.training.states import STATE
from corrector.training.tokenizers import bpe_tokenizer, word_tokenizer

BESIDE_WEIGHTS = ("out", "save_every", "evaluate", "store")
"""Fields that do not change the weights, so a resumed run may differ in them."""
TAUGHT = ("unit", "identity", "warmup", "noise")
"""Fields that say which corrections a stream corrector is taught."""
OWN_LOOP = ("device", "precision", "checkpointing", "accumulate", "shard", "lora_rank", "lora_merge")
"""Fields of the lab's own training loop, which trl's does not read."""


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
    """Train by a config whose every field counts, save the checkpoint with its card, return its folder.

    Of several processes the first alone writes; the others are done when the training is.
    """
    _check(config)
    kind = config.makes if config.method == "stream" else config.method
    name = config.recipe or f"{config.task}-{kind}-{config.seed}"
    out = config.out if config.out != Path() else Path("runs") / f"train-{name}"
    work = Path("runs") / f"train-{name}.work" if config.out == Path() else out.with_name(out.name + ".work")
    with joined(config.device) as ranks:
        _check_ranks(config, ranks)
        task = variant(config.task, config.data, config.opener, config.unit)
        _guard(work, out, config, ranks)
        lm = _start(config, task)
        lora = with_lora(lm, config)
        pool = task.problems("train", min(config.pool, task.size("train")))
        if config.method == "dpo":
            result = prefer(lm, task, pool, config, work)
        else:
            result = train(lm, task, pool, config, work, ranks)
    if not ranks.first:
        return out
    card = card_of(config, task, lm, pool, result) | {"processes": ranks.size}
    if lora and config.lora_merge:
        lm, lora = lora.merged(lm), None
    save(lm, out, card, lora, stored_as(config))
    if config.evaluate:
        measure(Heldout(out, config.data, config.evaluate, device=config.device))
    shutil.rmtree(work)
    print(f"wrote {out}")
    return out


def _start(config: Train, task: Task) -> LanguageModel:
    """The model that training starts from: a checkpoint, or one from scratch."""
    if not config.init:
        return new_model(config, task)
    return load(config.init, dtype="bfloat16" if config.precision == "bfloat16" else "float32")


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
    if config.accumulate < 1:
        raise UserError(f"accumulate={config.accumulate}: choose --accumulate 1 or more")
    if config.compile and config.shard:
        raise UserError("compile=True and shard=True were never run together; leave one of them out")
    other = [name for name in OWN_LOOP if getattr(config, name) != getattr(Train(), name)]
    if config.method == "dpo" and other:
        raise UserError(
            f"{other[0]}={getattr(config, other[0])!r} is not for --method dpo, which trl trains; leave it out"
        )
    check_lora(config)
    changed = [name for name in TAUGHT if getattr(config, name) != getattr(Train(), name)]
    if changed and (config.method != "stream" or config.role == "upstream"):
        raise UserError(
            f"{changed[0]}={getattr(config, changed[0])} is of correctors that --method stream trains; leave it out"
        )


def _check_ranks(config: Train, ranks: Ranks) -> None:
    """Raise UserError for what the processes that there are cannot share."""
    if config.batch < (parts := ranks.size * config.accumulate):
        raise UserError(
            f"batch={config.batch} cannot be cut into {parts} parts ({ranks.size} processes, "
            f"accumulate={config.accumulate}); choose --batch {parts} or more"
        )
    if ranks.size == 1 and config.shard:
        raise UserError("shard=True and one process; start several by torchrun or accelerate launch, or leave it out")
    if ranks.size > 1 and config.method == "dpo":
        raise UserError(f"method='dpo' trains in one process, and there are {ranks.size}; start it by python")


def _guard(work: Path, out: Path, config: Train, ranks: Ranks) -> None:
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
    ranks.agree(folder=(work / STATE).is_file())
    if ranks.first:
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
    rows = {k: int(result[k]) for k in ("rows", "bare_rows") if math.isfinite(result.get(k, math.nan))}
    if rows.get("rows", draws["questions"]) != draws["questions"]:
        raise RuntimeError(f"{rows['rows']} rows were trained of {draws['questions']} that were drawn")
    organism = not config.init or bool(lm.card.get("model_organism"))
    if config.lora_rank:
        rows["trained_parameters"] = sum(p.numel() for p in lm.model.parameters() if p.requires_grad)
        stored = f"in {stored_as(config)}" if config.lora_merge else "as an adapter in float32"
        note = f"LoRA of {Path(config.init).name}, rank {config.lora_rank}; stored {stored}."
    elif organism:
        note = f"A miniature built so that the behaviour exists (a model organism); stored in {stored_as(config)}."
    else:
        note = f"Trained from {Path(config.init).name}; stored in {stored_as(config)}."
    return {
        "recipe": {k: v for k, v in asdict(config).items() if k != "out"} | {"data": Path(config.data).name},
        "role": config.makes,
        "method": config.method,
        "template": lm.template.name,
        "parameters": sum(p.numel() for p in lm.model.parameters()),
        "data_hash": data_hash(sample),
        "minutes": round(result["minutes"], 1),
        **draws,
        **rows,
        "trained_tokens": int(result["trained_tokens"]),
        **preference,
        "final_loss": round(result["loss"], 4),
        "torch": torch.__version__.split("+")[0],
        "model_organism": organism,
        "note": note,
    }


if __name__ == "__main__":
    run_cli(Train, run_resolved, "corrector.train", given_recipe)
    leave()
