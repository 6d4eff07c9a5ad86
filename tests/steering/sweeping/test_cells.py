import dataclasses
import math

import Levenshtein
import pytest
import torch

from corrector import tasks
from corrector.decoding import decode
from corrector.errors import UserError
from corrector.tasks.base import Pair
from steering.interventions import steer
from steering.sweeping.cells import Cell, Setting, correct, intervention, is_unsteered, mean, unsteered_tokens, with_kl
from steering.sweeping.collapse import collapse

NONE = Cell("none", 0.0)
AT_LAST = Setting((0, 1), "prompt_last")


@pytest.fixture(scope="module")
def task():
    return tasks.get("dialogue")


@pytest.fixture(scope="module")
def pairs(task):
    return task.pairs("test", 5)


@pytest.fixture(scope="module")
def outputs(dialogue_lm, task, pairs):
    prompts = [dialogue_lm.encode(p.question, p.prefix, p.last) for p in pairs]
    return decode(dialogue_lm, prompts, max_new_tokens=task.max_sentence_tokens)


def test_unsteered_rows_are_what_decode_writes(dialogue_lm, task, pairs, outputs):
    rows = correct(dialogue_lm, task, pairs, NONE, AT_LAST)
    assert [r["correction"] for r in rows] == [dialogue_lm.decode(list(o.ids)) for o in outputs]
    assert [r["ended"] for r in rows] == [o.ended for o in outputs]
    for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        assert (row["item"], row["task"], row["direction"], row["coef"], row["applied"]) == (
            i,
            "dialogue",
            "none",
            0,
            0,
        )
        assert (row["question"], row["prefix"], row["last"]) == (pair.question, pair.prefix, pair.last)
        assert row["distance"] == Levenshtein.distance(pair.last, row["correction"])
        assert row["edit_ratio"] == row["distance"] / len(pair.last)
        assert row["is_right_after"] == task.is_right(pair, row["correction"])
        assert row["well_formed"] == task.well_formed(pair, row["correction"])


def test_a_vector_at_coefficient_0_changes_no_bit(dialogue_lm, task, pairs, dialogue_vector):
    cell = Cell("correction", 0.0, dialogue_vector)
    plain, zero = (correct(dialogue_lm, task, pairs, c, AT_LAST) for c in (NONE, cell))
    assert [{**r, "direction": ""} for r in zero] == [{**r, "direction": ""} for r in plain]
    tokens = unsteered_tokens(dialogue_lm, task, pairs)
    assert [r["kl"] for r in with_kl(dialogue_lm, pairs, zero, tokens, cell, AT_LAST)] == [0.0] * 5


@pytest.mark.parametrize("layers", [(1,), (0, 1)])
def test_a_steered_row_counts_one_application_a_layer_at_prompt_last(dialogue_lm, task, pairs, dialogue_vector, layers):
    cell, setting = Cell("correction", 20.0, dialogue_vector), Setting(layers, "prompt_last")
    rows = correct(dialogue_lm, task, pairs, cell, setting)
    assert [r["applied"] for r in rows] == [len(layers)] * 5
    assert [r["layers"] for r in rows] == [list(layers)] * 5
    plain = correct(dialogue_lm, task, pairs, NONE, setting)
    assert [r["correction"] for r in rows] != [r["correction"] for r in plain]


def test_corrections_do_not_depend_on_the_batch(dialogue_lm, task, pairs, dialogue_vector):
    cell = Cell("correction", 2.0, dialogue_vector)
    assert correct(dialogue_lm, task, pairs, cell, AT_LAST, 64) == correct(dialogue_lm, task, pairs, cell, AT_LAST, 2)


def test_unsteered_tokens_are_the_written_ones_with_the_end_token_where_there_was_one(
    dialogue_lm, task, pairs, outputs, monkeypatch
):
    longest = max(len(o.ids) for o in outputs)
    monkeypatch.setattr(type(task), "max_sentence_tokens", longest)
    tokens = unsteered_tokens(dialogue_lm, task, pairs)
    assert tokens == [[*o.ids, *[dialogue_lm.eos_id] * (len(o.ids) < longest)] for o in outputs]
    # The model opens with a word behind a space, which the text has lost.
    assert [dialogue_lm.encode_target(dialogue_lm.decode(t)) for t in tokens] != tokens


def test_kl_needs_no_tokens_for_the_text_of_a_collapsed_model(make_lm, dialogue_vector):
    """Random words run together into text that a closed vocabulary lacks, yet their tokens are there."""
    lm, pairs = make_lm("llama", n_layers=2), [Pair("p", "Tom has 3 pens", "", "he has 3 pens", "he has 3 pens")]
    tokens = [lm.tokenizer.convert_tokens_to_ids(["apples", "Tom", "Mia", "<eos>"])]
    with pytest.raises(UserError, match="'applesTomMia' is not in this model's vocabulary"):
        lm.encode_target(lm.decode(tokens[0]))
    cell = Cell("correction", 1.0, dialogue_vector)
    (row,) = with_kl(lm, pairs, [{}], tokens, cell, AT_LAST)
    assert row["kl"] > 0


def test_kl_equals_teacher_forcing_by_hand(dialogue_lm, task, pairs, dialogue_vector):
    cell, setting = Cell("correction", 3.0, dialogue_vector), Setting((1,), "prompt_last")
    rows = correct(dialogue_lm, task, pairs, cell, setting)
    tokens = unsteered_tokens(dialogue_lm, task, pairs)
    got = [r["kl"] for r in with_kl(dialogue_lm, pairs, rows, tokens, cell, setting)]
    for pair, target, kl in zip(pairs, tokens, got, strict=True):
        prompt = list(dialogue_lm.encode(pair.question, pair.prefix, pair.last).ids)
        ids = torch.tensor([prompt + target])
        with torch.no_grad():
            p = dialogue_lm.model(input_ids=ids).logits[0].double().log_softmax(-1)
            with steer(dialogue_lm.model, dialogue_vector, 3.0, [1], prompt_lengths=[len(prompt)]):
                q = dialogue_lm.model(input_ids=ids).logits[0].double().log_softmax(-1)
        each = (p.exp() * (p - q)).sum(-1)[len(prompt) - 1 : -1]
        assert kl == pytest.approx(float(each.mean()), rel=1e-3, abs=1e-6) and kl > 0


def test_the_unsteered_cell_has_kl_exactly_0_and_no_intervention(dialogue_lm, task, pairs):
    assert intervention(NONE, AT_LAST, 3) is None
    rows = with_kl(dialogue_lm, pairs, [{"item": i} for i in range(5)], [[1]] * 5, NONE, AT_LAST)
    assert rows == [{"item": i, "kl": 0.0} for i in range(5)]


def test_a_layer_that_the_vector_lacks_is_refused(dialogue_lm, task, pairs, dialogue_vector):
    short = dataclasses.replace(dialogue_vector, directions={0: dialogue_vector.at(0)})
    with pytest.raises(UserError, match="layer=1 is not in the vector"):
        correct(dialogue_lm, task, pairs, Cell("correction", 1.0, short), AT_LAST)


def test_mean_refuses_rows_that_lack_the_column():
    assert math.isclose(mean([{"x": True}, {"x": 0.5}], "x"), 0.75)
    with pytest.raises(TypeError):
        mean([{"x": 1.0}, {"x": None}], "x")


def test_a_factor_and_layers_of_its_own_replace_the_coefficient_and_the_settings_layers(
    dialogue_lm, task, pairs, dialogue_vector
):
    plain = Cell("correction", 20.0, dialogue_vector)
    other = Cell("correction", 0.5, dialogue_vector, layers=(1,), factor=20.0, dose=3.25)
    expected = correct(dialogue_lm, task, pairs, plain, Setting((1,), "prompt_last"))
    got = correct(dialogue_lm, task, pairs, other, AT_LAST)
    assert [r["correction"] for r in got] == [r["correction"] for r in expected]
    assert all((r["coef"], r["layers"], r["dose"], r["applied"]) == (0.5, [1], 3.25, 1) for r in got)
    tokens = unsteered_tokens(dialogue_lm, task, pairs)
    kls = [
        [r["kl"] for r in with_kl(dialogue_lm, pairs, rows, tokens, cell, setting)]
        for rows, cell, setting in ((expected, plain, Setting((1,), "prompt_last")), (got, other, AT_LAST))
    ]
    assert kls[0] == kls[1]


def test_every_row_has_its_dose_and_its_collapse(dialogue_lm, task, pairs, dialogue_vector):
    for row in correct(dialogue_lm, task, pairs, NONE, AT_LAST):
        assert row["dose"] == 0.0
        assert row["collapse"] == collapse(row["correction"], row["ended"], row["well_formed"])
        assert (row["collapse"] == "none") <= (row["well_formed"] and row["ended"])
    for row in correct(dialogue_lm, task, pairs, Cell("correction", 1.0, dialogue_vector), AT_LAST):
        assert row["dose"] is None  # the vector's card knows no norm of the model


def test_a_prompt_baseline_changes_the_prompt_and_neither_the_question_of_its_row_nor_the_judge(
    dialogue_lm, task, pairs
):
    cell = Cell("prompt-copy", 0.0, instruction="Copy the whole sentence word for word.")
    rows = correct(dialogue_lm, task, pairs, cell, AT_LAST)
    asked = [dialogue_lm.encode(f"{p.question} {cell.instruction}", p.prefix, p.last) for p in pairs]
    outputs = decode(dialogue_lm, asked, max_new_tokens=task.max_sentence_tokens)
    assert [r["correction"] for r in rows] == [dialogue_lm.decode(list(o.ids)) for o in outputs]
    assert [r["question"] for r in rows] == [p.question for p in pairs]
    rows = with_kl(dialogue_lm, pairs, rows, unsteered_tokens(dialogue_lm, task, pairs), cell, AT_LAST)
    # its divergence would be between two prompts, and it has no dose
    assert all((r["kl"], r["dose"], r["applied"]) == (None, None, 0) for r in rows)


@pytest.mark.parametrize("coef", [0.0, -0.5, 2.0])
def test_clamp_sets_the_projection_counted_from_the_origin_at_coefficient_0_too(
    dialogue_lm, task, pairs, dialogue_vector, coef
):
    cell = Cell("correction", coef, dialogue_vector, origin=(4.0,))
    setting = Setting((1,), "prompt_last", "clamp")
    rows = correct(dialogue_lm, task, pairs, cell, setting)
    assert all((r["coef"], r["applied"], r["dose"]) == (coef, 1, None) for r in rows)
    tokens = unsteered_tokens(dialogue_lm, task, pairs)
    assert all(r["kl"] > 0 for r in with_kl(dialogue_lm, pairs, rows, tokens, cell, setting))
    seen = []
    # the norm reads what the last of the two blocks leaves
    handle = dialogue_lm.model.model.norm.register_forward_pre_hook(lambda module, h: seen.append(h[0][:, -1]))
    prompts = [dialogue_lm.encode(p.question, p.prefix, p.last) for p in pairs]
    decode(dialogue_lm, prompts, max_new_tokens=1, steering=intervention(cell, setting, len(pairs)))
    handle.remove()
    u = dialogue_vector.at(1) / dialogue_vector.at(1).norm()
    assert torch.cat(seen) @ u == pytest.approx([4.0 + coef * 12] * len(pairs), abs=1e-3)


def test_only_what_writes_nothing_is_unsteered(dialogue_vector):
    def said(cell, operator):
        return is_unsteered(cell, Setting((1,), "prompt_last", operator))

    for operator in ("add", "ablate", "clamp", "rotate"):
        assert said(NONE, operator) and not said(Cell("correction", 1.0, dialogue_vector), operator)
        assert said(Cell("correction", 0.0, dialogue_vector), operator) == (operator != "clamp")
        assert not said(Cell("prompt-copy", 0.0, instruction="Copy."), operator)
