"""A chat server as annotator."""

from __future__ import annotations

from collections.abc import Sequence

from corrector.annotators.base import FAILED, Dropped, Sentence
from corrector.annotators.replies import parse_annotation, request
from corrector.servers.chat import Chat, Message, traffic_line
from corrector.tasks.base import Annotation


class ServerAnnotator:
    """Asks a chat server under the instruction; replies are kept by the chat's folder."""

    def __init__(self, chat: Chat, instruction: str) -> None:
        self.chat, self.instruction = chat, instruction

    def annotate(self, sentences: Sequence[Sentence]) -> list[Annotation | Dropped]:
        source = f"server/{self.chat.server.model}"
        out: list[Annotation | Dropped] = []
        for reply in self.chat.ask([self._prompt(s) for s in sentences]):
            if reply.status == "ok":
                out.append(parse_annotation(reply.text, source))
            else:
                out.append(Dropped(FAILED if reply.status == "failed" else reply.status))
        return out

    def said(self) -> str:
        return traffic_line(self.chat.counts)

    def _prompt(self, s: Sentence) -> list[Message]:
        system, user = request(self.instruction, s)
        return [{"role": "system", "content": system}, {"role": "user", "content": user}]
