"""Low-rank adapters (2106.09685) by peft: put beside the frozen weights, trained, and written as peft writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from corrector.errors import UserError
from corrector.loading.adapters import WEIGHTS
from corrector.models import REFERENCES, LanguageModel, source_of
from corrector.recipes import Train


@dataclass(frozen=True)
class Lora:
    """An adapter in training: peft's model around a LanguageModel's own, and the name of what it adapts."""

    peft: Any
    base: str
    revision: str

    def save(self, folder: Path) -> None:
        """Write adapter_config.json and the weights (float32 safetensors), as `corrector.models.load` reads them."""
        config = self.peft.peft_config["default"]
        config.base_model_name_or_path, config.revision = self.base, self.revision or None
        config.inference_mode, config.target_modules = True, sorted(config.target_modules)
        config.save_pretrained(str(folder))
        peft: Any = import_module("peft")
        weights = peft.get_peft_model_state_dict(self.peft, save_embedding_layers=False)
        save_file({k: w.detach().cpu().contiguous() for k, w in weights.items()}, folder / WEIGHTS, {"format": "pt"})

    def merged(self, lm: LanguageModel) -> LanguageModel:
        """The language model with the adapter added to its weights, and no trace of it left."""
        return replace(lm, model=self.peft.merge_and_unload())


def check_lora(config: Train) -> None:
    """Raise UserError for what no adapter can be trained on."""
    if config.lora_rank < 0:
        raise UserError(f"lora_rank={config.lora_rank}: choose --lora-rank 1 or more, or 0 to train all weights")
    if not config.lora_rank:
        if config.lora_merge:
            raise UserError("lora_merge=True and no adapter to merge; give --lora-rank")
        if config.precision == "bfloat16":
            raise UserError(
                "precision='bfloat16' would round small updates of the weights away; give --lora-rank, "
                "or --precision mixed"
            )
        return
    if not config.init:
        raise UserError(f"lora_rank={config.lora_rank} adapts a model that exists; give --init")
    if find_spec("peft") is None:
        raise UserError(f"lora_rank={config.lora_rank} needs peft; pip install 'corrector-lab[lora]'")
    if (options := source_of(config.init).options).adapter and not (config.lora_merge and options.merge):
        raise UserError(
            f"init={config.init!r} has an adapter already, and an adapter of two is not written; "
            "give --lora-merge, which writes the whole model"
        )


def with_lora(lm: LanguageModel, config: Train) -> Lora | None:
    """Freeze `lm.model` and put an adapter beside every linear map but the head, in place; None at rank 0.

    W becomes W + alpha / rank B A with A random by the seed, B zero, both float32.
    """
    if not config.lora_rank:
        return None
    peft: Any = import_module("peft")
    torch.manual_seed(config.seed)
    settings = peft.LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    at = source_of(config.init)
    folder = Path(at.path)
    # A reference by its name, since its folder is another on another machine.
    base = folder.name if folder.parent == REFERENCES else str(folder.resolve()) if folder.exists() else at.path
    return Lora(peft.get_peft_model(lm.model, settings), base, at.options.revision)
