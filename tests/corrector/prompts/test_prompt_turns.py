"""Templates in chat turns and from files, on tokenizers of the kinds that real models have."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector import prompts
from corrector.errors import UserError
from corrector.prompts import FIELDS, TEMPLATES, TURNS, encode, growth, template, token_ids
from corrector.prompts.encoding import continuation
from tests.corrector.real_tokenizers import RELEASED, TRAINED, mistral_data, tokenizer_of

LOSSLESS = [kind for kind in TRAINED if kind != "wordpiece"]
NAMES = {
    "gpt2": ("plain", "stream-aligner", "aligner", "aligner-lines", "aligner-anything"),
    "qwen": ("stream-aligner/qwen", "chat", "plain/chat"),
    "llama3": ("stream-aligner/llama3", "stream-aligner/chat", "plain"),
    "gemma": ("stream-aligner/gemma", "stream-aligner/chat", "aligner"),
    "unigram": ("stream-aligner/llama2", "stream-aligner/chat", "plain"),
    "wordpiece": ("plain", "stream-aligner"),
    "sentencepiece": ("stream-aligner/llama2", "stream-aligner/chat", "plain", "aligner"),
    "tekken": ("stream-aligner/llama2", "stream-aligner/chat", "plain"),
}
CASES = [(kind, name) for kind, names in NAMES.items() for name in names]
BODY = TEMPLATES["stream-aligner"]
needs_files = pytest.mark.skipif(mistral_data() is None, reason="mistral-common is not installed (extra dev)")


def cases(kinds):
    marks = {kind: needs_files for kind in RELEASED}
    return [pytest.param(k, n, marks=marks.get(k, ()), id=f"{k}-{n}") for k, n in CASES if k in kinds]


WORDS = ["Tom", "has 13.5", "pens.", "  two  spaces", "\n- a list", "Dr. Smith, 'quoted'", "Ünï", "(7 - 4 = 3)", ""]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)


def covered(tokenizer, prompt, encoded):
    """For each field: its characters are in the tokens of its span, and in no others (whitespace left out)."""
    offsets = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    begun = len(encoded) - len(offsets)
    for name, (start, end) in prompt.fields.items():
        text = {c for c in range(start, end) if not prompt.text[c].isspace()}
        first, last = (i - begun for i in encoded.spans[name])
        inside = {c for a, b in offsets[first:last] for c in range(a, b)}
        outside = {c for a, b in [*offsets[:first], *offsets[last:]] for c in range(a, b)}
        yield (
            name,
            text <= inside and not text & outside and (first < last or not text) and (start < end or first == last),
        )


@pytest.mark.parametrize(("kind", "name"), cases(NAMES))
@given(question=TEXTS, prefix=TEXTS, last=TEXTS)
@settings(max_examples=12, deadline=None)
def test_spans_hold_their_fields_and_the_begin_token_stands_once(kind, name, question, prefix, last):
    tokenizer = tokenizer_of(kind)
    chosen = template(name, tokenizer)
    for prompt in (chosen.render(question, prefix, last), chosen.render_upstream(question, prefix)):
        for field, (start, end) in prompt.fields.items():
            given = {"question": question, "prefix": prefix, "last": last}[field]
            assert prompt.text[start:end].strip() == given.strip()
        encoded = encode(tokenizer, prompt)
        assert dict(covered(tokenizer, prompt, encoded)) == dict.fromkeys(prompt.fields, True)
        own = tokenizer.bos_token_id in tokenizer("a")["input_ids"]
        assert list(encoded.ids).count(tokenizer.bos_token_id) == int(own)
        assert token_ids(tokenizer, prompt.text) == list(encoded.ids)
        assert encoded.spans["prompt_last"] == (len(encoded) - 1, len(encoded))


@pytest.mark.parametrize(("kind", "name"), [c for c in cases([*TRAINED, *RELEASED]) if c.values[1].endswith("chat")])
@given(question=TEXTS, prefix=TEXTS, last=TEXTS)
@settings(max_examples=12, deadline=None)
def test_a_chat_prompt_is_what_the_chat_template_gives(kind, name, question, prefix, last):
    tokenizer = tokenizer_of(kind)
    chosen = template(name, tokenizer)
    body = TEMPLATES["plain" if name.startswith("plain") else "stream-aligner"].render(question, prefix, last).text

    def asked(text):
        turns = [{"role": "user", "content": text}]
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    assert chosen.render(question, prefix, last).text == asked(body)
    begun = chosen.render_upstream(question, prefix).text
    assert begun.startswith(asked(question)) and begun.endswith(prefix)
    assert begun.removeprefix(asked(question)).strip() == prefix.strip()


def test_the_end_of_a_chat_reply_is_the_templates(make_lm):
    ends = {
        kind: template("stream-aligner/chat", tokenizer_of(kind)).turn.end
        for kind in ("qwen", "llama3", "gemma", "unigram")
    }
    assert ends == {"qwen": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "unigram": "</s>"}
    lm, tokenizer = make_lm(), tokenizer_of("gemma")
    chat = type(lm)(lm.model, tokenizer, template("chat", tokenizer), "x")
    assert chat.eos_id == tokenizer.convert_tokens_to_ids("<end_of_turn>") != tokenizer.eos_token_id
    assert type(lm)(lm.model, tokenizer, template("plain"), "x").eos_id == tokenizer.eos_token_id


# The releases' formats


def test_the_releases_turns_are_verbatim():
    text = "##Question: Q | ##Answer_Prefix: P | ##Answer_Last_Sentence: L | ##Your_Revision: "
    system = "You are a helpful assistant."
    wanted = {
        "gemma": f"<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model",
        "llama3": f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n{system}<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n{text}<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
        "llama2": f"<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n{text} [/INST]\n",
        "qwen": f"<|im_start|>system\n{system}<|im_end|><|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant",
    }
    assert wanted.keys() == TURNS.keys()
    for turn, expected in wanted.items():
        assert template(f"stream-aligner/{turn}").render("Q", "P", "L").text == expected
        upstream = template(f"stream-aligner/{turn}").render_upstream("Q", "So far").text
        assert upstream == expected.replace(text, "Q") + "So far"


def test_the_aligners_formats_are_verbatim():
    edit = "Edit the following Question-Answer pair to make it more helpful and harmless: Q | A. B."
    wanted = {
        "aligner": f"BEGINNING OF CONVERSATION: USER: {edit} ASSISTANT:",
        "aligner-lines": "##Question: Q\n##Answer: A. B.\n##Correction: ",
        "aligner-anything": "##QUESTION: Q ##ANSWER: A. B. ##CORRECTION: ",
    }
    for name, expected in wanted.items():
        assert template(name).render("Q", "", "A. B.").text == expected == template(name).render("Q", "A.", "B.").text
        assert template(name).whole and "  " not in template(name).render("Q", "A. ", "B.").text
    assert not BODY.whole


def test_a_turn_of_another_family_is_refused():
    with pytest.raises(
        UserError, match=r"writes '<start_of_turn>', '<end_of_turn>', which this tokenizer cuts .*/chat"
    ):
        template("stream-aligner/gemma", tokenizer_of("qwen"))
    with pytest.raises(UserError, match=r"template='lab' writes '<q>'"):
        template("lab", tokenizer_of("gpt2"))
    with pytest.raises(UserError, match="has no chat template"):
        template("chat", tokenizer_of("gpt2"))
    with pytest.raises(UserError, match="is made by a tokenizer"):
        template("plain/chat")
    with pytest.raises(UserError, match="markers instead of turns"):
        template("lab/gemma")
    with pytest.raises(
        UserError, match=r"template='plain/vicuna' is not one of .*/gemma, /llama3, /llama2, /qwen, /chat"
    ):
        template("plain/vicuna")


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ("{{ raise_exception('no') }}", "refuses the roles user"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "once and unchanged"),
        ("{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}", "once and unchanged"),
    ],
)
def test_a_chat_template_that_cannot_be_followed_is_refused(chat, said):
    from copy import deepcopy

    tokenizer = deepcopy(tokenizer_of("qwen"))
    tokenizer.chat_template = chat
    with pytest.raises(UserError, match=said):
        template("chat", tokenizer)
    tokenizer.chat_template = "{{ messages[0].content }} [R] "  # questions only: no reply is shown
    assert template("chat", tokenizer).turn.end == ""


# A file of one's own

OWN = {"corrector": "Q {question} P {prefix} L {last} C:", "upstream": "Q {question} A {prefix}"}


def write(folder, content, name="own.json"):
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def test_a_template_from_a_file(tmp_path):
    found = template(write(tmp_path, OWN))
    assert found.render("a", "b", "c").text == "Q a P b L c C:" and found.render_upstream("a", "b").text == "Q a A b"
    toml = "".join(f"{k} = {json.dumps(v)}\n" for k, v in OWN.items())
    same = template(write(tmp_path, toml, "own.toml"))
    assert same == found and re.fullmatch(r"own-[0-9a-f]{8}", found.name), "the fields name it, not the place"
    assert template(write(tmp_path, OWN | {"corrector": "{question}{prefix}{last}"})).name != found.name
    braces = template(write(tmp_path, OWN | {"corrector": "{{x}} {question}{prefix:+ }{last}"}))
    assert braces.render("a", "b", "c").text == "{x} ab c" and braces.render("a", "", "c").text == "{x} ac"


def test_a_file_may_stand_in_a_turn_with_a_system_prompt(tmp_path):
    tokenizer = tokenizer_of("qwen")
    own = OWN | {"upstream": "Answer: {question}{prefix}", "turn": "chat", "system": "Be brief."}
    found = template(write(tmp_path, own), tokenizer)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q a P b L c C:"}]
    assert found.render("a", "b", "c").text == tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    assert found.render_upstream("a", "b").text.endswith("Answer: a<|im_end|>\n<|im_start|>assistant\nb")
    behind = template(write(tmp_path, OWN) + "/llama2", tokenizer_of("unigram"))
    assert behind.name.endswith("/llama2") and behind.render("a", "b", "c").text.startswith("<s>[INST] <<SYS>>")
    with pytest.raises(UserError, match="the file says turn='chat' itself"):
        template(write(tmp_path, own) + "/qwen", tokenizer)
    with pytest.raises(UserError, match="turn='gemma' has no place for a system prompt"):
        template(write(tmp_path, own | {"turn": "gemma"}), tokenizer_of("gemma"))
    with pytest.raises(UserError, match="refuses the roles system, user"):
        template(write(tmp_path, own), tokenizer_of("gemma"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[1]", "holds a list"),
        (OWN | {"corector": "x"}, "field 'corector' is not one of corrector, upstream"),
        ({"corrector": OWN["corrector"]}, "field 'upstream' is missing"),
        (OWN | {"turn": 3}, "field 'turn' is 3, not a str"),
        (OWN | {"turn": "vicuna"}, "field 'turn' is 'vicuna'; it is one of gemma"),
        (OWN | {"system": "Be brief."}, "give 'turn' as well"),
        (OWN | {"corrector": "{question} {last}"}, "field 'corrector' holds {question}, {last}; it must hold"),
        (OWN | {"corrector": "{question}{prefix}{last}{last}"}, "once each"),
        (OWN | {"corrector": "{question}{prefix}{lst}"}, "holds {question}, {prefix}, {lst}"),
        (OWN | {"corrector": "{question}{prefix}{last"}, "field 'corrector' has a brace fault"),
        (OWN | {"corrector": "{question}{prefix}{last}{}"}, "names no field"),
        (OWN | {"corrector": "{question!r}{prefix}{last}"}, r"takes nothing but \+TEXT"),
        (OWN | {"upstream": "{question}{prefix}{last}"}, "field 'upstream' holds"),
        (OWN | {"upstream": "{question}{prefix} and"}, "must end with {prefix}"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_field(tmp_path, content, said):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=said) as error:
        template(path)
    assert "own.json" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"nowhere\.json cannot be read"):
        template("nowhere.json")


# Tokens behind the prompt, and prefixes that grow


@pytest.mark.parametrize("kind", [*LOSSLESS, *(pytest.param(k, marks=needs_files) for k in RELEASED)])
def test_a_correction_comes_back_from_its_tokens(kind, make_lm):
    tokenizer = tokenizer_of(kind)
    name = "stream-aligner/chat" if tokenizer.chat_template else "plain"
    lm = type(make_lm())(None, tokenizer, template(name, tokenizer), "x")
    for text in ("Tom has 13.5 pens.", "Ünï 🙂", "- a list\n- of two", ""):
        ids = lm.encode_target(text)
        assert ids[-1] == lm.eos_id and lm.decode(ids) == text
        whole = [*lm.encode("Q?", "A.", "B.").ids, *ids[:-1]]
        prompt = lm.template.render("Q?", "A.", "B.").text
        written = tokenizer.decode(whole, skip_special_tokens=False)
        joint = tokenizer.decode(token_ids(tokenizer, prompt + lm.template.correction_prefix + text))
        assert written == joint, "no space is added or lost at the seam"


def test_a_space_that_a_tokenizer_puts_first_is_not_put_behind_a_prompt():
    tokenizer = tokenizer_of("unigram")
    alone = tokenizer("Tom", add_special_tokens=False)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(alone)[0].startswith("▁")
    behind = tokenizer.convert_ids_to_tokens(continuation(tokenizer, "[/INST]", "Tom"))
    assert not behind[0].startswith("▁") and "".join(behind) == "Tom"
    merged = tokenizer_of("qwen")  # "has" grows together with the space before it: the correction alone
    assert continuation(merged, "Tom ", "has") == merged("has", add_special_tokens=False)["input_ids"]
    assert continuation(merged, "Tom", " has") == merged(" has", add_special_tokens=False)["input_ids"]


def test_growth_counts_the_earlier_tokens_that_change():
    tokenizer, turn = tokenizer_of("qwen"), template("chat", tokenizer_of("qwen"))
    quiet = growth(tokenizer, turn, "Q?", ["Tom has pens.", " Ann has none.", " So."])
    assert (quiet.steps, quiet.changed, quiet.most, quiet.example) == (3, 0, 0, "")
    before, after = (token_ids(tokenizer, turn.render_upstream("Q?", p).text) for p in ("Tom n", "Tom need pens."))
    n_lost = next(len(before) - i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y)
    assert n_lost >= 1, "the planted seam grows together"
    joined = growth(tokenizer, turn, "Q?", ["Tom n", "eed pens."])
    assert (joined.steps, joined.changed, joined.most, joined.example) == (2, 1, n_lost, "eed pens.")


@pytest.mark.parametrize("kind", [*LOSSLESS, *(pytest.param(k, marks=needs_files) for k in RELEASED)])
def test_sentences_grow_without_changing_earlier_tokens_or_it_is_counted(kind):
    tokenizer = tokenizer_of(kind)
    chosen = template("stream-aligner/chat" if tokenizer.chat_template else "stream-aligner", tokenizer)
    sentences = ["Tom has 13.5 pens.", " Ann, too.", "\n- a list", " (7 - 4 = 3)."]
    found = growth(tokenizer, chosen, "How many?", sentences)
    # Where it changes one it is counted: Tekken's pattern puts a line end to the full stop before it, and the space at
    # the end of a prompt without a turn grows together with the first word.
    expected = {"tekken": (1, 1, "\n- a list"), "gpt2": (1, 1, sentences[0])}
    assert (found.changed, found.most, found.example) == expected.get(kind, (0, 0, ""))


def test_unknown_text_is_refused_and_known_text_of_gpt2_is_not():
    with pytest.raises(UserError, match="is not in this model's vocabulary"):
        encode(tokenizer_of("wordpiece"), TEMPLATES["plain"].render("北 京 大", "", "学"))
    assert len(encode(tokenizer_of("gpt2"), TEMPLATES["plain"].render("北京", "", "学")))
    assert {"encode", "template"} <= set(prompts.__all__) and FIELDS == ("question", "prefix", "last")
