"""Load any causal language model with its tokenizer and template; find its blocks; fingerprint it."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from corrector.errors import UserError
from corrector.prompts import Encoded, Template, check_known, encode, template

REFERENCES = Path(__file__).parent / "references"
ALIASES = {"dialogue": "dialogue-0", "arithmetic": "arithmetic-l"}
CARD = "card.json"
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
HUB_SECONDS = 3.0


@dataclass(frozen=True)
class LanguageModel:
    """A causal model with what is needed to prompt it. `ref` is what the user called it, `card` its record."""

    model: Any
    tokenizer: Any
    template: Template
    ref: str
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def n_layers(self) -> int:
        return len(blocks(self.model))

    @property
    def eos_id(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise UserError(f"the tokenizer of {self.ref!r} has no end token; set its eos_token and save it again")
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over the architecture, the vocabulary and every weight as float32; computed once."""
        h = hashlib.sha256(type(self.model).__name__.encode())
        for name, w in sorted(self.model.state_dict().items()):
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
        out = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        check_known(self.tokenizer, out["input_ids"], lambda i: text[slice(*out["offset_mapping"][i])])
        return [*out["input_ids"], self.eos_id]

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


def references() -> list[str]:
    """Names of the shipped reference checkpoints."""
    return sorted(p.parent.name for p in REFERENCES.glob(f"[!.]*/{CARD}"))


def load(ref: str | Path, template_name: str = "", device: str = "cpu", dtype: str = "float32") -> LanguageModel:
    """Load a shipped reference, a local folder or a hub id; `template_name` is needed where no card names one.

    Raises UserError when the folder is no whole model or nothing of that name can be had; without network, a hub id is
    taken from the cache or refused at once. Weights are read from safetensors only, and no remote code runs.
    """
    import transformers
    from safetensors import SafetensorError

    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}; choose among them")
    name = ALIASES.get(str(ref), str(ref))
    folder = REFERENCES / name if (REFERENCES / name / CARD).exists() else Path(name).expanduser()
    cure = f"give one of {', '.join(references()) or 'no references'}, a folder of a saved model, or a hub id"
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"{str(ref)!r} is a folder without config.json, so no model; {cure}")
    if not folder.exists() and not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):
        raise UserError(f"{str(ref)!r} is no folder here and cannot be a hub id; {cure}")
    source: Any = str(folder) if folder.exists() else name
    local = folder.exists() or not _hub_answers()
    auto: Any = transformers.AutoModelForCausalLM
    try:
        card = json.loads((folder / CARD).read_text()) if (folder / CARD).is_file() else {}
        chosen = template(template_name or card.get("template", "plain"))
        safe: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
        model, report = auto.from_pretrained(
            source, dtype=DTYPES[dtype], use_safetensors=True, output_loading_info=True, **safe
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, **safe)
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"model {str(ref)!r} cannot be loaded ({' '.join(str(error).split())[:160]}); {cure}"
        ) from error
    if absent := sorted(report["missing_keys"]):
        raise UserError(
            f"model {str(ref)!r} lacks {len(absent)} weights, {absent[0]} first, which would be random; save it whole"
        )
    return LanguageModel(model.to(device).eval(), tokenizer, chosen, str(ref), card)


def _hub_answers() -> bool:
    """One short request to the hub; its own five retries take 23 s on a machine without network."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
