"""Packed training rows: a problem's corrections behind its corrected answer, or an answer as an upstream writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

from corrector.models import LanguageModel
from corrector.prompts import Prompt, encode
from corrector.recipes import Train
from corrector.tasks.base import Example, Pair
from corrector.training.packing import Packed, Segment, pack


def corrector_row(
    lm: LanguageModel,
    example: Example,
    pairs: Sequence[Pair],
    config: Train,
    auxiliary: bool,
    sentences: Callable[[str], list[str]] | None = None,
) -> Packed:
    """A packed row of one problem: trunk, and a branch `prompt + correction` for each pair of upstream text.

    `first_weight` goes to a correction's first token; where `sentences` cuts it into spans, to the first token of
    each, so that a whole answer has it where a stream corrector would.
    """
    whole = lm.encode_upstream(example.problem.question, example.answer)
    trunk = config.trunk_weight if auxiliary else 0.0
    weights = [0.0 if i < whole.spans["prefix"][0] else trunk for i in range(len(whole))]
    branches: list[Segment] = []
    for pair in pairs:
        prompt = lm.encode(pair.question, pair.prefix, pair.last)
        target = lm.encode_target(pair.correction)
        last = config.last_weight if auxiliary and not pair.is_wrong else 0.0
        start, end = prompt.spans["last"]
        prompt_weights = [last if start <= i < end else 0.0 for i in range(len(prompt))]
        firsts = span_starts(lm, sentences(pair.correction)) if sentences else {0}
        target_weights = [config.first_weight if i in firsts else 1.0 for i in range(len(target))]
        branches.append(Segment((*prompt.ids, *target), (*prompt_weights, *target_weights)))
    return pack(Segment(whole.ids, tuple(weights)), branches)


def span_starts(lm: LanguageModel, spans: Sequence[str]) -> set[int]:
    """Indices in `encode_target("".join(spans))` of the tokens with which the spans begin."""
    prefix = lm.template.correction_prefix
    out = lm.tokenizer(prefix + "".join(spans), add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in out["offset_mapping"]]
    inner = list(accumulate(map(len, spans), initial=len(prefix)))[1:-1]
    return {0, *(next(i for i, end in enumerate(ends) if end > at) for at in inner)}


def written_row(lm: LanguageModel, question: str, written: Sequence[tuple[str, bool]]) -> Packed:
    """An answer as (span, own), as an upstream learns to write it; spans that are not its own are context, not loss.

    The whole text is tokenised once and the spans found by offsets, since a grown prefix may be cut into other tokens.
    The end token goes with the last span.
    """
    prompt = lm.template.render_upstream(question, "".join(text for text, _ in written))
    at, fields = prompt.fields["prefix"][0], {}
    for k, (text, _) in enumerate(written):
        fields[str(k)] = (at, at + len(text))
        at += len(text)
    row = encode(lm.tokenizer, Prompt(prompt.text, fields))
    weights = [0.0] * len(row)
    for k, (_, own) in enumerate(written):
        start, end = row.spans[str(k)]
        weights[start:end] = [float(own)] * (end - start)
    return pack(Segment((*row.ids, lm.eos_id), (*weights, float(written[-1][1]))), [])
