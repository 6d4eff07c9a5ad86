"""Checkpoints as they are written: weights in one precision, tokenizer and card, in a folder whole or absent."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from corrector.errors import UserError
from corrector.models import CARD, DTYPES, LanguageModel, config_of, source_of
from corrector.recipes import Train
from corrector.training.lora import Lora


def stored_as(config: Train) -> str:
    """Name of the dtype that weights are stored in: as told, as the start's are, or float16 for a model from scratch.

    A start whose configuration names none of these is stored in float32.
    """
    if config.store or not config.init:
        return config.store or "float16"
    name = str(config_of(source_of(config.init)).dtype).removeprefix("torch.")
    return name if name in ("float16", "bfloat16") else "float32"


def check_holds(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Raise UserError for a weight that the dtype turns to infinity; RuntimeError for one that is not finite now."""
    for name, weight in model.named_parameters():
        if not bool(weight.isfinite().all()):
            raise RuntimeError(f"weight {name} is not finite after training")
        if not bool(weight.detach().to(dtype).isfinite().all()):
            raise UserError(
                f"weight {name} reaches {float(weight.abs().max()):.3g}, more than {str(dtype).removeprefix('torch.')} "
                "holds; give --store bfloat16 or float32, and the same command again, which saves what was trained"
            )


def save(lm: LanguageModel, out: Path, card: dict[str, Any], lora: Lora | None = None, stored: str = "float16") -> None:
    """Write model (or adapter), tokenizer and card; the folder appears whole or not at all.

    The weights of a whole model are stored as safetensors of dtype `stored`, and `lm.model` is left rounded to them.
    Raises UserError where that dtype cannot hold a weight.
    """
    if not lora:
        check_holds(lm.model, DTYPES[stored])
    half = out.with_name(out.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    if lora:
        lora.save(half)
    else:
        lm.model.to(DTYPES[stored]).save_pretrained(half)
        lm.model.to(torch.float32)
    lm.tokenizer.save_pretrained(half)
    h = hashlib.sha256()
    for part in sorted(half.glob("*.safetensors")):
        with part.open("rb") as f:
            hashlib.file_digest(f, lambda: h)
    (half / CARD).write_text(json.dumps({**card, "weights_sha256": h.hexdigest()[:16]}, indent=1) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    half.replace(out)
