"""A chat server as a judge: both orders of two answers are asked, and what depends on the order is a tie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from corrector.errors import UserError
from corrector.judges.base import Answer, Duel, Outcome, Verdict
from corrector.servers.chat import Chat, Message, Reply, traffic_line

RUBRICS = Path(__file__).parent / "rubrics"
FORMAT = (
    "Think as long as you need. Then end with one line, exactly one of these three, with nothing behind it:\n"
    "VERDICT: A\nVERDICT: B\nVERDICT: TIE"
)
VERDICT = re.compile(r"VERDICT: (A|B|TIE)")
WORDS = {"A": ("own", "other"), "B": ("other", "own"), "TIE": ("tie", "tie")}
"""What a verdict means when the run's own answer stands first, and when it stands second."""
WINNER: Mapping[str | None, Outcome] = {"own": "win", "other": "loss", "tie": "tie"}


def parse_verdict(reply: str) -> str | None:
    """`A`, `B` or `TIE` of a reply whose last line that is not blank is `VERDICT: …`, to the letter; else None."""
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    found = VERDICT.fullmatch(lines[-1]) if lines else None
    return found[1] if found else None


def read_rubric(name: str) -> tuple[str, str]:
    """(aspect, text) of a shipped rubric, or of a text file, whose stem is the aspect; UserError for neither."""
    shipped = sorted(p.stem for p in RUBRICS.glob("*.txt"))
    file = RUBRICS / f"{name}.txt" if name in shipped else Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"--rubric={name!r} is neither one of {', '.join(shipped)} nor a text file; give one of them")
    try:
        text = file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text ({error.reason}); save it as UTF-8") from None
    if not text:
        raise UserError(f"{file} is empty; write into it what the judge decides by")
    return file.stem, text


class ServerJudge:
    """Position-swapped comparison: an answer wins only where it wins in both orders.

    Orders that disagree are `swapped`, a tie that is counted apart; equal answers tie without being asked. A reply
    without a verdict in the format makes the duel `unparsed`; it is never guessed at.
    """

    def __init__(self, chat: Chat, rubrics: Mapping[str, str]) -> None:
        self.chat, self.rubrics = chat, rubrics

    @property
    def aspects(self) -> tuple[str, ...]:
        return tuple(self.rubrics)

    def verdicts(self, duels: Sequence[Duel]) -> list[Verdict]:
        todo = [(aspect, duel) for aspect in self.rubrics for duel in duels]
        prompts: list[list[Message]] = []
        asked: list[tuple[str, Duel]] = []
        for aspect, duel in todo:
            if duel.other is None:
                raise UserError("--judge server compares the answers of two runs; give the second one by --against")
            if duel.own.text == duel.other.text:
                continue
            asked.append((aspect, duel))
            for first, second in ((duel.own, duel.other), (duel.other, duel.own)):
                prompts.append(self._prompt(aspect, duel.question, first, second))
        replies = self.chat.ask(prompts, "judging")
        pairs = zip(replies[::2], replies[1::2], strict=True)
        said = {
            (aspect, duel.problem): _verdict(duel, aspect, *pair)
            for (aspect, duel), pair in zip(asked, pairs, strict=True)
        }
        return [said.get((a, d.problem)) or Verdict(d.problem, a, "tie", reason="equal answers") for a, d in todo]

    def said(self) -> str:
        return traffic_line(self.chat.counts)

    def _prompt(self, aspect: str, question: str, first: Answer, second: Answer) -> list[Message]:
        texts = {"Question": question, "Answer A": first.text, "Answer B": second.text}
        parts = [f"[{name}]\n{text}\n[end of {name.lower()}]" for name, text in texts.items()]
        system = f"{self.rubrics[aspect]}\n\n{FORMAT}"
        return [{"role": "system", "content": system}, {"role": "user", "content": "\n\n".join(parts)}]


def _verdict(duel: Duel, aspect: str, first: Reply, second: Reply) -> Verdict:
    own = tuple(_word(reply, place) for place, reply in enumerate((first, second)))
    orders = (own[0], own[1])
    for status in ("failed", "rejected"):
        if bad := next((r for r in (first, second) if r.status == status), None):
            return Verdict(duel.problem, aspect, status, orders=orders, reason=bad.reason)
    if None in orders:
        return Verdict(duel.problem, aspect, "unparsed", orders=orders)
    outcome: Outcome = WINNER[own[0]] if own[0] == own[1] else "swapped"
    return Verdict(duel.problem, aspect, outcome, orders=orders)


def _word(reply: Reply, place: int) -> str | None:
    said = parse_verdict(reply.text) if reply.status == "ok" else None
    return WORDS[said][place] if said else None
