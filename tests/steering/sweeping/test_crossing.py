"""All cells at once against one cell after the other, decoded plainly: no row differs, and KL to rounding."""

from functools import partial

import pytest
import torch

from corrector import tasks
from corrector.decoding import PLAIN, decode
from steering.interventions import Gate
from steering.sweeping.cells import Cell, Setting, correct, prompts_of, unsteered_tokens, with_kl
from steering.sweeping.crossing import cross, unsteered


@pytest.fixture(scope="module")
def task():
    return tasks.get("dialogue")


def cells_of(lm, operator):
    drawn = torch.Generator().manual_seed(0)

    def make():
        return {k: 3 * torch.randn(lm.model.config.hidden_size, generator=drawn) for k in range(lm.n_layers)}

    origin = (0.5,) if operator == "clamp" else None
    steered = [Cell(f"v{k}", c, make(), origin=origin) for k in range(2) for c in (-2.0, 0.5, 2.0)]
    other = [Cell("elsewhere", 1.0, make(), layers=(0, 1), origin=origin and (0.5, 0.1))]
    factor = [Cell("kl", 0.1, make(), factor=1.7, origin=origin)]
    return [Cell("none", 0.0), *steered, *other, *factor, Cell("prompt", 0.0, instruction="please")]


@pytest.mark.parametrize("operator", ["add", "ablate", "clamp", "rotate"])
@pytest.mark.parametrize("span", ["prompt_last", "prompt_last+output", "last"])
def test_rows_are_those_of_one_cell_after_the_other(dialogue_lm, task, operator, span, monkeypatch):
    lm = dialogue_lm
    pairs = task.pairs("test", 5, 0)
    setting = Setting((1,), span, operator)
    cells = cells_of(lm, operator)
    plain = unsteered(lm, task, pairs)
    got = cross(lm, task, pairs, cells, setting, plain, batch_size=16)
    monkeypatch.setattr("steering.sweeping.cells.decode", partial(decode, tricks=PLAIN))
    tokens = unsteered_tokens(lm, task, pairs)
    assert [list(t) for t in plain.targets] == tokens
    moved = 0
    for cell, rows in zip(cells, got, strict=True):
        wanted = with_kl(lm, pairs, correct(lm, task, pairs, cell, setting), tokens, cell, setting)
        for row, want in zip(rows, wanted, strict=True):
            assert row.pop("kl") == (pytest.approx(want["kl"], rel=1e-3, abs=1e-5) if want["kl"] else want["kl"])
            want.pop("kl")
            assert row == want
            moved += cell.vector is not None and row["correction"] != got[0][row["item"]]["correction"]
    assert moved, "the steering must show"


def test_a_gate_opens_the_same_rows(dialogue_lm, task):
    lm = dialogue_lm
    pairs = task.pairs("test", 8, 0)
    v = torch.randn(lm.model.config.hidden_size, generator=torch.Generator().manual_seed(4))
    setting = Setting((1,), "prompt_last+output", gate=Gate(v, 0, threshold=0.0))
    cells = cells_of(lm, "add")[:4]
    got = cross(lm, task, pairs, cells, setting, unsteered(lm, task, pairs))
    for cell, rows in zip(cells, got, strict=True):
        wanted = correct(lm, task, pairs, cell, setting)
        assert [{k: x for k, x in row.items() if k != "kl"} for row in rows] == wanted
    assert {row["opened"] for row in got[1]} == {True, False}


def test_unsteered_logits_are_those_of_a_bare_forward(dialogue_lm, task):
    lm, pairs = dialogue_lm, task.pairs("test", 3, 0)
    plain = unsteered(lm, task, pairs)
    for i, (prompt, target) in enumerate(zip(prompts_of(lm, pairs), plain.targets, strict=True)):
        with torch.no_grad():
            whole = lm.model(torch.tensor([[*prompt.ids, *target]])).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(plain.logits[i], whole, atol=2e-4)
