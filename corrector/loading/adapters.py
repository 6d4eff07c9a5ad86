"""LoRA adapters by peft: merged into the weights, or live beside them."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from corrector.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> tuple[str, str]:
    """The model that an adapter's folder names, and its revision; UserError where it names none."""
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = config["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / ADAPTER_CONFIG} is damaged ({error}); save the adapter again") from error
    if not base:
        raise UserError(f"{folder / ADAPTER_CONFIG} names no base model; give a .toml file with 'model' and 'adapter'")
    return str(base), str(config.get("revision") or "")


def with_adapter(model: Any, adapter: str, revision: str, merge: bool, local: bool) -> Any:
    """The model with an adapter added to its weights (`merge`), or with its layers put in place, live.

    Either way it is the model itself and no PeftModel, so that blocks, hooks and backends find what they know. Raises
    UserError where peft is missing, where there is no such adapter in safetensors, and where it does not fit.
    """
    if find_spec("peft") is None:
        raise UserError("a LoRA adapter needs peft; pip install 'corrector-lab[lora]'")
    peft: Any = import_module("peft")
    name, folder = adapter, Path(adapter).expanduser()
    if folder.is_dir() and not (folder / WEIGHTS).is_file():
        raise UserError(f"adapter {name!r} has no {WEIGHTS}; save it with safe_serialization=True")
    place: dict[str, Any] = {"revision": revision} if revision else {}
    if not folder.is_dir():
        place["local_files_only"] = local
        folder = _downloaded(name, place)
    try:
        live: Any = peft.PeftModel.from_pretrained(model, str(folder))
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"adapter {name!r} does not fit the model ({reason}); give the adapter's own base") from error
    return live.merge_and_unload() if merge else live.get_base_model()


def _downloaded(name: str, place: dict[str, Any]) -> Path:
    """An adapter's folder in the hub's cache: its configuration and its safetensors, never pickled weights."""
    from huggingface_hub import hf_hub_download

    try:
        files = [hf_hub_download(name, file, **place) for file in (ADAPTER_CONFIG, WEIGHTS)]
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"adapter {name!r} cannot be had ({reason}); give a folder or a hub id") from error
    return Path(files[0]).parent
