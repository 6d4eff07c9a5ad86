import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.prompts import encode, template
from corrector.tasks import get
from corrector.train import training_texts
from corrector.training.tokenizers import SPECIAL, bpe_tokenizer, word_tokenizer

TEXTS = ["How do I fix the bike?", "First, oil it, and then rest.\n12 - 5 = 7.", "Gladly, you can."]
WORDS = word_tokenizer(TEXTS)
BYTES = bpe_tokenizer([*TEXTS, "the the the then then than thin"] * 3, 290)


def ids_of(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def round_trip(tokenizer, text: str) -> str:
    return tokenizer.decode(ids_of(tokenizer, text))


@given(st.text() | st.text("thean 0189.\n\t<>q"))
def test_bytes_lose_nothing_of_any_text(text: str):
    assert round_trip(BYTES, text) == text
    assert BYTES.unk_token_id not in ids_of(BYTES, text) or "<unk>" in text


@given(st.text("0123456789 "))
def test_digits_stay_single(text: str):
    digits = [t for t in BYTES.convert_ids_to_tokens(ids_of(BYTES, text)) if any(c.isdigit() for c in t)]
    assert digits == [c for c in text if c.isdigit()]


@pytest.mark.parametrize("name", ["dialogue", "arithmetic"])
def test_words_lose_nothing_of_their_tasks_text(name: str):
    task = get(name)
    texts = training_texts(task, 150)
    tokenizer = word_tokenizer(texts)
    assert len(texts) > 1500
    for text in set(texts):
        assert tokenizer.unk_token_id not in ids_of(tokenizer, text), text
        assert round_trip(tokenizer, text) == text


def test_pieces_are_words_with_their_space_and_single_marks():
    assert WORDS.convert_ids_to_tokens(ids_of(WORDS, "First, oil it,\n12")) == [
        "First", ",", " oil", " it", ",", "\n", "1", "2",
    ]  # fmt: skip


def test_the_vocabulary_is_the_specials_and_then_the_pieces_in_order():
    tokens = sorted(WORDS.get_vocab(), key=WORDS.get_vocab().get)
    assert tuple(tokens[: len(SPECIAL)]) == SPECIAL
    assert tokens[len(SPECIAL) :] == sorted(tokens[len(SPECIAL) :])
    assert word_tokenizer(TEXTS[::-1]).get_vocab() == WORDS.get_vocab()
    assert (WORDS.pad_token_id, WORDS.eos_token_id, WORDS.unk_token_id) == (0, 1, 2)
    assert (BYTES.pad_token_id, BYTES.eos_token_id, BYTES.unk_token_id) == (0, 1, 2)


@pytest.mark.parametrize("tokenizer", [WORDS, BYTES], ids=["words", "bytes"])
def test_markers_are_single_tokens_that_decoding_can_drop(tokenizer):
    ids = ids_of(tokenizer, "<q> bike<p><y1> rest<y2>")
    assert [i for i in ids if i < len(SPECIAL)] == [3, 4, 5, 6]
    text = "First, oil it"
    assert tokenizer.decode([3, *ids_of(tokenizer, text), 1], skip_special_tokens=True) == text


def test_an_unknown_word_is_named():
    with pytest.raises(UserError, match=r"' zebra' is not in this model's vocabulary of \d+ tokens"):
        encode(WORDS, template("lab").render("How do I fix the zebra?", "", ""))
    encode(BYTES, template("lab").render("How do I fix the zebra?", "", ""))


def test_a_vocabulary_too_small_for_the_bytes_is_refused():
    assert len(bpe_tokenizer(TEXTS, 263)) == 263 and len(BYTES) == 290
    with pytest.raises(UserError, match=r"vocabulary=262 .* give at least 263"):
        bpe_tokenizer(TEXTS, 262)


def test_tokenizers_survive_saving(tmp_path):
    from transformers import AutoTokenizer

    for name, tokenizer in (("words", WORDS), ("bytes", BYTES)):
        tokenizer.save_pretrained(tmp_path / name)
        again = AutoTokenizer.from_pretrained(tmp_path / name)
        text = "<q>How do I fix the bike?<p>First, oil it.<y1>12 - 5 = 7.<y2>"
        assert ids_of(again, text) == ids_of(tokenizer, text)
        assert round_trip(again, text) == text and again.get_vocab() == tokenizer.get_vocab()
