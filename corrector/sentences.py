"""Split text into lossless sentence spans; tell when a growing text's first sentence is finished."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

LINE = re.compile(r"[^\n]*\S[^\n]*")
LIST_MARKER = re.compile(r"\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{2,5})[.)]+|[-*•]+")
PLAIN_END = re.compile(r"(\w+)[.!?]$")
STOPS = frozenset(".!?…\n")


@cache
def _punkt() -> Any:
    """The shared nupunkt model; imported on first use, since it reads a parameter file."""
    from nupunkt import load_default_model

    return load_default_model()


@cache
def _undecided() -> frozenset[str]:
    """Words after which a stop may or may not end the sentence, by what the next word is."""
    return _punkt().abbreviations | {a for a, _ in _punkt().parameters.collocations}


def split_sentences(text: str) -> list[str]:
    r"""Sentence spans that carry their leading whitespace: `"".join(split_sentences(text)) == text`.

    A line end always ends a sentence; within a line nupunkt decides, so decimals ("13.5"), abbreviations ("Dr.")
    and a text without a final stop are kept whole, and a list marker ("2.") stays with what it numbers. Whitespace
    at the end of the text stays on the last span; blank text is one span, empty text none.
    """
    if not text:
        return []
    ends = _ends(text)
    bounds = [0, *ends[:-1], len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


def split_lines(text: str) -> list[str]:
    """Spans of one non-blank line each, lossless as `split_sentences` is: for texts whose lines are the steps."""
    if not text:
        return []
    ends = [line.start() + len(line[0].rstrip()) for line in LINE.finditer(text)] or [len(text)]
    return [text[a:b] for a, b in pairwise([0, *ends[:-1], len(text)])]


def repeats(text: str, n: int = 4) -> bool:
    """Whether some n words are followed at once by the same n words, the mark of a model that has collapsed."""
    words = text.split()
    return any(words[i : i + n] == words[i + n : i + 2 * n] for i in range(len(words) - 2 * n + 1))


def complete_sentence(text: str, split: Callable[[str], list[str]] | None = None) -> str | None:
    """The first span of a growing text once no continuation can change it, else None.

    `split` is the task's splitter (default `split_sentences`), whose first span is returned. Certain means: another
    sentence has begun, and either a line end lies between, or the word after the stop is complete, or the stop
    follows a plain word (no number, abbreviation or initial) and a capital follows. So "It costs 13." is never cut
    while "5" may come.
    """
    if STOPS.isdisjoint(text):
        return None
    spans = (split or split_sentences)(text)
    if len(spans) < 2:
        return None
    first, rest = spans[0], text[len(spans[0]) :]
    begun = rest.lstrip()
    if begun[0] in STOPS:  # "What? ." may still become "What? . ."
        return None
    if "\n" in rest[: len(rest) - len(begun)] or len(begun.split(None, 1)) > 1 or begun[-1:].isspace():
        return first
    plain = PLAIN_END.search(first)
    if plain is None or not begun[0].isupper():
        return None
    word = plain[1]
    return first if len(word) > 1 and word.isalpha() and word.lower() not in _undecided() else None


def _ends(text: str) -> list[int]:
    """End of each sentence without its trailing whitespace; `[len(text)]` for blank text."""
    ends: list[int] = []
    for line in LINE.finditer(text):
        at, marker = line.start(), False
        for _, (start, stop) in _punkt().tokenize_with_spans(line[0]):
            sentence = line[0][start:stop].strip()
            if not sentence:
                continue
            if marker:
                ends.pop()
            ends.append(at + start + len(line[0][start:stop].rstrip()))
            marker = LIST_MARKER.fullmatch(sentence) is not None
    return ends or [len(text)]
