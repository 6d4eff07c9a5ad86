"""`corrector.correct` and how a correction, an alignment and a model show themselves."""

from __future__ import annotations

import dataclasses

import pytest

import corrector
from corrector.correction import Correction, correct, shown
from corrector.decoding import decode
from corrector.errors import UserError
from corrector.loop import Alignment
from corrector.metrics import edit
from corrector.models import LanguageModel
from corrector.pipeline import Round
from corrector.tasks.base import Problem
from steering.interventions import Intervention

EVIL = "<script>alert('x')</script>"


def made(last: str, correction: str, **other: object) -> Correction:
    a, b = list(last.encode()), list(correction.encode())
    whole = Correction("Why?", "Since.", last, correction, edit(last, correction, a, b), tuple(b), True)
    return dataclasses.replace(whole, **other)


def test_correct_is_the_decoder_of_one_prompt(tiny_lm: LanguageModel) -> None:
    found = corrector.correct(tiny_lm, "Tom has 3 apples.", "", "Tom has 4 pens.", max_new_tokens=12)
    (output,) = decode(tiny_lm, [tiny_lm.encode("Tom has 3 apples.", "", "Tom has 4 pens.")], max_new_tokens=12)
    assert found.tokens == output.ids and found.ended == output.ended
    assert found.correction == tiny_lm.decode(list(output.ids))
    assert found.edit.copied == (found.correction == "Tom has 4 pens.") and found.applied == 0


def test_coefficient_0_changes_nothing_and_another_is_counted(tiny_lm: LanguageModel) -> None:
    asked = (tiny_lm, "Tom has 3 apples.", "", "Tom has 4 pens.")
    vector = {1: tiny_lm.model.get_input_embeddings().weight[9].detach().clone() * 30}
    zero, one = (correct(*asked, Intervention.of(vector, c), max_new_tokens=8) for c in (0.0, 1.0))
    assert zero == correct(*asked, max_new_tokens=8)
    assert one.applied == 1 and "steered at 1 place" in one._repr_html_()


def test_an_empty_sentence_is_refused(tiny_lm: LanguageModel) -> None:
    with pytest.raises(UserError, match="last='' has no edit ratio"):
        correct(tiny_lm, "Tom has 3 apples.", "", "", max_new_tokens=4)


def test_a_correction_shows_a_diff_and_what_became_of_it() -> None:
    html = made("He has 3 pens.", "He has 4 pens.")._repr_html_()
    assert "He has<del> 3</del><ins> 4</ins> pens." in html and "rewritten: edit ratio 0.07" in html
    assert "Why?" in html and "Since." in html
    assert "copied, 4 tokens" in made("Yes.", "Yes.")._repr_html_()
    assert "cut off" in made("Yes.", "No.", ended=False)._repr_html_()


def test_what_shares_little_is_shown_as_a_whole_for_another() -> None:
    assert shown("a b c d", "a x y z") == "<del>a b c d</del><ins> a x y z</ins>"
    assert shown("a b c d", "a b c e") == "a b c<del> d</del><ins> e</ins>"


def test_text_is_shown_as_text() -> None:
    html = made(f"{EVIL} b", f"{EVIL} c", question=EVIL, prefix=EVIL)._repr_html_()
    assert "<script" not in html and html.count("&lt;") >= 4


def test_an_alignment_is_a_table_of_its_rounds() -> None:
    rounds = (
        Round("", "2 + 2 is 5.", "2 + 2 is 4."),
        Round("2 + 2 is 4.", EVIL, EVIL),
        Round("2 + 2 is 4.", "So 4.", None),
    )
    problem = Problem("p", f"How much? {EVIL}", "4")
    html = Alignment(problem, "2 + 2 is 4. So 4.", rounds, "end", {"correct": 1.0})._repr_html_()
    assert html.count("<tr>") == 4 and "<script" not in html
    assert "<del> 5</del><ins> 4</ins>" in html
    assert all(f"<td>{word}</td>" in html for word in ("rewritten", "copied", "not corrected"))
    assert "correct 1; gold: 4; stopped by end" in html


def test_a_model_says_what_it_is(tiny_lm: LanguageModel) -> None:
    n = sum(w.numel() for w in tiny_lm.model.parameters())
    assert repr(tiny_lm) == f"LanguageModel('random-llama': LlamaForCausalLM, 4 layers, {n:,} parameters, template lab)"
    assert "a model organism" in repr(dataclasses.replace(tiny_lm, card={"model_organism": True}))
