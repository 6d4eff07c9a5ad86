"""Load any causal language model with its tokenizer and template; find its blocks; fingerprint it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from corrector.errors import UserError
from corrector.loading.adapters import base_of, is_adapter, with_adapter
from corrector.loading.hub import explained
from corrector.loading.hub import hub_answers as _hub_answers
from corrector.loading.options import LoadOptions, is_options_file, read_options, split_revision
from corrector.loading.placement import devices_of, input_device, state
from corrector.memory import check_weights
from corrector.prompts import Encoded, Template, continuation, encode, template

REFERENCES = Path(__file__).parent / "references"
ALIASES = {"dialogue": "dialogue-0", "arithmetic": "arithmetic-l"}
CARD = "card.json"
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}


@dataclass(frozen=True)
class LanguageModel:
    """A causal model with what is needed to prompt it. `ref` is what the user called it, `card` its record."""

    model: Any
    tokenizer: Any
    template: Template
    ref: str
    card: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        n = sum(w.numel() for w in self.model.parameters())
        kind = f"{type(self.model).__name__}, {self.n_layers} layers, {n:,} parameters, template {self.template.name}"
        return f"LanguageModel({self.ref!r}: {kind}{', a model organism' * bool(self.card.get('model_organism'))})"

    @property
    def device(self) -> torch.device:
        """Where tokens are put: that of the input embedding, which a spread model's other blocks may not share."""
        return input_device(self.model)

    @property
    def devices(self) -> list[torch.device]:
        """All devices that it runs on."""
        return devices_of(self.model)

    @property
    def n_layers(self) -> int:
        return len(blocks(self.model))

    @property
    def eos_id(self) -> int:
        """The token that ends a correction: what the template's chat turn closes with, else the tokenizer's own."""
        if self.template.turn and self.template.turn.end:
            return int(self.tokenizer.convert_tokens_to_ids(self.template.turn.end))
        if self.tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {self.ref!r} has no end token; set its eos_token and save it again")
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the architecture, the vocabulary and every weight as float32; computed once."""
        h = hashlib.sha256(type(self.model).__name__.encode())
        for name, w in state(self.model):
            h.update(f"{name}{tuple(w.shape)}".encode())
            h.update(w.detach().to("cpu", torch.float32).contiguous().numpy())
        h.update(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode())
        return h.hexdigest()[:16]

    def encode(self, question: str, prefix: str, last: str) -> Encoded:
        """The corrector's prompt as tokens with spans."""
        return encode(self.tokenizer, self.template.render(question, prefix, last))

    def encode_upstream(self, question: str, prefix: str) -> Encoded:
        """The upstream's prompt as tokens with spans."""
        return encode(self.tokenizer, self.template.render_upstream(question, prefix))

    def encode_target(self, correction: str) -> list[int]:
        """A teacher-forced correction as the tokens that follow the prompt, end token included.

        Raises UserError for text of which the tokenizer knows no token.
        """
        text = self.template.correction_prefix + correction
        return [*continuation(self.tokenizer, self.template.tail, text), self.eos_id]

    def decode(self, ids: list[int]) -> str:
        """Text of output tokens, special tokens dropped, outer space stripped."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def blocks(model: Any) -> nn.ModuleList:
    """The decoder blocks in order (Llama, Qwen2, Gemma2: model.layers; GPT-2: transformer.h; GPT-NeoX)."""
    for path in ("model.layers", "transformer.h", "gpt_neox.layers"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise UserError(
        f"architecture {type(model).__name__} has its blocks at no known path; "
        "known are Llama-, Qwen2-, Gemma2-, GPT-2- and GPT-NeoX-like models"
    )


def head_logits(model: Any, h: Float[Tensor, "*at d"]) -> Float[Tensor, "*at vocab"]:
    """What the model's output head makes of final hidden states, with its soft cap (Gemma2): cap tanh(logits / cap)."""
    logits = model.get_output_embeddings()(h)
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def references() -> list[str]:
    """Names of the shipped reference checkpoints."""
    return sorted(p.parent.name for p in REFERENCES.glob(f"[!.]*/{CARD}"))


@dataclass(frozen=True)
class Source:
    """What a name stands for: a folder or hub id, where its card lies, and how it is loaded."""

    path: str
    card: Path | None
    options: LoadOptions
    safe: dict[str, Any]
    """Arguments of every `from_pretrained`: revision, network, and whether code of the checkpoint may run."""


def source_of(ref: str | Path, options: LoadOptions | None = None) -> Source:
    """Find out what is meant by a name, as `load` does; UserError where it can be neither folder nor hub id."""
    name = ALIASES.get(str(ref), str(ref))
    if is_options_file(name) and options is None and name not in references():
        options = read_options(name)
        return source_of(options.model, options)
    options = options or LoadOptions()
    if (REFERENCES / name / CARD).exists():
        folder = REFERENCES / name
    else:
        name, revision = split_revision(name)
        folder = Path(name).expanduser()
        options = replace(options, revision=revision or options.revision)
    if folder.exists() and options.revision:
        raise UserError(f"{str(ref)!r} is a folder here, which has no revision; leave {options.revision!r} out")
    card = folder if folder.exists() else None
    if folder.exists() and is_adapter(folder):
        base, revision = base_of(folder)
        options = replace(options, revision=revision, adapter=str(folder))
        return replace(source_of(base, options), card=card)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{str(ref)!r} is a folder without config.json, so no model; {_cure()}")
    if not folder.exists() and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
        raise UserError(f"{str(ref)!r} is no folder here and cannot be a hub id; {_cure()}")
    safe: dict[str, Any] = {
        "local_files_only": folder.exists() or not _hub_answers(),
        "trust_remote_code": options.trust_remote_code,
    }
    if options.revision:
        safe["revision"] = options.revision
    return Source(str(folder) if folder.exists() else name, card, options, safe)


def config_of(at: Source) -> Any:
    """The configuration of what a name stands for, without its weights; UserError where it cannot be had."""
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(at.path, **at.safe)
    except (OSError, ValueError, KeyError) as error:
        raise _refused(at.path, at, error) from error


def _refused(ref: str | Path, at: Source, error: Exception) -> UserError:
    if told := explained(error, at.path, at.options.revision):
        return UserError(f"model {str(ref)!r} {told}")
    return UserError(f"model {str(ref)!r} cannot be loaded ({' '.join(str(error).split())[:160]}); {_cure()}")


def _cure() -> str:
    return f"give one of {', '.join(references()) or 'no references'}, a folder of a saved model, or a hub id"


def load(
    ref: str | Path,
    template_name: str = "",
    device: str = "cpu",
    dtype: str = "float32",
    options: LoadOptions | None = None,
) -> LanguageModel:
    """Load a model by what the user calls it; `template_name` is needed where no card or options file names one.

    `ref` is a shipped reference, a folder of a model or of a LoRA adapter, a hub id (`ID@REVISION` pins it), or a .toml
    or .json file of `LoadOptions`. A `device` such as auto spreads the model over the devices.

    Raises UserError when the folder is no whole model or nothing of that name can be had; without network, a hub id is
    taken from the cache or refused at once. Weights are read from safetensors only, and no remote code runs unless an
    options file says so.
    """
    import transformers
    from safetensors import SafetensorError

    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}; choose among them")
    at = source_of(ref, options)
    auto: Any = transformers.AutoModelForCausalLM
    try:
        card = json.loads((at.card / CARD).read_text()) if at.card and (at.card / CARD).is_file() else {}
        tokenizer = _tokenizer(at)
        chosen = template(template_name or at.options.template or card.get("template", "plain"), tokenizer)
        if not at.options.device_map:
            check_weights(str(ref), at.path, config_of(at), DTYPES[dtype], at.options.quantize, device)
        model, report = auto.from_pretrained(
            at.path,
            dtype=DTYPES[dtype],
            use_safetensors=True,
            output_loading_info=True,
            adapter_kwargs={"local_files_only": at.safe["local_files_only"]},  # peft's own look at the hub
            **at.safe,
            **_placed(at.options, device, dtype),
        )
    except UserError:
        raise
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise _refused(ref, at, error) from error
    if absent := sorted(report["missing_keys"]):
        raise UserError(
            f"model {str(ref)!r} lacks {len(absent)} weights, {absent[0]} first, which would be random; save it whole"
        )
    if at.options.adapter:
        o = at.options
        model = with_adapter(model, o.adapter, o.adapter_revision, o.merge, at.safe["local_files_only"])
    spread = at.options.device_map or at.options.quantize
    return LanguageModel((model if spread else model.to(device)).eval(), tokenizer, chosen, str(ref), card)


def _tokenizer(at: Source) -> Any:
    """The tokenizer with a padding token; UserError for one that gives no character offsets."""
    import transformers

    own = at.card is not None and (at.card / "tokenizer_config.json").is_file()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(at.card) if own else at.path, **at.safe)
    if not tokenizer.is_fast:
        raise UserError(f"the tokenizer of {at.path!r} gives no offsets, which spans need; save it as tokenizer.json")
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _placed(options: LoadOptions, device: str, dtype: str) -> dict[str, Any]:
    """Arguments that say where and how precisely the weights are held; UserError where a library is missing."""
    placed: dict[str, Any] = {}
    if options.attention:
        placed["attn_implementation"] = options.attention
    if options.device_map:
        _needs("accelerate", f"device_map={options.device_map!r}")
        placed["device_map"] = options.device_map
        if options.offload_folder:
            placed["offload_folder"] = options.offload_folder
    if options.quantize:
        from transformers import BitsAndBytesConfig

        _needs("bitsandbytes", f"quantize={options.quantize!r}")
        placed.setdefault("device_map", {"": device})
        placed["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=options.quantize == "8bit",
            load_in_4bit=options.quantize == "4bit",
            bnb_4bit_compute_dtype=DTYPES[dtype],
        )
    return placed


def _needs(library: str, what: str) -> None:
    if find_spec(library) is None:
        raise UserError(f"{what} needs {library}; pip install {library}, or leave it out")
