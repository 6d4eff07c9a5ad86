"""One of several training processes: `together.py FOLDER` trains CASES, a folder each; the first writes what it made.

Started with WORLD_SIZE, RANK, MASTER_ADDR and MASTER_PORT; alone without them.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from corrector.errors import UserError
from corrector.recipes import Train
from corrector.training import loop as training
from corrector.training.distributed import joined
from corrector.training.loop import batch_at, train
from corrector.training.lora import Lora
from tests.conftest import build_lm
from tests.corrector.training.test_training import POOL, TASK, TEXTS

BASE = Train(steps=6, batch=5, branches=3, save_every=3, first_weight=3.0, lr=1e-2, auxiliary=0.5, precision="float32")
CASES = {
    "plain": BASE,
    "mixed": replace(BASE, precision="mixed"),
    "accumulated": replace(BASE, accumulate=2),
    "checkpointed": replace(BASE, checkpointing=True),
    "upstream": replace(BASE, role="upstream"),
    "sharded": replace(BASE, shard=True),
    "sharded-lora": replace(BASE, shard=True, lora_rank=2, checkpointing=True, accumulate=2),
    "sharded-half": replace(BASE, shard=True, lora_rank=2, precision="bfloat16", checkpointing=True),
    "lora": replace(BASE, lora_rank=2),
}


def language_model(config: Train):
    """A tiny random model, with an adapter where the config has one."""
    lm = build_lm(texts=TEXTS, n_layers=2)
    lm.model.requires_grad_(True)
    if config.precision == "bfloat16":
        lm.model.to(torch.bfloat16)
    if config.lora_rank:
        import peft

        torch.manual_seed(0)
        settings = peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
        lora = Lora(peft.get_peft_model(lm.model, settings), "base", "")
        assert lora.peft.get_base_model() is lm.model
    return lm


def main(folder: Path) -> None:
    """Train every case, stop "stopped" and "stopped-sharded" in mid-run and go on, and meet unequal processes."""
    with joined("cpu") as ranks:
        told = {}
        alone = ranks.size == 1
        for name, config in CASES.items():
            lm = language_model(config)
            config = replace(config, shard=config.shard and not alone)
            told[name] = train(lm, TASK, POOL, config, folder / name, ranks)
            if ranks.first:
                save_file({k: v.contiguous() for k, v in lm.model.state_dict().items()}, folder / f"{name}.safetensors")
        if not alone:
            for name in ("plain", "sharded"):
                stopped(name, folder, ranks)
            told["unequal"] = unequal(folder, ranks)
        if ranks.first:
            (folder / "told.json").write_text(json.dumps(told))


def stopped(name: str, folder: Path, ranks) -> None:
    """Stop a case in its fifth step, then train it to the end from the state of its third, in all processes."""

    def interrupted(at, *rest):
        if at == 4:
            raise KeyboardInterrupt
        return batch_at(at, *rest)

    training.batch_at = interrupted
    try:
        train(language_model(BASE), TASK, POOL, CASES[name], folder / f"stopped-{name}", ranks)
    except KeyboardInterrupt:
        pass
    training.batch_at = batch_at
    other = language_model(BASE)
    for p in other.model.parameters():
        p.data.zero_()  # every weight must come from the state
    train(other, TASK, POOL, CASES[name], folder / f"stopped-{name}", ranks)
    if ranks.first:
        save_file(dict(other.model.state_dict()), folder / f"stopped-{name}.safetensors")


def unequal(folder: Path, ranks) -> str:
    """What processes with different questions are told."""
    try:
        train(language_model(BASE), TASK, POOL[ranks.rank :], BASE, folder / "unequal", ranks)
    except UserError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
