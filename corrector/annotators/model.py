"""A model in this process as annotator: a corrector by its own template, or an instructed language model."""

from __future__ import annotations

from collections.abc import Sequence

from corrector.annotators.base import Dropped, Sentence
from corrector.annotators.replies import parse_annotation, request
from corrector.decoding import Output, decode, fits_window
from corrector.errors import UserError
from corrector.models import LanguageModel
from corrector.prompts import Encoded, check_known
from corrector.tasks.base import Annotation

REASONING = 512
"""Tokens that an instructed model may write beside the correction."""


class ModelAnnotator:
    """Greedy. With an instruction the reply is read as a server's; without one the output is the correction itself."""

    def __init__(self, lm: LanguageModel, max_tokens: int, instruction: str = "", batch_size: int = 64) -> None:
        self.lm, self.instruction, self.batch_size = lm, instruction, batch_size
        self.budget = max_tokens + (REASONING if instruction else 0)

    def annotate(self, sentences: Sequence[Sentence]) -> list[Annotation | Dropped]:
        prompts = [self._prompt(s) for s in sentences]
        ready = [p for p in prompts if isinstance(p, Encoded)]
        outputs = iter(decode(self.lm, ready, max_new_tokens=self.budget, batch_size=self.batch_size) if ready else [])
        return [p if isinstance(p, Dropped) else self._read(next(outputs)) for p in prompts]

    def said(self) -> str:
        return ""

    def _read(self, output: Output) -> Annotation | Dropped:
        text, source = self.lm.decode(list(output.ids)), f"model/{self.lm.ref}"
        if self.instruction:
            return parse_annotation(text, source)
        return Annotation(text, None, source) if output.ended else Dropped("no end")

    def _prompt(self, s: Sentence) -> Encoded | Dropped:
        try:
            prompt = self._chat(s) if self.instruction else self.lm.encode(s.problem.question, s.prefix, s.last)
        except UserError:
            if not self.instruction:  # a question that it cannot read is the user's to cure
                self.lm.encode(s.problem.question, "", "")
            return Dropped("unreadable")
        return prompt if fits_window(self.lm, len(prompt), self.budget) else Dropped("too long")

    def _chat(self, s: Sentence) -> Encoded:
        # one turn, since some chat templates know no system role
        text = "\n\n".join(request(self.instruction, s))
        tokenizer = self.lm.tokenizer
        if tokenizer.chat_template:
            turns = [{"role": "user", "content": text}]
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        else:
            text += "\n\n"
        out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids = tuple(out["input_ids"])
        check_known(tokenizer, list(ids), lambda i: text[slice(*out["offset_mapping"][i])])
        return Encoded(ids, {"prompt": (0, len(ids)), "prompt_last": (len(ids) - 1, len(ids))})
