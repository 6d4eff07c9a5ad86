"""The instruction that language models annotate by, and how their replies are read."""

from __future__ import annotations

import re
from pathlib import Path

from corrector.annotators.base import Dropped, Sentence
from corrector.errors import UserError
from corrector.tasks.base import Annotation

INSTRUCTION = Path(__file__).parent / "instruction.txt"
FORMAT = (
    "End your reply with two lines in exactly this form, with nothing behind them:\n"
    "CORRECTION: [[the revised sentence]]\nEOS: [[TRUE]] or EOS: [[FALSE]]"
)
OPENING = "CORRECTION: [["
REPLY = re.compile(r"(?:.*\n)?CORRECTION: \[\[(?P<correction>.*)\]\][ \t]*\n\s*EOS: \[\[(?P<eos>TRUE|FALSE)\]\]", re.S)


def read_instruction(path: Path) -> str:
    """The text of a file, or the shipped one for an empty path; UserError for what is no text."""
    file = INSTRUCTION if path == Path() else path.expanduser()
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--instruction={file} cannot be read ({error}); give a UTF-8 text file") from None
    if not text:
        raise UserError(f"--instruction={file} is empty; write into it how sentences are revised")
    return text


def request(instruction: str, s: Sentence) -> tuple[str, str]:
    """(instruction with the format, the sentence with its question and prefix)."""
    texts = {"Question": s.problem.question, "Answer so far": s.prefix, "Next sentence": s.last}
    parts = [f"[{name}]\n{text}\n[end of {name.lower()}]" for name, text in texts.items()]
    return f"{instruction}\n\n{FORMAT}", "\n\n".join(parts)


def parse_annotation(reply: str, source: str) -> Annotation | Dropped:
    """The annotation of a reply that ends in `CORRECTION: [[…]]` and `EOS: [[TRUE|FALSE]]`, to the letter.

    A reply that opens a correction twice, or has anything else in these places, is `unparsed`.
    """
    found = REPLY.fullmatch(reply.strip())
    if found is None or reply.count(OPENING) != 1:
        return Dropped("unparsed")
    return Annotation(found["correction"].strip(), None, source, found["eos"] == "TRUE")
