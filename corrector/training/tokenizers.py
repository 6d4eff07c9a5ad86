"""Lossless word tokenizers for the reference models: whole words, single digits, the space kept with its word."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from corrector.errors import UserError

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
SPECIAL = (PAD, EOS, UNK, "<q>", "<p>", "<y1>", "<y2>")
PIECES = r" ?[A-Za-z]+|\d| |[^\sA-Za-z\d]|\n"


def word_tokenizer(texts: Iterable[str]) -> Any:
    """A word-level tokenizer whose vocabulary is every piece of `texts`; decoding gives the text back exactly."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    splitter = pre_tokenizers.Split(Regex(PIECES), "isolated")
    pieces = sorted({piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)})
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *pieces))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = splitter
    return _wrap(tokenizer)


def bpe_tokenizer(texts: Iterable[str], size: int) -> Any:
    """Byte-level BPE of `size` tokens with digits kept single: for real text, where nothing may be unknown.

    Raises UserError for a size that does not hold the bytes and special tokens; fewer texts may give fewer tokens.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    least = len(pre_tokenizers.ByteLevel.alphabet()) + len(SPECIAL)
    if size < least:
        raise UserError(f"vocabulary={size} does not hold the {least} bytes and special tokens; give at least {least}")
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _wrap(tokenizer, byte_level=True)


def _wrap(tokenizer: Any, byte_level: bool = False) -> Any:
    from tokenizers import AddedToken, decoders
    from transformers import PreTrainedTokenizerFast

    tokenizer.decoder = decoders.ByteLevel() if byte_level else decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
