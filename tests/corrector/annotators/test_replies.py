"""Replies of annotators are read to the letter."""

import pytest

from corrector.annotators import Dropped, Sentence, parse_annotation, read_instruction
from corrector.annotators.replies import request
from corrector.errors import UserError
from corrector.tasks.base import Annotation, Problem


@pytest.mark.parametrize(
    ("reply", "correction", "eos"),
    [
        ("CORRECTION: [[She has 3.]]\nEOS: [[FALSE]]", "She has 3.", False),
        ("I think so.\n\nCORRECTION: [[ She has 3. ]]\n\nEOS: [[TRUE]]\n", "She has 3.", True),
        ("CORRECTION: [[a [b] [[c]] d]]\nEOS: [[TRUE]]", "a [b] [[c]] d", True),
        ("CORRECTION: [[two\nlines]]\nEOS: [[TRUE]]", "two\nlines", True),
        ("CORRECTION: [[]]\nEOS: [[TRUE]]", "", True),
    ],
)
def test_replies_in_the_format(reply, correction, eos):
    assert parse_annotation(reply, "server/m") == Annotation(correction, None, "server/m", eos)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "She has 3.",
        "CORRECTION: [[She has 3.]]",
        "EOS: [[TRUE]]",
        "EOS: [[TRUE]]\nCORRECTION: [[x]]",
        "CORRECTION: [[x]] EOS: [[TRUE]]",
        "CORRECTION: [[x]]\nEOS: [[true]]",
        "CORRECTION: [[x]]\nEOS: [[TRUE|FALSE]]",
        "CORRECTION: [[x]]\nEOS: [[TRUE]]\nI hope this helps",
        "CORRECTION: [[x]]\nEOS: [[TRUE]]\nCORRECTION: [[y]]\nEOS: [[TRUE]]",
        "CORRECTION: x\nEOS: TRUE",
        "my CORRECTION: [[x]]\nEOS: [[TRUE]]",
        "correction: [[x]]\nEOS: [[TRUE]]",
    ],
)
def test_anything_else_is_unparsed(reply):
    assert parse_annotation(reply, "s") == Dropped("unparsed")


def test_the_instruction_has_the_three_rules_and_the_format(tmp_path):
    from pathlib import Path

    system, user = request(read_instruction(Path()), Sentence(Problem("p", "Q?"), "So far.", "Next.", 1))
    for part in ("Rewrite the bad", "Improve the neutral", "Keep the good", "CORRECTION: [[", "EOS: [[TRUE]]"):
        assert part in system
    assert [user.index(t) for t in ("Q?", "So far.", "Next.")] == sorted(
        user.index(t) for t in ("Q?", "So far.", "Next.")
    )
    own = tmp_path / "own.txt"
    own.write_text("do it")
    assert read_instruction(own) == "do it"
    with pytest.raises(UserError, match="cannot be read"):
        read_instruction(tmp_path / "absent.txt")
