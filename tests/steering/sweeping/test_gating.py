import dataclasses

import pytest
import torch

from corrector import tasks
from corrector.errors import UserError
from probes.capture import capture, sequence
from steering.sweeping.cells import Cell, Setting, correct, unsteered_tokens, with_kl
from steering.sweeping.gating import Gating, gating, tell_opened


@pytest.fixture(scope="module")
def drawn():
    task = tasks.get("dialogue")
    return task, task.pairs("test", 8)


@pytest.fixture(scope="module")
def projections(dialogue_lm, drawn, dialogue_vector):
    """h·u at prompt_last of every test pair, at both layers."""
    sequences = [sequence(dialogue_lm, pair) for pair in drawn[1]]
    h = capture(dialogue_lm, sequences)
    return {k: h.at(k) @ (dialogue_vector.at(k) / dialogue_vector.at(k).norm()) for k in (0, 1)}


@pytest.fixture(scope="module")
def carded(dialogue_vector, projections):
    """The fixture's vector with thresholds that half of the test pairs pass."""
    middle = {str(k): {"threshold": float(x.sort().values[3:5].mean())} for k, x in projections.items()}
    return dataclasses.replace(dialogue_vector, card={"layers": middle})


@pytest.mark.parametrize("layer", [None, 0])
def test_the_two_sides_share_the_rows_between_them(dialogue_lm, drawn, carded, projections, layer):
    task, pairs = drawn
    plain = correct(dialogue_lm, task, pairs, Cell("none", 0.0), Setting((1,), "prompt_last"))
    read, opened = 1 if layer is None else layer, {}
    for side in ("above", "below"):
        gate = Gating("prompt_last", side, layer).gate(carded, (1,))
        setting = Setting((1,), "prompt_last", gate=gate)
        cell = Cell("correction", 20.0, carded)
        rows = correct(dialogue_lm, task, pairs, cell, setting)
        opened[side] = [row["opened"] for row in rows]
        assert opened[side] == [row["applied"] > 0 for row in rows]
        alone = correct(dialogue_lm, task, pairs, cell, Setting((1,), "prompt_last"))
        kl = with_kl(dialogue_lm, pairs, rows, unsteered_tokens(dialogue_lm, task, pairs), cell, setting)
        for row, without, steered, divergence in zip(rows, plain, alone, kl, strict=True):
            assert row["correction"] == (steered if row["opened"] else without)["correction"]
            assert (divergence["kl"] > 0) == row["opened"]
        assert [r["correction"] for r in rows] != [r["correction"] for r in plain]
    threshold = carded.card["layers"][str(read)]["threshold"]
    assert opened["above"] == (projections[read] > threshold).tolist() == [not x for x in opened["below"]]
    assert sum(opened["above"]) == 4


def test_every_direction_opens_the_same_rows_and_unsteered_cells_tell_nothing(dialogue_lm, drawn, carded):
    task, pairs = drawn
    setting = Setting((1,), "prompt_last", gate=Gating("prompt_last").gate(carded, (1,)))
    control = {1: torch.randn(32, generator=torch.Generator().manual_seed(5))}
    cells = [Cell("correction", -3.0, carded), Cell("correction", 9.0, carded), Cell("random-00", 2.0, control)]
    told = [[row["opened"] for row in correct(dialogue_lm, task, pairs, cell, setting)] for cell in cells]
    assert told[0] == told[1] == told[2] and 0 < sum(told[0]) < len(pairs)
    assert {row["opened"] for row in correct(dialogue_lm, task, pairs, Cell("none", 0.0), setting)} == {None}
    ungated = correct(dialogue_lm, task, pairs, cells[0], Setting((1,), "prompt_last"))
    assert not any("opened" in row for row in ungated)


def test_a_saved_condition_opens_in_place_of_the_vectors_own(dialogue_lm, drawn, carded, projections, tmp_path):
    turned = dataclasses.replace(
        carded,
        directions={k: -v for k, v in carded.directions.items()},
        card={"layers": {str(k): {"threshold": -float(x.sort().values[6:].mean())} for k, x in projections.items()}},
    )
    file = turned.save(tmp_path / "condition.safetensors")
    found = gating("prompt_last", "above", 0, file, dialogue_lm)
    setting = Setting((1,), "prompt_last", gate=found.gate(carded, (1,)))
    rows = correct(dialogue_lm, drawn[0], drawn[1], Cell("correction", 2.0, carded), setting)
    expected = -projections[0] > turned.card["layers"]["0"]["threshold"]
    assert [row["opened"] for row in rows] == expected.tolist() and expected.sum() == 7
    record = found.record(carded, (1,))["condition"]
    assert (record["direction"], record["layer"], record["side"]) == (turned.digest, 0, "above")
    assert Gating("token").record(carded, (1,))["condition"]["direction"] == "own"
    # a run keeps the condition it began with, whatever becomes of the file
    found.save(tmp_path / "kept.safetensors")
    carded.save(file)
    again = gating("prompt_last", "above", 0, file, dialogue_lm).kept(tmp_path / "kept.safetensors")
    assert again.condition is not None and again.condition.digest == turned.digest
    Gating("token").save(tmp_path / "none.safetensors")
    assert not (tmp_path / "none.safetensors").exists() and Gating("token").kept(tmp_path / "none.safetensors")


def test_without_a_gate_nothing_is_gated_and_nothing_is_recorded(dialogue_vector):
    assert Gating().gate(dialogue_vector, (1,)) is None and Gating().record(dialogue_vector, (1,)) == {}
    assert Gating().reads("last") and Gating("token").reads("last") and not Gating("prompt_last").reads("last")


def test_gates_that_cannot_be_are_refused_with_the_cure(dialogue_lm, dialogue_vector, carded, tmp_path):
    with pytest.raises(UserError, match="no threshold of layer 1, which --gate needs"):
        Gating("prompt_last").gate(dialogue_vector, (1,))
    with pytest.raises(UserError, match=r"read at 'last', where thresholds are others; choose --gate token"):
        Gating("prompt_last").gate(dataclasses.replace(carded, span="last"), (1,))
    with pytest.raises(UserError, match="gate_layer=1 is behind layer 0"):
        Gating("token", layer=1).gate(carded, (0, 1))
    for words in ({"side": "below"}, {"layer": 0}, {"condition": carded}):
        with pytest.raises(UserError, match="are of a gate; choose --gate"):
            Gating(**words).check((1,))
    with pytest.raises(UserError, match=r"gate_layer=2 not in 0\.\.1"):
        gating("token", "above", 2, None, dialogue_lm)
    file = dataclasses.replace(carded, fingerprint="0123456789abcdef").save(tmp_path / "stranger.safetensors")
    with pytest.raises(UserError, match="the model is"):
        gating("token", "above", None, file, dialogue_lm)


def rows(opened, direction="correction", coef=1.0, task="dialogue"):
    return [{"task": task, "direction": direction, "coef": coef, "opened": x} for x in opened]


def test_what_was_opened_is_told_and_nothing_opened_is_an_error(capsys):
    none = rows([None, None], "none", 0.0)
    same = [*none, *rows([True, False]), *rows([False, True], "random-00")]
    tell_opened(same, "dialogue")
    assert capsys.readouterr().err.strip() == "dialogue: the gate opened 1 of 2 rows in each of 2 cells"
    tell_opened([*same, *rows([True, True], coef=-2.0)], "dialogue")
    said = capsys.readouterr().err
    assert "correction +1: 1 of 2; random-00 +1: 1 of 2; correction -2: 2 of 2" in said
    shut = [*none, *rows([False, False]), *rows([False], coef=2.0)]
    with pytest.raises(UserError, match="opened none of the 3 rows of 2 cells"):
        tell_opened(shut, "dialogue")
    # one task's open gate does not stand in for another's
    with pytest.raises(UserError, match="dialogue: the gate opened none"):
        tell_opened([*shut, *rows([True], task="arithmetic")], "dialogue")
