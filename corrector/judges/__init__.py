"""Judges of answers: the task's own scorer, a reward or cost model, a chat server."""

from __future__ import annotations

from corrector.judges.base import DECIDED, SKIPPED, Answer, Duel, Judge, Outcome, Verdict, scored
from corrector.judges.model import ModelJudge, RewardModel, check_pattern, load_reward_model
from corrector.judges.server import ServerJudge, parse_verdict, read_rubric
from corrector.judges.task import TaskJudge

__all__ = [
    "DECIDED",
    "SKIPPED",
    "Answer",
    "Duel",
    "Judge",
    "ModelJudge",
    "Outcome",
    "RewardModel",
    "ServerJudge",
    "TaskJudge",
    "Verdict",
    "check_pattern",
    "load_reward_model",
    "parse_verdict",
    "read_rubric",
    "scored",
]
