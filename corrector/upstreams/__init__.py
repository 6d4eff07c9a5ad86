"""Upstream models: what writes the sentences that the corrector corrects."""

from __future__ import annotations

from corrector.upstreams.base import Request, State, Upstream, Writer, ask, derived_seed
from corrector.upstreams.choice import REPLAY, SERVER, Choice, Choosing, upstream_of
from corrector.upstreams.local import LOOKAHEAD, LocalUpstream, LocalWriter
from corrector.upstreams.replay import ReplayUpstream, ReplayWriter
from corrector.upstreams.served import Served
from corrector.upstreams.server import ServerUpstream, ServerWriter

__all__ = [
    "LOOKAHEAD",
    "REPLAY",
    "SERVER",
    "Choice",
    "Choosing",
    "LocalUpstream",
    "LocalWriter",
    "ReplayUpstream",
    "ReplayWriter",
    "Request",
    "Served",
    "ServerUpstream",
    "ServerWriter",
    "State",
    "Upstream",
    "Writer",
    "ask",
    "derived_seed",
    "upstream_of",
]
