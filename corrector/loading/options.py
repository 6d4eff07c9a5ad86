"""How a model is loaded beside its name: revision, adapter, quantisation and placement, in a file or in Python."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.loading.fieldfiles import ENDINGS, read_fields

QUANTIZE = ("", "8bit", "4bit")
ATTENTION = ("", "eager", "sdpa")
KINDS: dict[str, tuple[type, ...]] = {"bool": (bool,), "str": (str,), "str | dict[str, str | int]": (str, dict)}
"""What a file may hold for a field of this type."""


@dataclass(frozen=True)
class LoadOptions:
    """What `--corrector FILE.toml` (or .json) may say; every field but `model` has a default."""

    model: str = ""
    """Folder (from the file's own, unless absolute) or hub id."""
    revision: str = ""
    """Branch, tag or commit of a hub id; `ID@REVISION` says the same without a file."""
    template: str = ""
    """Prompt template, where no --template is given."""
    adapter: str = ""
    """Folder or hub id of a LoRA adapter (peft)."""
    adapter_revision: str = ""
    """Branch, tag or commit of an adapter on the hub."""
    merge: bool = True
    """Add the adapter to the weights; false keeps it live beside them."""
    quantize: str = ""
    """8bit or 4bit, by bitsandbytes; empty: the checkpoint's own precision, as --dtype says."""
    device_map: str | dict[str, str | int] = ""
    """auto, balanced or sequential: spread over the devices by accelerate, in place of --device; or a table of modules
    and their devices (a GPU's number, cpu, disk), such as {"model.layers.0": 0, ...}, which names them all."""
    offload_folder: str = ""
    """Folder for the weights that a device_map leaves on disk, where the checkpoint's own files do not serve."""
    attention: str = ""
    """eager or sdpa; empty: what transformers chooses."""
    trust_remote_code: bool = False
    """Let code of the checkpoint run, which no lab command does otherwise."""

    def __post_init__(self) -> None:
        for name, known in (("quantize", QUANTIZE), ("attention", ATTENTION)):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"{name}={value!r} is not one of {', '.join(known[1:])}; choose among them")


def is_options_file(ref: str) -> bool:
    """Whether a model's name is that of an options file."""
    return ref.endswith(ENDINGS)


def read_options(ref: str) -> LoadOptions:
    """Options from a file; UserError, with file and field, for what is not known, and where `model` is missing."""
    file = Path(ref).expanduser()
    kinds = {f.name: KINDS[str(f.type)] for f in fields(LoadOptions)}
    given: dict[str, Any] = read_fields(file, kinds, ("model",))
    for name in ("model", "adapter"):
        if (file.parent / given.get(name, "")).is_dir() and given.get(name):
            given[name] = str(file.parent / given[name])
    if given.get("template", "").endswith(ENDINGS) and (file.parent / given["template"]).is_file():
        given["template"] = str(file.parent / given["template"])
    try:
        return LoadOptions(**given)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def split_revision(ref: str) -> tuple[str, str]:
    """`ID@REVISION` as (id, revision); a name without @, or of something that exists, as (name, "")."""
    name, at, revision = ref.rpartition("@")
    if not at or Path(ref).expanduser().exists():
        return ref, ""
    if not name or not revision:
        raise UserError(f"{ref!r} has nothing on one side of its @; write ID@REVISION")
    return name, revision
