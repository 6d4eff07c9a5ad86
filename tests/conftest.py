"""Shared fixtures: tiny random language models, and shape and type checks of the packages while tests run."""

# ruff: noqa: E402 (the import hook must stand before what it checks)
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import jaxtyping
import pytest

jaxtyping.install_import_hook(["corrector", "probes", "steering", "analysis"], "beartype.beartype")

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from corrector.models import LanguageModel
from corrector.prompts import template

torch.set_num_threads(1)

ARCHITECTURES = ("llama", "qwen2", "gemma2", "gpt2", "gpt_neox")
SPECIALS = ("<pad>", "<eos>", "<unk>", "<q>", "<p>", "<y1>", "<y2>")
PATTERN = " ?[A-Za-z]+|\\d| |[^\\sA-Za-z\\d]|\\n"
WORDS = """Tom Ann Mia has had buys sells finds eats gives gets apples pens coins bags of each more and the a so in all
now how many does have left is it this that he she they we you can not no yes times plus minus gives makes total
answer Answer Question Sentence Correction question prefix last correction please help sure sorry will with""".split()
MARKS = list("0123456789 \n.,;:?!+-*/=()'\"#|_%$<>") + list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def build_tokenizer(texts: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """Word-level tokenizer of the house pattern over WORDS, MARKS and the tokens of `texts`."""
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    words = [*MARKS, *WORDS, *(f" {w}" for w in WORDS)]
    words += [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*SPECIALS, *words]))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = split
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIALS[3:]),
        clean_up_tokenization_spaces=False,
    )


def build_model(arch: str, n_vocabulary: int, n_layers: int = 4, d: int = 32, seed: int = 0) -> torch.nn.Module:
    """A random model of one architecture, fp32, eager attention; initializer_range 0.3 so that every layer matters."""
    common = {
        "vocab_size": n_vocabulary,
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    if arch == "gpt2":
        size = {"n_layer": n_layers, "n_embd": d, "n_head": 4, "n_positions": 512}
        size |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        size = {"num_hidden_layers": n_layers, "hidden_size": d, "intermediate_size": 2 * d, "num_attention_heads": 4}
        size |= {"max_position_embeddings": 512}
    if arch in ("llama", "qwen2", "gemma2"):
        size |= {"num_key_value_heads": 2}
    if arch == "gemma2":
        size |= {"head_dim": d // 4, "query_pre_attn_scalar": d // 4, "sliding_window": 256}
    config = CONFIG_MAPPING[arch](**common, **size)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    return model.eval().requires_grad_(False)


def build_lm(
    arch: str = "llama", texts: Iterable[str] = (), template_name: str = "lab", n_layers: int = 4, seed: int = 0
) -> LanguageModel:
    """A fresh LanguageModel whose tokenizer also knows every token of `texts`."""
    tokenizer = build_tokenizer(texts)
    model = build_model(arch, len(tokenizer), n_layers=n_layers, seed=seed)
    return LanguageModel(model, tokenizer, template(template_name), f"random-{arch}")


@pytest.fixture(scope="session")
def make_lm() -> Callable[..., LanguageModel]:
    """`make_lm(arch="llama", texts=(), template_name="lab", n_layers=4, seed=0)`: fresh, free to be changed."""
    return build_lm


@pytest.fixture(scope="session")
def tiny_lm() -> LanguageModel:
    """A shared tiny Llama; leave it as it was found."""
    return build_lm()


@pytest.fixture(scope="session", params=ARCHITECTURES)
def arch_lm(request: pytest.FixtureRequest) -> LanguageModel:
    """A shared tiny model of each architecture in turn; leave it as it was found."""
    return build_lm(request.param)


@pytest.fixture
def shared_data() -> Path:
    """Folder of real data (gsm8k/train.jsonl, ...); the test is skipped where CORRECTOR_LAB_DATA names none."""
    folder = os.environ.get("CORRECTOR_LAB_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("CORRECTOR_LAB_DATA names no folder; set it to run the tests on real data")
    return Path(folder)
