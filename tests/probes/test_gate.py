import math

import pytest
import torch

from corrector.decoding import Output
from corrector.errors import UserError
from corrector.tasks.base import MinimalPair, Pair
from corrector.tasks.dialogue import Dialogue
from probes import gate as module
from probes.capture import Activations
from probes.gate import gate, rewrite_gap

PENS = {"train": 20, "validation": 40, "test": 60}


class Pens(Dialogue):
    """Minimal pairs that count pens: the good sentence has the question's even number, the bad one an odd one."""

    first = PENS

    def minimal_pairs(self, split, n, seed=0):
        out = []
        for i in range(self.first[split], self.first[split] + 2 * n, 2):
            question, good, bad = f"Tom has {i} pens", f"he has {i} pens", f"he has {i + 1} pens"
            out.append(
                MinimalPair(
                    Pair(f"p{i}", question, "", good, good, False), Pair(f"p{i}", question, "", bad, good, True)
                )
            )
        return out


def last_of(lm, sequence):
    start, end = sequence.spans["last"]
    return list(sequence.ids[start:end])


def planted(lm, sequences, sites, spans):
    """At first_divergence the bad sentences stand out, at layer 0 the other way round in the test split.

    At prompt_last both sides are equal to the bit.
    """
    out = {}
    for span in spans:
        h = torch.zeros(len(sequences), 2, 8)
        for i, s in enumerate(sequences):
            number = int("".join(lm.tokenizer.decode(last_of(lm, s)).split()[2:3]))
            problem, is_bad = number // 2, number % 2
            h[i] = torch.randn(2, 8, generator=torch.Generator().manual_seed(problem))
            if span == "first_divergence":
                h[i, 0, 0] += 20.0 * is_bad * (-1 if number >= PENS["test"] else 1)
                h[i, 1, 0] += 20.0 * is_bad
        out["resid_post", span] = Activations(h, (0, 1), "resid_post", span, tuple(s.problem for s in sequences))
    return out


def mend_by_rule(lm, prompts, **_):
    """A corrector that rewrites every bad sentence, and of the good ones those whose number divides by 4."""
    outputs = []
    for prompt in prompts:
        ids = last_of(lm, prompt)
        number = int(lm.tokenizer.decode(ids).split()[2])
        outputs.append(Output(tuple(ids[:-1] if number % 2 or number % 4 == 0 else ids), True))
    return outputs


def test_a_planted_signal_is_found_where_it_is_and_equal_states_give_none(tiny_lm, monkeypatch):
    monkeypatch.setattr(module, "capture_all", planted)
    monkeypatch.setattr(module, "decode", mend_by_rule)
    got = gate(tiny_lm, Pens(), 12, 10)
    assert (got["n_train"], got["n_test"]) == (12, 10)
    assert got["auroc"]["prompt_last"] is None
    # What is fitted on train is measured on test, where layer 0 says the opposite.
    assert got["auroc"]["first_divergence"] == {
        "0": {"auroc": 0.0, "low": 0.0, "high": 0.0},
        "1": {"auroc": 1.0, "low": 1.0, "high": 1.0},
    }
    assert got["rewrite"]["bad"] == 1.0 and got["rewrite"]["good"] == 0.5 and got["rewrite"]["n"] == 10


def test_the_rewrite_gap_is_the_difference_with_its_interval(tiny_lm, monkeypatch):
    monkeypatch.setattr(module, "decode", mend_by_rule)
    got = rewrite_gap(tiny_lm, Pens(), Pens().minimal_pairs("test", 20))
    assert got["gap"] == pytest.approx(got["bad"] - got["good"]) == 0.5
    # the gap is 1 for one half of the problems and 0 for the other: standard error 0.5 / sqrt(20)
    assert got["low"] == pytest.approx(0.5 - 1.96 * 0.5 / math.sqrt(20), abs=0.06)
    assert got["high"] == pytest.approx(0.5 + 1.96 * 0.5 / math.sqrt(20), abs=0.06)


def test_a_model_without_attention_cannot_see_the_difference_and_gets_no_number(make_lm):
    lm = make_lm("llama", n_layers=2)
    for block in lm.model.model.layers:
        block.self_attn.o_proj.weight.zero_()
    got = gate(lm, Pens(), 6, 4)
    assert got["auroc"] == {"prompt_last": None, "first_divergence": None}


def test_a_model_with_attention_gets_a_number_at_both_positions(make_lm):
    got = gate(make_lm("llama", n_layers=2), Pens(), 6, 4)
    for span in ("prompt_last", "first_divergence"):
        assert set(got["auroc"][span]) == {"0", "1"}
        for row in got["auroc"][span].values():
            assert 0 <= row["low"] <= row["auroc"] <= row["high"] <= 1


def test_a_question_on_both_sides_of_the_split_is_refused(tiny_lm, monkeypatch):
    monkeypatch.setattr(Pens, "first", {"train": 20, "test": 22})
    with pytest.raises(UserError, match=r"share the question 'tom has \d\d pens'"):
        gate(tiny_lm, Pens(), 6, 4)
