"""Tokenizers of the kinds that real models have: trained here, and Mistral's own files where its package is there."""

import base64
import json
import shutil
import string
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast
from transformers.integrations.mistral.tokenizer import MistralConverter

from corrector import tasks

PROSE = [
    "Ünïcode 'quotes', an emoji 🙂 and 北京; 13.5 % of $1,204 (Dr. Smith)\n- a list\n",
    "##Question: Answer_Prefix Answer_Last_Sentence Your_Revision | Sentence Correction USER ASSISTANT",
]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% for m in messages %}{{ (bos_token if loop.first else '') + '<|start_header_id|>' + m.role "
    "+ '<|end_header_id|>' + '\n\n' + m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@cache
def corpus() -> list[str]:
    texts = list(PROSE)
    for p in tasks.get("dialogue").pairs("train", 20):
        texts += [p.question, p.prefix, p.last, p.correction]
    return texts


def alphabet() -> list[str]:
    """Every character of the corpus and of ASCII."""
    return sorted({c for text in corpus() for c in text} | set(string.printable))


def wrapped(core: Tokenizer, special: list[str], chat: str = "", **names: str) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    out = PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **names)
    if chat:
        out.chat_template = chat
    return out


def begins_with(core: Tokenizer, bos: str) -> None:
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
    )


def byte_level(special: list[str], size: int = 700) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(corpus(), trainer)
    return core


def gpt2() -> PreTrainedTokenizerFast:
    """One special token for everything, no begin token put by itself, no chat template."""
    only = "<|endoftext|>"
    return wrapped(byte_level([only]), [only], bos_token=only, eos_token=only, unk_token=only)


def qwen() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return wrapped(byte_level(special), special, CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def llama3() -> PreTrainedTokenizerFast:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    core = byte_level(special)
    begins_with(core, special[0])
    return wrapped(core, special, LLAMA3, bos_token=special[0], eos_token=special[1])


def gemma() -> PreTrainedTokenizerFast:
    """SentencePiece's BPE: spaces as ▁, unknown text as bytes."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁"), "isolated")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokens = [*special, *(f"<0x{i:02X}>" for i in range(256))]
    core.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, special_tokens=tokens, show_progress=False))
    spec = json.loads(core.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if not t["content"].startswith("<0x")]
    core = Tokenizer.from_str(json.dumps(spec))  # bytes are plain tokens, as in the real ones
    begins_with(core, "<bos>")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return wrapped(core, special, GEMMA, **names)


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram as Llama-2's: a space is put before the text."""
    special = ["<unk>", "<s>", "</s>"]
    core = Tokenizer(models.Unigram())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    core.decoder = decoders.Metaspace(prepend_scheme="first", split=True)
    core.train_from_iterator(
        corpus(),
        trainers.UnigramTrainer(
            vocab_size=700, special_tokens=special, unk_token="<unk>", initial_alphabet=alphabet(), show_progress=False
        ),
    )
    begins_with(core, "<s>")
    return wrapped(core, special, LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's, which loses case and spaces: nothing can be copied exactly with it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.train_from_iterator(
        corpus(),
        trainers.WordPieceTrainer(
            vocab_size=700, special_tokens=special, initial_alphabet=alphabet(), show_progress=False
        ),
    )
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return wrapped(core, special, eos_token="[SEP]", cls_token="[CLS]", unk_token="[UNK]", pad_token="[PAD]")


def mistral_data() -> Path | None:
    """Where mistral-common keeps its tokenizer files; None without the package, which is not imported."""
    found = find_spec("mistral_common")
    return Path(found.origin).parent / "data" if found and found.origin else None


def sentencepiece() -> PreTrainedTokenizerFast:
    """Mistral 7B's first SentencePiece file, 32,000 tokens."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(mistral_data() / "tokenizer.model.v1", Path(folder) / "tokenizer.model")
        out = LlamaTokenizer.from_pretrained(folder)
    begins_with(out.backend_tokenizer, "<s>")
    out.chat_template = LLAMA2
    return out


def tekken(n: int = 8000) -> PreTrainedTokenizerFast:
    """The first ranks of Tekken, with its own pattern."""
    raw = json.loads((mistral_data() / "tekken_240911.json").read_text())
    ranks = {base64.b64decode(token["token_bytes"]): i for i, token in enumerate(raw["vocab"][:n])}
    vocabulary, merges = MistralConverter._extract_merges(ranks)
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    vocabulary = {t: i for i, t in enumerate(special)} | {t: i + len(special) for t, i in vocabulary.items()}
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(raw["config"]["pattern"]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    begins_with(core, "<s>")
    return wrapped(core, special, LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TRAINED = {"gpt2": gpt2, "qwen": qwen, "llama3": llama3, "gemma": gemma, "unigram": unigram, "wordpiece": wordpiece}
RELEASED = {"sentencepiece": sentencepiece, "tekken": tekken}


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer by its kind; leave it as it was found."""
    return {**TRAINED, **RELEASED}[kind]()
