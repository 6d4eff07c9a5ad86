import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from corrector.errors import UserError
from corrector.prompts import FIELDS, TEMPLATES, encode, template
from corrector.training.tokenizers import SPECIAL, bpe_tokenizer, word_tokenizer

WORDS = "Tom has 3 pens. Ann, too? 7 - 4 = 3".split(" ")
PATTERNS = [text for t in TEMPLATES.values() for text in (t.corrector, t.upstream)]
WORD = word_tokenizer([*PATTERNS, *WORDS, *(f" {w}" for w in WORDS), "\n"])
BPE = bpe_tokenizer([" ".join(WORDS), *PATTERNS] * 4, 320)
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the first draw imports much
SENTENCES = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)


def slice_text(tokenizer, encoded, name: str) -> str:
    start, end = encoded.spans[name]
    return tokenizer.decode(list(encoded.ids[start:end]))


@given(SENTENCES, SENTENCES, SENTENCES)
@PATIENT
@pytest.mark.parametrize("tokenizer", [WORD, BPE], ids=["words", "bytes"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_spans_hold_the_text_of_their_fields(name, tokenizer, question, prefix, last):
    prompt = template(name).render(question, prefix, last)
    encoded = encode(tokenizer, prompt)
    assert tokenizer.decode(list(encoded.ids)) == prompt.text
    for field, text in zip(FIELDS, (question, prefix, last), strict=True):
        start, end = prompt.fields[field]
        assert prompt.text[start:end] == text
        found = slice_text(tokenizer, encoded, field)
        # a template's own space may share a token with the field that follows it
        assert found.strip() == text.strip() if text else found == ""
        assert found == text or name != "lab"


@given(st.text(), st.text(), st.text())
@PATIENT
def test_spans_are_exact_between_markers_for_any_text(question, prefix, last):
    assume(not any(special in text for special in SPECIAL for text in (question, prefix, last)))
    encoded = encode(BPE, template("lab").render(question, prefix, last))
    assert [slice_text(BPE, encoded, f) for f in FIELDS] == [question, prefix, last]


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_empty_prefix_has_an_empty_span_in_its_place(name):
    for tokenizer in (WORD, BPE):
        encoded = encode(tokenizer, template(name).render("Tom has", "", "3 pens."))
        start, end = encoded.spans["prefix"]
        assert start == end and encoded.spans["question"][1] <= start <= encoded.spans["last"][0]
        assert encoded.spans["prompt"] == (0, len(encoded))
        assert encoded.spans["prompt_last"] == (len(encoded) - 1, len(encoded))
        upstream = encode(tokenizer, template(name).render_upstream("Tom has", ""))
        assert upstream.spans["prefix"][0] == upstream.spans["prefix"][1]


def test_the_lab_prompt_is_verbatim():
    encoded = encode(WORD, template("lab").render("Tom?", "Ann has", "3"))
    assert WORD.convert_ids_to_tokens(list(encoded.ids)) == [
        "<q>", "Tom", "?", "<p>", "Ann", " has", "<y1>", "3", "<y2>",
    ]  # fmt: skip
    assert {k: encoded.spans[k] for k in FIELDS} == {"question": (1, 3), "prefix": (4, 6), "last": (7, 8)}


def test_the_releases_prompt_is_verbatim():
    text = template("stream-aligner").render("Q", "P", "L").text
    assert text == "##Question: Q | ##Answer_Prefix: P | ##Answer_Last_Sentence: L | ##Your_Revision: "


def test_braces_in_a_field_stay_as_they_are():
    prompt = template("plain").render(r"\frac{1}{2} {prefix}", "{0}", "{last}")
    assert prompt.text == "Question: \\frac{1}{2} {prefix}\nAnswer: {0}\nSentence: {last}\nCorrection:"


def test_an_unknown_template_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="template='lob' is not one of " + ", ".join(TEMPLATES)):
        template("lob")


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("tokenizer", [WORD, BPE], ids=["words", "bytes"])
def test_a_field_that_spells_a_marker_is_refused(tokenizer, field):
    fields = dict.fromkeys(FIELDS, "Tom") | {field: "Tom<y2> has"}
    with pytest.raises(UserError, match=f"the {field} holds '<y2>', a special token"):
        encode(tokenizer, template("lab").render(**fields))


def test_unknown_text_is_refused_by_name():
    with pytest.raises(UserError, match="' zebra'"):
        encode(WORD, template("lab").render("Tom has", "", "Ann has zebra"))
    unknown = WORD.unk_token_id
    assert unknown in WORD("zebra", add_special_tokens=False)["input_ids"]
