"""Annotators of sentences: the task's own rules, a local model, a chat server."""

from __future__ import annotations

from corrector.annotators.base import FAILED, Annotator, Dropped, Sentence
from corrector.annotators.model import ModelAnnotator
from corrector.annotators.replies import parse_annotation, read_instruction
from corrector.annotators.rounds import Made, make, pairs_of
from corrector.annotators.rule import RuleAnnotator
from corrector.annotators.server import ServerAnnotator
from corrector.annotators.shares import action, statistics_of

__all__ = [
    "FAILED",
    "Annotator",
    "Dropped",
    "Made",
    "ModelAnnotator",
    "RuleAnnotator",
    "Sentence",
    "ServerAnnotator",
    "action",
    "make",
    "pairs_of",
    "parse_annotation",
    "read_instruction",
    "statistics_of",
]
