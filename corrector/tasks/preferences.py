"""Sets of answers that people preferred or did not: HH-RLHF and BeaverTails."""

from __future__ import annotations

import re
from typing import ClassVar

import Levenshtein

from corrector.tasks.base import Problem
from corrector.tasks.dataset import DataSet
from corrector.tasks.facts import Facts
from corrector.tasks.fields import Fields

TURN = re.compile(r"\n\n(?=(?:Human|Assistant):)")
HUMAN, ASSISTANT = "Human:", "Assistant:"


class _Preferred(DataSet):
    """A set of whole answers; its stream pairs replace an answer's sentence by the preferred answer's at that place.

    That is a rule, and a coarse one: the two answers were written apart, so a correction need not revise what it
    replaces. `--annotator model` and `server` make corrections of the sentence itself.
    """

    outcomes: ClassVar[tuple[str, ...]] = ("nearer_preferred",)

    def grade(self, problem: Problem, answer: str) -> dict[str, float]:
        """1 where the answer is more alike to a preferred answer than to any other one, 0 where less, 0.5 for a tie.

        Alike is Levenshtein's ratio, of characters. It says which answer was approached, not which is better.
        """
        facts = self._facts[problem.id]
        good, bad = ([text for f in facts for text in texts(f)] for texts in (lambda f: f.good, lambda f: f.bad))
        nearest = [max(Levenshtein.ratio(answer.strip(), text) for text in texts) for texts in (good, bad)]
        gap = nearest[0] - nearest[1]
        return {"nearer_preferred": 0.5 + 0.5 * ((gap > 0) - (gap < 0))}


class HhRlhf(_Preferred):
    """HH-RLHF (2204.05862): the question is the dialogue before the last answer, which is chosen or rejected.

    A dialogue of one question is that question alone; a longer one keeps its turns, named Human and Assistant.
    """

    name: ClassVar[str] = "hh-rlhf"
    fields: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    hub: ClassVar[str] = "Anthropic/hh-rlhf"

    def facts(self, row: Fields) -> Facts | str:
        chosen, rejected = (_turns(row, name) for name in ("chosen", "rejected"))
        if chosen[:-1] != rejected[:-1]:
            return "rows whose dialogues part before the last answer"
        good, bad = (turns[-1].removeprefix(ASSISTANT).strip() for turns in (chosen, rejected))
        if not good or not bad or good == bad:
            return "rows with an empty answer, or two equal ones"
        asked = chosen[:-1]
        question = asked[0].removeprefix(HUMAN).strip() if len(asked) == 1 else "\n\n".join(asked)
        return Facts(question, good=(good,), bad=(bad,)) if question else "rows without a question"


def _turns(row: Fields, name: str) -> list[str]:
    turns = [turn.strip() for turn in TURN.split("\n\n" + row.text(name).strip()) if turn.strip()]
    if len(turns) < 2 or not turns[0].startswith(HUMAN) or not turns[-1].startswith(ASSISTANT):
        raise row.wrong(name, "a dialogue of Human: and Assistant: turns that ends in an Assistant's")
    return turns


class BeaverTails(_Preferred):
    """BeaverTails (2307.04657): answers that people found safe or not; the safe ones are preferred."""

    name: ClassVar[str] = "beavertails"
    fields: ClassVar[tuple[str, ...]] = ("prompt", "response", "is_safe")
    hub: ClassVar[str] = "PKU-Alignment/BeaverTails"
    splits: ClassVar[tuple[str, ...]] = ("30k_train", "30k_test")
    rejected: ClassVar[str] = "unsafe"

    def facts(self, row: Fields) -> Facts | str:
        safe, question = row.flag("is_safe"), row.text("prompt").strip()
        response = row.text("response", empty=True).strip()
        if not response:
            return "rows with an empty answer"
        return Facts(question, good=(response,)) if safe else Facts(question, bad=(response,))
