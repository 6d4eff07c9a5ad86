"""One sentence corrected: `corrector.correct(lm, question, prefix, last)`, with or without an intervention."""

from __future__ import annotations

from dataclasses import dataclass

from corrector.decoding import Steering, decode
from corrector.display.diff import Part, diff, marked, words
from corrector.display.table import Html, framed, paragraph
from corrector.metrics import Edit, edit
from corrector.models import LanguageModel

SHARED = 0.5
"""Share of words below which a diff is shown as a whole sentence for another."""


@dataclass(frozen=True)
class Correction:
    """What a corrector made of one sentence; a notebook shows it as a coloured diff."""

    question: str
    prefix: str
    """The answer before the sentence."""
    last: str
    """The sentence as the upstream wrote it."""
    correction: str
    """The sentence as the corrector wrote it."""
    edit: Edit
    """How far the two are apart."""
    tokens: tuple[int, ...]
    """Tokens of the correction, end token left out."""
    ended: bool
    """Whether it wrote its end token within its budget."""
    applied: int = 0
    """Applications of the intervention (tokens x layers)."""

    def _repr_html_(self) -> str:
        return framed(
            paragraph(self.question, "dim"),
            *([paragraph(self.prefix, "dim sentence")] if self.prefix else []),
            paragraph(shown(self.last, self.correction), "sentence"),
            paragraph(self._said(), "dim"),
        )

    def _said(self) -> str:
        e, n = self.edit, self.applied
        steered = f", steered at {n} place{'s' * (n > 1)}" if n else ""
        cut = "" if self.ended else ", cut off: no end token within its budget"
        if e.copied:
            return f"copied, {len(self.tokens)} tokens{steered}{cut}"
        where = f"first change at token {e.first_divergence}"
        return f"rewritten: edit ratio {e.edit_ratio:.2f}, length x {e.length_ratio:.2f}, {where}{steered}{cut}"


def shown(last: str, correction: str) -> Html:
    """The coloured diff of a sentence and its correction, word by word.

    Where less than half of the longer one is shared, the sentence stands as taken out and its correction as put in,
    since a few shared words among many others are hard to read and say little.
    """
    before, after = tuple(words(last)), tuple(words(correction))
    parts = diff(before, after)
    shared = sum(len(p.last) for p in parts if p.kind == "equal")
    if before and after and shared < SHARED * max(len(before), len(after)):
        parts = [Part("replace", before, (" ", *after))]
    return Html(marked(parts))


def correct(
    lm: LanguageModel, question: str, prefix: str, last: str, steering: Steering | None = None, max_new_tokens: int = 72
) -> Correction:
    """Correct one sentence greedily, behind the answer so far; `steering` is an intervention of one row.

    Raises UserError for an empty `last`, for text that a closed vocabulary lacks, and where the prompt fills the
    model's window.
    """
    prompt = lm.encode(question, prefix, last)
    (output,) = decode(lm, [prompt], max_new_tokens=max_new_tokens, steering=steering)
    text = lm.decode(list(output.ids))
    measured = edit(last, text, lm.encode_target(last)[:-1], list(output.ids))
    return Correction(question, prefix, last, text, measured, output.ids, output.ended, output.applied)
