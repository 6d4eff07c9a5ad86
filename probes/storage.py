"""Activations on disk: shards of a stream of sequences, written as they are captured, read a layer at a time.

A folder is a run folder (`corrector.records`): config.json guards what was captured of which model, shards.jsonl names
the shards that are whole, DONE says that there are no more. A shard is a safetensors file `site/span/layer` -> [n, d].
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.records import RunFolder, read_json, read_rows
from probes import backends, reductions
from probes.backends import Backend
from probes.capture import Activations, Padding, Storage, capture_all, check_dtype, check_layers, range_of
from probes.reductions import Reduction
from probes.sites import Site, check_site
from probes.spans import Sequence

FORMAT = "corrector-lab activations 1"


@dataclass(frozen=True)
class Capture:
    """What a folder of activations holds; a folder is resumed only by the same capture."""

    fingerprint: str
    """Of the model that was read."""
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    spans: tuple[str, ...]
    reduction: str
    dtype: str
    backend: str
    shard_size: int
    """Items a shard; the last may hold fewer."""
    ref: str = field(metadata={"identity": False})
    """What the user called the model."""
    batch_size: int = field(metadata={"identity": False})
    padding: str = field(metadata={"identity": False})
    format: str = FORMAT


def capture_to(
    folder: str | Path,
    lm: LanguageModel,
    sequences: Iterable[Sequence],
    sites: tuple[Site, ...] = ("resid_post",),
    layers: list[int] | None = None,
    spans: tuple[str, ...] = ("prompt_last",),
    reduction: Reduction = "mean",
    batch_size: int = 32,
    padding: Padding = "right",
    backend: str | Backend = "torch",
    dtype: Storage = "float32",
    shard_size: int = 1024,
) -> Stored:
    """Capture to disk, one shard in memory at a time; `sequences` may be a generator of any length.

    The same call again resumes after any interruption: whole shards are kept (their sequences are drawn again and
    compared), and the folder ends with the bytes that an uninterrupted run writes. Rows are sorted by length within a
    shard. Raises UserError as `capture` does, where the folder holds another capture, and where the sequences are not
    those that its shards were made of.
    """
    # Before the folder is made; what depends on the sequences is checked by the capture of each shard.
    check_dtype(dtype)
    reductions.get(reduction)
    run_backend = backends.get(backend)
    if shard_size < 1:
        raise UserError(f"shard_size={shard_size} is below 1; choose 1 or more")
    config = Capture(
        fingerprint=lm.fingerprint,
        sites=tuple(check_site(site) for site in sites),
        layers=check_layers(lm, layers),
        spans=spans,
        reduction=reduction,
        dtype=dtype,
        backend=backends.backend_name(backend),
        shard_size=shard_size,
        ref=lm.ref,
        batch_size=batch_size,
        padding=padding,
    )
    shards = _shards(sequences, shard_size)
    if (start := next(shards, None)) is None:
        raise UserError("no sequences to capture; give at least one")
    total = len(sequences) if isinstance(sequences, Sized) else None
    with (
        RunFolder(folder, config, str(lm.device)) as run,
        tqdm(total=total, desc="capture", unit="item", delay=2) as bar,
    ):
        whole, number = run.rows("shards"), 0
        for number, items in enumerate(chain([start], shards), start=1):
            digest = _digest(items, spans, shard_size * (number - 1))
            if number <= len(whole):
                _check_same(run.path, whole[number - 1], digest)
            elif run.done:
                raise UserError(f"{run.path} is finished with {len(whole)} shards; give more sequences another folder")
            else:
                found = capture_all(
                    lm, items, sites, layers, spans, reduction, batch_size, padding, run_backend, dtype, progress=""
                )
                name = f"shard-{number - 1:05}.safetensors"
                size = _write(run.path / name, found)
                run.append("shards", [{"file": name, "items": len(items), "bytes": size, "sequences": digest}])
            bar.update(len(items))
        if number < len(whole):
            raise UserError(f"{run.path} holds {len(whole)} shards, the sequences make {number}; give the same again")
        if not run.done:
            run.finish()
    return Stored(folder)


class Stored:
    """Activations of a finished folder. Nothing is held: every read takes what it is asked for from the shards.

    `site` and `span` may be left out where the folder has one of them. Raises UserError where the folder is no
    finished capture, a shard is missing or cut, or what is asked for was not captured.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        config = read_json(self.folder, "config")
        if config.get("format") != FORMAT:
            raise UserError(f"{str(folder)!r} holds no stored activations; give a folder that capture_to wrote")
        if not (self.folder / "DONE").exists():
            raise UserError(f"{str(folder)!r} is not finished; run the same capture_to again, which resumes it")
        self.config: dict[str, Any] = config
        self.layers: tuple[int, ...] = tuple(config["layers"])
        self.sites: tuple[str, ...] = tuple(config["sites"])
        self.spans: tuple[str, ...] = tuple(config["spans"])
        self._shards = read_rows(self.folder, "shards")
        for shard in self._shards:
            _check_whole(self.folder, shard)

    def __len__(self) -> int:
        return sum(shard["items"] for shard in self._shards)

    def at(self, layer: int, site: str = "", span: str = "") -> Float[Tensor, "item d"]:
        """One layer's activations of all items as float32."""
        return self.load(layer, site, span).at(layer)

    def load(self, layer: int | tuple[int, ...] | None = None, site: str = "", span: str = "") -> Activations:
        """A layer, some layers or all (None) of one site and span, in the dtype they are stored in."""
        parts = list(self.parts(layer, site, span))
        h = torch.cat([part.h for part in parts])
        return Activations(h, parts[0].layers, parts[0].site, parts[0].span, tuple(i for p in parts for i in p.ids))

    def parts(
        self, layer: int | tuple[int, ...] | None = None, site: str = "", span: str = ""
    ) -> Iterator[Activations]:
        """What `load` gives, a shard at a time: for what outgrows memory even as one layer."""
        layers = self.layers if layer is None else (layer,) if isinstance(layer, int) else tuple(layer)
        chosen = _one("site", site, self.sites), _one("span", span, self.spans)
        for k in layers:
            if k not in self.layers:
                raise UserError(f"layer={k} not among the stored {list(self.layers)}; choose --layers among them")
        for shard in self._shards:
            with safe_open(self.folder / shard["file"], framework="pt") as file:
                ids = tuple(json.loads(file.metadata()["card"])["ids"])
                h = torch.stack([file.get_tensor("/".join((*chosen, str(k)))) for k in layers], dim=1)
            yield Activations(h, layers, *chosen, ids)


def _shards(sequences: Iterable[Sequence], size: int) -> Iterator[list[Sequence]]:
    rest = iter(sequences)
    while items := list(islice(rest, size)):
        yield items


def _digest(items: list[Sequence], spans: tuple[str, ...], start: int) -> str:
    """sha256 of a shard's tokens, ranges and problems, 16 hex digits."""
    h = hashlib.sha256()
    for i, s in enumerate(items, start=start):
        h.update(json.dumps([s.ids, [range_of(s, i, span) for span in spans], s.problem]).encode())
    return h.hexdigest()[:16]


def _write(file: Path, found: dict[tuple[str, str], Activations]) -> int:
    """Write a whole shard or nothing, to a neighbour first, and return its size in bytes."""
    tensors = {
        f"{site}/{span}/{layer}": a.h[:, k].contiguous()
        for (site, span), a in found.items()
        for k, layer in enumerate(a.layers)
    }
    neighbour = file.with_suffix(".tmp")
    # One key only, because the header's metadata has no fixed order of keys.
    card = {"format": FORMAT, "ids": next(iter(found.values())).ids}
    save_file(tensors, neighbour, metadata={"card": json.dumps(card)})
    with neighbour.open("rb") as written:
        os.fsync(written.fileno())
    neighbour.replace(file)
    return file.stat().st_size


def _check_same(folder: Path, shard: dict[str, Any], digest: str) -> None:
    _check_whole(folder, shard)
    if shard["sequences"] != digest:
        raise UserError(
            f"{folder / shard['file']} was made of other sequences; give the same again, or choose another folder"
        )


def _check_whole(folder: Path, shard: dict[str, Any]) -> None:
    file = folder / shard["file"]
    try:
        if file.stat().st_size != shard["bytes"]:
            raise OSError(f"{file.stat().st_size} bytes of {shard['bytes']}")
        with safe_open(file, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise UserError(f"shard {file} is missing or damaged ({error}); delete the folder and run again") from error


def _one(name: str, asked: str, known: tuple[str, ...]) -> str:
    if not asked and len(known) == 1:
        return known[0]
    if asked not in known:
        raise UserError(f"{name}={asked!r} is not one of the stored {', '.join(known)}; choose among them")
    return asked
