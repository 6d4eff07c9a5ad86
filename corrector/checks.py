"""The doctor's checks of a corrector on this floor: prompt, spans, decoding, copying; each gives rows of a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from corrector.decoding import Output, decode, unfit
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import encode, growth
from corrector.tasks.base import Pair, Task

Status = Literal["ok", "warn", "skip", "FAIL"]
GREEDY = 4, 16
"""Prompts and new tokens that the lab's decoder is compared with `generate` on."""
ENOUGH = 0.8
"""Share of good sentences that a corrector should copy."""
_MARKERS = re.compile(r"<\|[^|<>\s]+\|>|<[a-z_/]+>|\[/?INST\]")


@dataclass(frozen=True)
class Row:
    """One line of the doctor's table: what was checked, how it came out, what was found, what to do about it."""

    check: str
    status: Status
    found: str
    cure: str = ""


@dataclass(frozen=True)
class Subject:
    """What is checked: a loaded model, a task, and pairs of it whose sentence is to be copied."""

    lm: LanguageModel
    task: Task
    pairs: Sequence[Pair]
    seed: int = 0


Check = Callable[[Subject], list[Row]]


def run_check(name: str, check: Check, subject: Subject) -> list[Row]:
    """A check's rows; what it raises is a FAIL with the error's own words, so that the other checks still run."""
    try:
        return check(subject)
    except UserError as error:
        return [Row(name, "FAIL", str(error))]
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        return [
            Row(name, "FAIL", f"{type(error).__name__}: {reason}", "this is a fault, of the model's code or the lab's")
        ]


def template_rows(s: Subject) -> list[Row]:
    """Begin and end tokens, markers that the tokenizer cuts, a chat template that is not used."""
    lm, tokenizer = s.lm, s.lm.tokenizer
    ids = lm.encode(s.pairs[0].question, "", s.pairs[0].last).ids
    begins = sum(i == tokenizer.bos_token_id for i in ids) if tokenizer.bos_token_id is not None else 0
    if tokenizer.bos_token_id == lm.eos_id:
        begins = int(ids[0] == tokenizer.bos_token_id)
    end = tokenizer.convert_ids_to_tokens(lm.eos_id)
    begin = f"begins with {tokenizer.bos_token!r}" if begins else "no begin token, as the tokenizer has it"
    said = f"{lm.template.name}: {begin}, ends with {end!r}"
    if begins > 1:
        return [
            Row("template", "FAIL", f"{said}; the begin token stands {begins} times", "take it out of the template")
        ]
    rows = [Row("template", "ok", said)]
    turn, chat = lm.template.turn, tokenizer.chat_template
    if turn and (cut := _cut(tokenizer, turn.head + turn.tail)):
        cure = "use the tokenizer that the chat template is of"
        rows.append(Row("template", "warn", f"the tokenizer cuts {', '.join(cut)} into pieces", cure))
    if chat and not turn and "template" not in lm.card:
        cure = "if the model was trained on chat turns: --template chat, or NAME/chat"
        rows.append(Row("template", "warn", "the tokenizer has a chat template, which is not used", cure))
    if turn and chat and turn.name == "chat" and "strftime_now" in str(chat):
        cure = "give --template a file with the turn and a fixed date"
        rows.append(Row("template", "warn", "the chat template writes the date, so prompts change by day", cure))
    if lm.template.whole:
        cure = "use --mode aligner, or a stream corrector"
        rows.append(Row("template", "warn", "it corrects whole answers: prefix and last are its answer", cure))
    return rows


def _cut(tokenizer: Any, text: str) -> list[str]:
    return [m for m in dict.fromkeys(_MARKERS.findall(text)) if m[0] == "<" and len(tokenizer.tokenize(m)) > 1]


def span_rows(s: Subject) -> list[Row]:
    """Every character of a field is in a token of its span, and no token beside the span has one."""
    wrong: list[str] = []
    for pair in s.pairs:
        prompt = s.lm.template.render(pair.question, pair.prefix, pair.last)
        encoded = encode(s.lm.tokenizer, prompt)
        out = s.lm.tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
        begun = len(encoded) - len(out["input_ids"])
        for name, (start, end) in prompt.fields.items():
            first, last = (i - begun for i in encoded.spans[name])
            inside = {c for a, b in out["offset_mapping"][first:last] for c in range(a, b)}
            outside = [*out["offset_mapping"][:first], *out["offset_mapping"][last:]]
            text = {c for c in range(start, end) if not prompt.text[c].isspace()}
            if not text <= inside or any(c in text for a, b in outside for c in range(a, b)):
                wrong.append(name)
    n = len(s.pairs) * 3
    if wrong:
        cure = "the tokenizer's offsets are wrong; save it anew as tokenizer.json"
        return [Row("spans", "FAIL", f"{len(wrong)} of {n} fields are not where their tokens say ({wrong[0]})", cure)]
    return [Row("spans", "ok", f"{n} of {n} fields lie in the tokens of their spans")]


def text_rows(s: Subject) -> list[Row]:
    """Whether a correction comes back from its tokens as it was, and whether a growing prefix keeps its tokens."""
    pairs, lm = s.pairs, s.lm
    back = [lm.decode(lm.encode_target(p.correction)) for p in pairs]
    lost = [(p.correction.strip(), text) for p, text in zip(pairs, back, strict=True) if p.correction.strip() != text]
    if lost:
        cure = "choose a model with a lossless tokenizer (byte-level, SentencePiece): this one can copy nothing exactly"
        rows = [
            Row(
                "text", "FAIL", f"{len(lost)} of {len(pairs)} come back changed: {lost[0][0]!r} as {lost[0][1]!r}", cure
            )
        ]
    else:
        rows = [Row("text", "ok", f"{len(pairs)} of {len(pairs)} sentences come back from their tokens unchanged")]
    sentences = [p.last if i == 0 else f" {p.last}" for i, p in enumerate(pairs)]
    grown = growth(lm.tokenizer, lm.template, pairs[0].question, sentences)
    said = f"{grown.changed} of {grown.steps} steps change earlier tokens, {grown.most} at most"
    cure = f"none needed: caches keep the common tokens; it costs time (at {grown.example!r})" if grown.changed else ""
    return [*rows, Row("prefix growth", "warn" if grown.changed else "ok", said, cure)]


def decoder_rows(s: Subject) -> list[Row]:
    """The lab's decoder, row by row, against `generate` of transformers."""
    n, new = GREEDY
    prompts = [s.lm.encode(p.question, p.prefix, p.last) for p in s.pairs[:n]]
    reason = unfit(s.lm)
    slow = [Row("decoder", "warn", f"decodes plainly, since {reason}", "set attention = 'sdpa' in an options file")]
    outputs = decode(s.lm, prompts, max_new_tokens=new)
    same = sum(o.ids == generated(s.lm, p.ids, new) for o, p in zip(outputs, prompts, strict=True))
    said = f"{same} of {len(prompts)} rows of {new} tokens equal transformers' generate"
    rows = slow if reason else []
    if same == len(prompts):
        return [*rows, Row("decoder", "ok", said)]
    if s.lm.model.dtype in (torch.float16, torch.bfloat16):
        return [*rows, Row("decoder", "warn", said, "near ties round differently; --dtype float32 tells")]
    return [*rows, Row("decoder", "FAIL", said, "run with --tricks and nothing behind it, and report the model")]


def generated(lm: LanguageModel, ids: Sequence[int], new: int) -> tuple[int, ...]:
    """What transformers' own greedy `generate` writes behind the ids, end token left out."""
    from transformers import GenerationConfig

    # the checkpoint's own settings (penalties, sampling) would fill what a configuration leaves open
    kept, lm.model.generation_config = lm.model.generation_config, GenerationConfig()
    config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=lm.eos_id, pad_token_id=lm.eos_id)
    try:
        given = torch.tensor([list(ids)], device=lm.device)
        out = lm.model.generate(given, attention_mask=torch.ones_like(given), generation_config=config)
    finally:
        lm.model.generation_config = kept
    wrote: list[int] = out[0, len(ids) :].tolist()
    return tuple(wrote[:-1] if wrote and wrote[-1] == lm.eos_id else wrote)


def copy_rows(s: Subject) -> list[Row]:
    """How many good sentences the model copies, and how many of its corrections are possible sentences."""
    prompts = [s.lm.encode(p.question, p.prefix, p.last) for p in s.pairs]
    outputs: list[Output] = decode(s.lm, prompts, max_new_tokens=s.task.max_sentence_tokens)
    texts = [s.lm.decode(list(o.ids)) for o in outputs]
    n = len(texts)
    copied = sum(text == p.last.strip() for p, text in zip(s.pairs, texts, strict=True))
    whole = zip(s.pairs, outputs, texts, strict=True)
    formed = sum(o.ended and s.task.well_formed(p, text) for p, o, text in whole)
    said = f"{copied} of {n} good sentences of {s.task.name} copied, {formed} of {n} corrections well-formed and ended"
    if copied >= ENOUGH * n:
        return [Row("copying", "ok", said)]
    cure = "train it on correction pairs, give the --template it was trained with, or a --task of its own"
    return [Row("copying", "warn", said, cure)]


CHECKS: tuple[tuple[str, Check], ...] = (
    ("template", template_rows),
    ("spans", span_rows),
    ("text", text_rows),
    ("decoder", decoder_rows),
    ("copying", copy_rows),
)
