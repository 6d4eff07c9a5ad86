"""Control vectors in GGUF: the format that llama.cpp reads and writes, and repeng exports.

python -m steering.gguf export vector.safetensors vector.gguf --layers 2 3 4
python -m steering.gguf import vector.gguf vector.safetensors --corrector dialogue-0

Architecture `controlvector`, keys `controlvector.model_hint` and `controlvector.layer_count`, and a float32 tensor
`direction.<k>` of [d] for each layer.

`direction.k` is our layer k, with no offset: llama.cpp adds it to the output of block k, counted from 0, at every
position of every sequence, times the strength of `--control-vector-scaled`. Its loader puts `direction.k` at
(k - 1)·d of a buffer, and `llama_adapter_cvec::apply` takes block k's from there again, so both -1 cancel; and as that
buffer starts with layer 1, block 0 cannot be steered and `direction.0` is refused. So layer 0 cannot be exported.
Source: llama.cpp common/common.cpp, common_control_vector_load_one, and src/llama-adapter.cpp; repeng's export_gguf
names the layers it steers the same way. (llama.cpp's own cvector-generator calls what it reads behind block k
`direction.<k + 1>`, and so steers one block later than it read; that is kept as the file says.)

The file also carries this lab's card, under a key that other readers pass over, so that a round trip gives the vector
back. Where it is missing, the vector is imported: its card says so, and its fingerprint is empty, which
`SteeringVector.check` refuses unless forced, or that of the model named on import.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter

from corrector.errors import UserError, run_cli
from corrector.models import LanguageModel, load
from steering.vectors import SteeringVector

ARCH = "controlvector"
CARD = "corrector_lab.card"
FIELDS = ("method", "site", "span", "fingerprint", "template", "ref", "card")

# The writer of the gguf package announces its byte order at every file.
logging.getLogger("gguf.gguf_writer").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Export:
    """Write a steering vector as a control vector that llama.cpp loads (--control-vector)."""

    vector: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="VECTOR")]
    """Steering vector of steering.extract."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """GGUF file to write."""
    layers: tuple[int, ...] = ()
    """Layers to write, 1 or higher; empty: all of the vector. llama.cpp steers all that the file has at once."""
    scale: float = 1.0
    """Factor that is put into the file: the coefficient that llama.cpp's strength 1 stands for."""
    model_hint: str = "llama"
    """llama.cpp's name of the architecture; other tools check it."""


@dataclass(frozen=True)
class Import:
    """Read a control vector of llama.cpp or repeng as a steering vector of a model."""

    gguf: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GGUF")]
    """GGUF file to read."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Steering vector to write."""
    corrector: str = ""
    """Model that the vector is of (reference, folder or hub id); empty: unknown, and every use needs force."""
    template: str = ""
    """Prompt template of a model whose card names none."""


@dataclass(frozen=True)
class Gguf:
    """Exchange steering vectors with llama.cpp and repeng. direction.k of a GGUF file is layer k, counted from 0."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Export, tyro.conf.subcommand("export")] | Annotated[Import, tyro.conf.subcommand("import")]
    ]
    """What to do."""


def write(vector: SteeringVector, path: str | Path, model_hint: str = "llama") -> Path:
    """Write a vector as GGUF; the same vector gives the same bytes.

    Raises UserError for layer 0, which the format has not, and for a site other than the block's output.
    """
    path = Path(path)
    if vector.site != "resid_post":
        raise UserError(f"site={vector.site!r}: llama.cpp adds to the output of a block; extract one at resid_post")
    if 0 in vector.directions:
        raise UserError("layer 0 is not in llama.cpp's format, which starts at 1; choose --layers without it")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, ARCH)
    writer.add_string(f"{ARCH}.model_hint", model_hint)
    writer.add_int32(f"{ARCH}.layer_count", len(vector.layers))
    record = {name: getattr(vector, name) for name in FIELDS}
    writer.add_string(CARD, json.dumps(record, sort_keys=True, allow_nan=False))
    for k in vector.layers:
        writer.add_tensor(f"direction.{k}", vector.at(k).detach().to("cpu", torch.float32).contiguous().numpy())
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    return path


def read(path: str | Path, lm: LanguageModel | None = None) -> SteeringVector:
    """Read a control vector; `lm` names the model that an imported one is of, which its card then says was claimed.

    Imported vectors have span `all`, where llama.cpp writes. Raises UserError for files that are no control vector,
    and where `lm` has another width, depth or (for this lab's own files) fingerprint.
    """
    path = Path(path)
    fields, directions = _contents(path)
    if CARD in fields:
        try:
            vector = SteeringVector(directions, **json.loads(fields[CARD]))
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: its {CARD} is damaged ({error}); export the vector anew") from error
        if lm is not None:
            vector.check(lm)
        return vector
    about = {"file": path.name, "model_hint": fields.get(f"{ARCH}.model_hint", "")}
    card = {"imported": {**about, "model": "claimed by the importer" if lm is not None else "unknown"}}
    names = {"method": "imported", "site": "resid_post", "span": "all"}
    if lm is None:
        return SteeringVector(directions, **names, fingerprint="", template="", ref="", card=card)
    whose = {"fingerprint": lm.fingerprint, "template": lm.template.name, "ref": lm.ref}
    vector = SteeringVector(directions, **names, **whose, card=card)
    vector.check(lm)
    return vector


def _contents(path: Path) -> tuple[dict[str, Any], dict[int, torch.Tensor]]:
    """The file's keys, and a direction for each layer; UserError where it is no control vector."""
    cure = "give a control vector of llama.cpp, repeng or steering.gguf"
    if not path.is_file():
        raise UserError(f"{str(path)!r} is no file; {cure}")
    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"{str(path)!r} is no whole GGUF file ({' '.join(str(error).split())}); {cure}") from error
    if fields.get("general.architecture") != ARCH:
        raise UserError(f"{str(path)!r} has architecture {fields.get('general.architecture')!r}, not {ARCH!r}; {cure}")
    directions: dict[int, torch.Tensor] = {}
    for tensor in reader.tensors:
        head, _, layer = tensor.name.partition(".")
        if head != "direction":
            continue
        if not layer.isdecimal() or int(layer) < 1:
            raise UserError(f"{str(path)!r} has a tensor {tensor.name!r}; directions are numbered from 1")
        if tensor.tensor_type != GGMLQuantizationType.F32 or len(tensor.shape) != 1:
            kind = f"{tensor.tensor_type.name} of shape {tuple(int(n) for n in tensor.shape)}"
            raise UserError(f"{str(path)!r}: {tensor.name} is {kind}, not float32 of (d,), which llama.cpp refuses too")
        directions[int(layer)] = torch.from_numpy(np.array(tensor.data, dtype=np.float32))
    if not directions:
        raise UserError(f"{str(path)!r} has no tensor direction.<layer>; {cure}")
    return fields, directions


def main(config: Gguf) -> None:
    """Export or import one file, and say what was written."""
    action = config.action
    if isinstance(action, Export):
        vector = SteeringVector.load(action.vector)
        chosen = vector.only(action.layers) if action.layers else vector
        write(chosen if action.scale == 1 else action.scale * chosen, action.out, action.model_hint)
        print(f"wrote {action.out}: directions {', '.join(map(str, chosen.layers))} of {vector.ref}")
        return
    lm = load(action.corrector, action.template) if action.corrector else None
    vector = read(action.gguf, lm)
    vector.save(action.out)
    whose = vector.ref if vector.fingerprint else "an unknown model (every use needs force)"
    print(f"wrote {action.out}: layers {', '.join(map(str, vector.layers))} of {whose}")


if __name__ == "__main__":
    run_cli(Gguf, main, "steering.gguf")
