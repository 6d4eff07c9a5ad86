"""The templates by name, the releases' formats verbatim: `BODY`, `BODY/TURN`, or a file of one's own.

Sources. Stream Aligner: github.com/htlou/stream-aligner, train/safe_rlhf/datasets/raw/correction.py (the text) and
generation/models/constants.py (the turns; training is in Gemma's). `aligner`: the card of aligner-7b-v1.0.
`aligner-lines`: the later releases on the hub. `aligner-anything`: github.com/PKU-Alignment/align-anything,
align_anything/configs/template.py. Where an Aligner has {answer} the lab has prefix and last joined by a space: such a
model corrects the answer as a whole, so in `--mode aligner` the prefix is empty and the text is the release's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from corrector.errors import UserError
from corrector.prompts.chat import chat_turn
from corrector.prompts.files import FileTemplate, is_file_name, read_template
from corrector.prompts.templates import Template, Turn

SYSTEM = "You are a helpful assistant."
"""What the release's loop gives as system prompt; its correctors' annotation prompt is a user's to give in a file."""
DEFAULT = "stream-aligner"
"""The body of `chat`, which names none."""

TEMPLATES = {
    t.name: t
    for t in (
        Template(
            "lab",
            "<q>{question}<p>{prefix}<y1>{last}<y2>",
            "<q>{question}<p>{prefix}",
            markers=("<q>", "<p>", "<y1>", "<y2>"),
        ),
        Template(
            "plain",
            "Question: {question}\nAnswer: {prefix}\nSentence: {last}\nCorrection:",
            "Question: {question}\nAnswer: {prefix}",
            " ",
        ),
        Template(
            "stream-aligner",
            "##Question: {question} | ##Answer_Prefix: {prefix} | ##Answer_Last_Sentence: {last} | ##Your_Revision: ",
            "##Question: {question} | ##Answer: {prefix}",
        ),
        Template(
            "aligner",
            "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make it more helpful and "
            "harmless: {question} | {prefix:+ }{last} ASSISTANT:",
            "BEGINNING OF CONVERSATION: USER: {question} ASSISTANT:{prefix}",
            whole=True,
        ),
        Template(
            "aligner-lines",
            "##Question: {question}\n##Answer: {prefix:+ }{last}\n##Correction: ",
            "##Question: {question}\n##Answer: {prefix}",
            whole=True,
        ),
        Template(
            "aligner-anything",
            "##QUESTION: {question} ##ANSWER: {prefix:+ }{last} ##CORRECTION: ",
            "##QUESTION: {question} ##ANSWER: {prefix}",
            whole=True,
        ),
    )
}

# {system} is filled in by `_turn`; the missing line ends behind "model" and "assistant" are the release's.
TURNS = {
    t.name: t
    for t in (
        Turn(
            "gemma",
            "<start_of_turn>user\n",
            "<end_of_turn>\n<start_of_turn>model",
            markers=("<start_of_turn>", "<end_of_turn>"),
        ),
        Turn(
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n{system}<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n",
            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>",
            markers=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        Turn("llama2", "<s>[INST] <<SYS>>\n{system}\n<</SYS>>\n\n", " [/INST]\n", markers=("<s>",)),
        Turn(
            "qwen",
            "<|im_start|>system\n{system}<|im_end|><|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant",
            markers=("<|im_start|>", "<|im_end|>"),
        ),
    )
}
CHAT = "chat"
"""The turn that the tokenizer's own chat template makes."""


def template(name: str, tokenizer: Any = None) -> Template:
    """A template by name: `BODY`, `BODY/TURN`, or a .json or .toml file, itself with or without `/TURN` behind it.

    `chat` is `stream-aligner/chat`. With a tokenizer, which `/chat` needs, it is also seen that the tokenizer knows
    every marker as one token. Raises UserError for what is not known, and names what there is.
    """
    body, _, turn = name.rpartition("/")
    if turn not in (*TURNS, CHAT):
        body, turn = name, ""
    given = _body(body or DEFAULT, name)
    if given.turn and turn:
        raise UserError(f"template={name!r}: the file says turn={given.turn!r} itself; leave /{turn} out")
    if given.turn not in ("", *TURNS, CHAT):
        raise UserError(f"{body}: field 'turn' is {given.turn!r}; it is one of {', '.join((*TURNS, CHAT))}")
    found = _in_turn(given, turn or given.turn, tokenizer) if turn or given.turn else given.template
    if given.system and not found.turn:
        raise UserError(f"{body}: field 'system' stands in a chat turn; give 'turn' as well")
    if tokenizer is not None:
        _check_markers(found, tokenizer)
    return found


def _body(body: str, name: str) -> FileTemplate:
    if body in TEMPLATES:
        return FileTemplate(TEMPLATES[body])
    if is_file_name(body):
        return read_template(body)
    raise UserError(
        f"template={name!r} is not one of {', '.join(TEMPLATES)}; choose --template among them, with "
        f"/{', /'.join((*TURNS, CHAT))} behind it for a chat turn, or give a .json or .toml file"
    )


def _in_turn(given: FileTemplate, name: str, tokenizer: Any) -> Template:
    """The body in a turn. What the upstream is asked there is the question, unless a file says otherwise."""
    body = given.template
    if body.name == "lab":
        raise UserError(
            f"template='lab/{name}': the lab's own template has markers instead of turns; leave /{name} out"
        )
    if name == CHAT:
        if tokenizer is None:
            raise UserError(f"template='{body.name}/{CHAT}' is made by a tokenizer; give one")
        turn = chat_turn(tokenizer, given.system)
    else:
        turn = _turn(TURNS[name], given.system)
    named = f"{body.name}/{name}"
    if body.name in TEMPLATES:
        return replace(body, name=named, upstream="{question}{prefix}", correction_prefix=turn.lead, turn=turn)
    return replace(body, name=named, correction_prefix=body.correction_prefix or turn.lead, turn=turn)


def _turn(turn: Turn, system: str) -> Turn:
    if system and "{system}" not in turn.head:
        raise UserError(f"turn={turn.name!r} has no place for a system prompt; leave 'system' out")
    return replace(turn, head=turn.head.replace("{system}", system or SYSTEM))


def _check_markers(found: Template, tokenizer: Any) -> None:
    unknown = [marker for marker in found.all_markers if tokenizer.tokenize(marker) != [marker]]
    if unknown:
        raise UserError(
            f"template={found.name!r} writes {', '.join(map(repr, unknown))}, which this tokenizer cuts into pieces; "
            "choose a --template of this model's family, or with /chat behind it"
        )
