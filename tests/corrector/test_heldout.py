import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from corrector import heldout
from corrector.decoding import Output
from corrector.errors import UserError, run_cli
from corrector.heldout import (
    Heldout,
    aligner_scores,
    calibration,
    corrector_scores,
    measure_of,
    rate,
    run,
    upstream_scores,
    variant,
)
from corrector.loop import Alignment
from corrector.models import LanguageModel, load
from corrector.prompts import template
from corrector.statistics import wilson
from corrector.tasks.base import Pair, Problem
from corrector.tasks.dialogue import Dialogue

GOOD, FINE, BAD, MIDDLE = "Tom has pens", "Ann has pens", "Tom sells coins", "Mia eats apples"
WRITTEN = {GOOD: GOOD, FINE: "Ann has bags", BAD: "Ann gives coins", MIDDLE: MIDDLE}
"""What the corrector writes for each sentence: copied, rewritten for nothing, mended as annotated, missed."""


def pair(last, correction, kind, badness):
    return Pair(f"p-{last}", "so how many", "", last, correction, kind == "bad", kind, badness)


class Known(Dialogue):
    """Four sentences whose corrections are known; only bad ones can be told right or wrong."""

    rewrite_openers = ()
    sentences_of = (
        pair(GOOD, GOOD, "good", 0.1),
        pair(FINE, FINE, "good", 0.4),
        pair(BAD, "Ann gives coins", "bad", 1.9),
        pair(MIDDLE, "Mia gets apples", "bad", 1.0),
    )

    def pairs(self, split, n, seed=0):
        assert split == "test"
        return list(self.sentences_of[:n])

    def is_right(self, pair, sentence):
        return sentence == pair.correction if pair.kind == "bad" else None

    def well_formed(self, pair, sentence):
        return sentence != "Ann has bags"

    def rewrite_probability(self, pair):
        return {GOOD: 0.1, FINE: 0.4, BAD: 0.9, MIDDLE: 0.5}[pair.last]


@pytest.fixture
def stubbed(tiny_lm, monkeypatch):
    """The tiny model with a decoder that writes WRITTEN; the missed sentence does not end."""

    def decode(lm, prompts, **_):
        lasts = [lm.decode(list(p.ids[slice(*p.spans["last"])])) for p in prompts]
        return [Output(tuple(lm.encode_target(WRITTEN[t])[:-1]), t != MIDDLE) for t in lasts]

    monkeypatch.setattr(heldout, "decode", decode)
    return tiny_lm


def means(group):
    return {name: (score["mean"], score["n"]) for name, score in group.items()}


def test_rates_are_counted_by_kind_and_by_badness(stubbed):
    got = corrector_scores(stubbed, Known(), 4, 0)
    assert set(got) == {"ended", "all", "good", "bad", "b < 0.5", "b > 1.5"}
    assert (got["ended"]["mean"], got["ended"]["n"]) == (0.75, 4)
    # right_after is left out of groups where the task cannot tell of every sentence
    assert means(got["all"]) == {"copied": (0.5, 4), "exact": (0.5, 4), "well_formed": (0.75, 4)}
    assert means(got["good"]) == {"copied": (0.5, 2), "exact": (0.5, 2), "well_formed": (0.5, 2)}
    assert got["b < 0.5"] == got["good"]
    assert means(got["bad"]) == {"copied": (0.5, 2), "exact": (0.5, 2), "right_after": (0.5, 2), "well_formed": (1, 2)}
    assert means(got["b > 1.5"]) == {"copied": (0, 1), "exact": (1, 1), "right_after": (1, 1), "well_formed": (1, 1)}


def test_a_group_without_sentences_is_left_out(stubbed):
    assert set(corrector_scores(stubbed, Known(), 2, 0)) == {"ended", "all", "good", "b < 0.5"}


def test_rates_come_with_wilsons_interval():
    interval = wilson(3, 10)
    expected = {"mean": 0.3, "low": round(interval.low, 4), "high": round(interval.high, 4), "n": 10}
    assert rate([True] * 3 + [False] * 7) == expected


def test_calibration_is_the_first_tokens_mass_on_the_openers_against_the_law(tiny_lm, monkeypatch):
    monkeypatch.setattr(Known, "rewrite_openers", ("Tom", "Ann has", "pens"))
    pairs = Known().pairs("test", 4)
    first = [tiny_lm.tokenizer.convert_tokens_to_ids(t) for t in ("Tom", "Ann", "pens")]
    mass = []
    for p in pairs:
        ids = torch.tensor([tiny_lm.encode(p.question, p.prefix, p.last).ids])
        with torch.no_grad():
            mass.append(float(tiny_lm.model(input_ids=ids).logits[0, -1].double().softmax(-1)[first].sum()))
    assert max(mass) > 1e-3
    error = np.array(mass) - np.array([0.1, 0.4, 0.9, 0.5])
    got = calibration(tiny_lm, Known(), pairs)
    assert got["mean_absolute_error"] == pytest.approx(np.abs(error).mean(), abs=1e-4)
    assert got["bias"] == pytest.approx(error.mean(), abs=1e-4) and got["n"] == 4


def test_a_task_with_openers_is_scored_for_validity_and_calibration(stubbed, monkeypatch):
    monkeypatch.setattr(Known, "rewrite_openers", ("Tom",))
    monkeypatch.setattr(Known, "is_valid", lambda self, pair, sentence: sentence == pair.last)
    got = corrector_scores(stubbed, Known(), 4, 0)
    assert got["valid"]["mean"] == 0.5 and got["calibration"] == calibration(stubbed, Known(), Known().pairs("test", 4))


def test_upstream_scores_are_mean_outcomes_greedy_and_at_the_tasks_temperature(tiny_lm, monkeypatch):
    def align(problems, upstream, *, task, mode):
        assert mode == "upstream" and upstream.lm is tiny_lm and upstream.seed == 3
        helpful = [0.0, 1.0] if upstream.temperature == 0 else [0.5, 1.0]
        return [Alignment(p, "", (), "end", {"helpful": h}) for p, h in zip(problems, helpful, strict=True)]

    monkeypatch.setattr(heldout, "align", align)
    monkeypatch.setattr(Known, "problems", lambda self, split, n, seed: [Problem(f"{split}-{i}", "") for i in range(n)])
    got = upstream_scores(tiny_lm, Known(), 2, 3)
    assert got == {"n": 2, "greedy": {"helpful": 0.5}, f"temperature {Dialogue.temperature:g}": {"helpful": 0.75}}
    monkeypatch.setattr(Known, "temperature", 0.0)
    assert set(upstream_scores(tiny_lm, Known(), 2, 3)) == {"n", "greedy"}


def test_an_aligner_is_scored_on_whole_answers_of_the_tasks_upstream(tiny_lm, monkeypatch):
    problems = [Problem("a", "so how many"), Problem("b", "how many more")]
    drafts = {"a": "Tom has pens. Ann has bags.", "b": "Mia eats apples."}
    corrected = {"a": "Tom has coins.", "b": "Mia eats apples."}

    def align(problems, upstream, *, task, mode):
        assert mode == "upstream" and upstream == ("upstream", "", 7)
        return [Alignment(p, drafts[p.id], (), "end", {}) for p in problems]

    def decode(lm, prompts, *, max_new_tokens, **_):
        assert max_new_tokens == heldout.ANSWER_TOKENS
        texts = [{part: lm.decode(list(p.ids[slice(*p.spans[part])])) for part in p.spans} for p in prompts]
        assert [(t["question"], t["prefix"], t["last"]) for t in texts] == [
            (p.question, "", drafts[p.id]) for p in problems
        ]
        return [Output(tuple(lm.encode_target(corrected[p.id])[:-1]), p.id == "a") for p in problems]

    monkeypatch.setattr(heldout, "align", align)
    monkeypatch.setattr(heldout, "decode", decode)
    monkeypatch.setattr(heldout, "upstream_of", lambda chosen, *_: ("upstream", chosen.upstream, chosen.seed))
    monkeypatch.setattr(Known, "problems", lambda self, split, n, seed: problems)
    monkeypatch.setattr(Known, "grade", lambda self, problem, answer: {"helpful": float(len(answer.split()))})
    got = aligner_scores(tiny_lm, Known(), 2, 7)
    assert (got["ended"]["mean"], got["copied"]["mean"], got["copied"]["n"]) == (0.5, 0.5, 2)
    assert got["draft"] == {"helpful": 4.5} and got["corrected"] == {"helpful": 3.0}


@pytest.mark.parametrize(
    ("card", "measure"),
    [
        ({"role": "corrector"}, corrector_scores),
        ({"role": "corrector", "method": "stream"}, corrector_scores),
        ({"role": "corrector", "method": "aligner"}, aligner_scores),
        ({"role": "upstream", "method": "dpo"}, upstream_scores),
    ],
)
def test_a_card_says_by_what_it_is_measured(card, measure, tiny_lm):
    assert measure_of(replace(tiny_lm, card=card)) is measure


@pytest.fixture
def checkpoint(make_lm, tmp_path):
    """`checkpoint(role)`: the folder of a random model that knows two test problems of `dialogue`."""
    task = Dialogue()
    texts = [*task.rewrite_openers, *(t for p in task.pairs("test", 2) for t in (p.question, p.prefix, p.last))]
    texts += task.rewrite_openers

    def make(role):
        lm = make_lm("llama", texts=texts, n_layers=1)
        lm.model.save_pretrained(tmp_path)
        lm.tokenizer.save_pretrained(tmp_path)
        card = {"template": "lab", "role": role, "recipe": {"task": "dialogue"}}
        (tmp_path / "card.json").write_text(json.dumps(card))
        return tmp_path

    return make


@pytest.mark.parametrize(("role", "keys"), [("corrector", {"all", "calibration", "valid"}), ("upstream", {"greedy"})])
def test_run_scores_by_role_and_adds_the_scores_to_the_card(checkpoint, role, keys, capsys):
    folder = checkpoint(role)
    scores = run(Heldout(folder, n=2))
    assert keys <= set(scores) and json.loads(capsys.readouterr().out) == scores
    card = json.loads((folder / "card.json").read_text())
    assert card == {"template": "lab", "role": role, "recipe": {"task": "dialogue"}, "held_out": scores}


def test_the_model_is_measured_where_and_as_precisely_as_asked(checkpoint, monkeypatch):
    seen = []
    monkeypatch.setattr(heldout, "load", lambda *a, **named: seen.append(named) or load(*a, **named))
    run(Heldout(checkpoint("upstream"), n=2, dtype="bfloat16"))
    assert seen == [{"device": "cpu", "dtype": "bfloat16"}]


def test_a_folder_without_card_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["heldout", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        run_cli(Heldout, run, "corrector.heldout")
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and len(said) == 1 and "has no card.json" in said[0]


def test_an_opener_belongs_to_arithmetic():
    assert variant("arithmetic", opener="Instead").opener == "Instead"
    assert variant("dialogue").name == "dialogue"
    with pytest.raises(UserError, match="--opener='Instead' is for task arithmetic, not 'dialogue'"):
        variant("dialogue", opener="Instead")


@pytest.mark.parametrize(
    ("n", "questions", "pairs", "said"),
    [
        (0, 5, 5, "n=0 is below 1; choose --n 1 or more"),
        (5, 0, 0, "task 'dialogue' has no test questions; give --data with more of them"),
        (5, 5, 0, "task 'dialogue' has 0 test pairs of 5 questions; give --data whose test split has some"),
    ],
)
def test_nothing_to_score_is_one_line_with_its_cure(tmp_path, monkeypatch, n, questions, pairs, said):
    class Empty(Dialogue):
        def size(self, split):
            return questions

        def pairs(self, split, n, seed=0):
            return super().pairs(split, n, seed)[:pairs]

    card = {"recipe": {"task": "dialogue"}, "role": "corrector"}
    (tmp_path / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(heldout, "load", lambda *_, **__: LanguageModel(None, None, template("lab"), "x", card))
    monkeypatch.setattr(heldout, "variant", lambda *_: Empty())
    with pytest.raises(UserError) as told:
        run(Heldout(tmp_path, n=n))
    assert str(told.value) == said
