import json

import pytest
import torch

from corrector.errors import UserError
from corrector.tasks.dialogue import Dialogue
from steering.sweep import Sweep, choose
from steering.sweeping import selection
from steering.sweeping.cells import Cell, Setting
from steering.sweeping.gating import Gating
from steering.sweeping.selection import SOURCES, Source, select, vectors
from steering.vectors import SteeringVector

READ = Source("copy_rewrite", "prompt_last", "prompt_last")
WRITTEN_ON = Source("copy_rewrite", "prompt_last", "prompt_last+output")
READ_KEY = ("copy_rewrite", "prompt_last")
UNSTEERED = 0.5


def vector(lm, layers=(0, 1, 2), card=None):
    directions = {k: torch.ones(32) for k in layers}
    return SteeringVector(directions, "diff_means", "resid_post", "prompt_last", lm.fingerprint, "lab", "x", card or {})


def stand_in(monkeypatch, correct):
    """`correct` for whatever selection measures a cell with."""
    monkeypatch.setattr(selection, "correct", correct)
    monkeypatch.setattr(selection, "unsteered", lambda lm, task, pairs: None)
    monkeypatch.setattr(
        selection,
        "cross",
        lambda lm, task, pairs, cells, setting, plain: [correct(lm, task, pairs, cell, setting) for cell in cells],
    )


@pytest.fixture
def pick(tiny_lm, monkeypatch):
    """`pick(planted, coefs, layers, sources)`: the selection where (layer, write, coef) edits and is formed so."""

    def run(planted, coefs=(-2.0, 2.0), layers=((0,), (1,), (2,)), sources=(READ,), card=None, factor=None):
        seen = []

        def correct(lm, task, pairs, cell, setting):
            seen.append((cell.direction, cell.coef, setting))
            if cell.vector is None or cell.coef == 0:
                return [{"edit_ratio": UNSTEERED, "well_formed": True}] * 4
            edit_ratio, formed = planted[setting.layers[0], setting.span, cell.coef]
            spread = [edit_ratio - 0.1, edit_ratio + 0.1, edit_ratio, edit_ratio]
            return [{"edit_ratio": x, "well_formed": i < formed} for i, x in enumerate(spread)]

        stand_in(monkeypatch, correct)
        found = {("copy_rewrite", "prompt_last"): vector(tiny_lm, card=card)}
        return select(tiny_lm, Dialogue(), found, sources, layers, [], coefs, factor=factor), seen

    return run


def ends(layer, low, high, formed=(4, 4), span="prompt_last", coefs=(-2.0, 2.0)):
    return {(layer, span, coefs[0]): (low, formed[0]), (layer, span, coefs[1]): (high, formed[1])}


def test_the_longest_weaker_side_wins(pick):
    # layer 0 moves far upwards and hardly down, layer 1 moves both ways, layer 2 moves the wrong way round
    chosen, seen = pick({**ends(0, 0.45, 3.0), **ends(1, 0.2, 0.9), **ends(2, 1.5, 0.1)})
    assert chosen.setting.layers == (1,) and chosen.setting.span == "prompt_last" and chosen.chosen == 1
    assert [c.reach for c in chosen.candidates] == pytest.approx([0.05, 0.3, -1.0])
    assert chosen.candidates[1].edit_ratio == pytest.approx((0.2, 0.9))
    assert seen[0][:2] == ("none", 0.0) and [s[1] for s in seen[1:]] == [-2.0, 2.0] * 3


def test_among_nearly_equal_reaches_the_widest_span_wins(pick):
    # copying ends the reach of layers 0 and 1 within a tenth of each other; layer 2 spans most but reaches less
    chosen, _ = pick({**ends(0, 0.1, 0.9), **ends(1, 0.13, 1.5), **ends(2, 0.2, 3.0)})
    assert chosen.setting.layers == (1,)
    assert [c.reach for c in chosen.candidates] == pytest.approx([0.4, 0.37, 0.3])


def test_where_nothing_moves_the_layer_that_separates_best_is_taken(pick):
    still = {k: v for layer in (0, 1, 2) for k, v in ends(layer, UNSTEERED, UNSTEERED).items()}
    card = {"layers": {str(k): {"auroc": a, "dose": 0.1} for k, a in enumerate((0.5, 0.7, 0.6))}}
    assert pick(still, card=card)[0].setting.layers == (1,)
    assert pick(still)[0].setting.layers == (0,)


def test_a_candidate_that_breaks_the_text_is_passed_over_however_far_it_reaches(pick):
    chosen, _ = pick({**ends(0, 0.0, 5.0, formed=(4, 3)), **ends(1, 0.4, 0.6), **ends(2, 0.0, 5.0, formed=(3, 4))})
    assert chosen.setting.layers == (1,)
    assert [c.usable for c in chosen.candidates] == [False, True, False]
    assert chosen.record()["usable_on_validation"] is True


def test_where_none_is_usable_the_best_formed_is_taken_and_said_so(pick):
    planted = {**ends(0, 0.0, 5.0, formed=(1, 4)), **ends(1, 0.4, 0.6, formed=(2, 3)), **ends(2, 0.1, 1, formed=(3, 1))}
    chosen, _ = pick(planted)
    assert chosen.setting.layers == (1,)
    record = chosen.record()
    assert record["usable_on_validation"] is False
    assert [c["well_formed"] for c in record["candidates"]] == [(0.25, 1.0), (0.5, 0.75), (0.75, 0.25)]


def test_position_is_chosen_like_the_layer_and_the_record_names_it(pick):
    planted = {**ends(0, 0.4, 0.6), **ends(0, 0.1, 1.0, span="prompt_last+output")}
    chosen, _ = pick(planted, layers=((0,),), sources=(READ, WRITTEN_ON))
    record = json.loads(json.dumps(chosen.record()))
    assert record["span"] == "prompt_last+output" and record["layers"] == [0] and record["operator"] == "add"
    assert record["source"] == {"contrast": "copy_rewrite", "read": "prompt_last", "write": "prompt_last+output"}
    assert len(record["candidates"]) == 2


@pytest.mark.parametrize(("coefs", "sign"), [((0.0, 2.0), 1), ((1.0, 2.0), 1), ((-2.0, 0.0), -1), ((-2.0, -1.0), -1)])
def test_a_one_sided_sweep_goes_by_the_side_it_has(pick, coefs, sign):
    planted = {
        **ends(0, UNSTEERED + 0.1 * sign, UNSTEERED + 0.1 * sign, coefs=coefs),
        **ends(1, UNSTEERED + 0.3 * sign, UNSTEERED + 0.3 * sign, coefs=coefs),
        **ends(2, UNSTEERED - 0.4 * sign, UNSTEERED - 0.4 * sign, coefs=coefs),
    }
    chosen, _ = pick(planted, coefs=coefs)
    assert chosen.setting.layers == (1,)
    assert [c.reach for c in chosen.candidates] == pytest.approx([0.1, 0.3, -0.4])


def test_auroc_is_the_cards_and_none_without_one(pick):
    card = {"layers": {"0": {"auroc": 0.6}, "1": {"auroc": 0.9}}}
    planted = {**ends(0, 0.4, 0.6), **ends(2, 0.4, 0.6)}
    chosen, _ = pick(planted, layers=((0, 1), (2,)), card=card)
    assert [c.auroc for c in chosen.candidates] == [0.9, None]


def test_sources_without_a_vector_are_left_out(pick):
    chosen, _ = pick(ends(0, 0.4, 0.6), layers=((0,),), sources=(Source("minimal", "last", "last"), READ))
    assert [c.source for c in chosen.candidates] == [READ]


def test_a_candidate_that_no_factor_fits_is_left_out_and_counted(pick):
    def factor(vector, setting, coef):
        if setting.layers == (1,):
            raise UserError("layer 1 reaches no such KL")
        return 10 * coef

    chosen, seen = pick({**ends(0, 0.4, 0.6), **ends(1, 0.0, 3.0), **ends(2, 0.3, 0.7)}, factor=factor)
    assert chosen.setting.layers == (2,) and len(chosen.candidates) == 2
    assert chosen.record()["left_out"] == ["layer 1 reaches no such KL"]
    assert {s[2].layers for s in seen[1:]} == {(0,), (2,)}
    with pytest.raises(UserError, match="layer 1 reaches"):
        pick(ends(1, 0.0, 3.0), layers=((1,),), factor=factor)


def test_the_usable_range_is_of_validation_and_measures_no_coefficient_twice(tiny_lm, monkeypatch):
    formed, seen = {-4.0: 0, -1.0: 20, 1.0: 19, 4.0: 18}, []

    def correct(lm, task, pairs, cell, setting):
        seen.append(cell.coef)
        return [{"well_formed": i < formed[cell.coef]} for i in range(20)]

    stand_in(monkeypatch, correct)
    cells = [Cell("none", 0.0), *(Cell("correction", c, {0: torch.ones(32)}) for c in (-4.0, -1.0, 1.0, 4.0))]
    found = selection.usable_on(tiny_lm, Dialogue(), [], cells, Setting((0,), "prompt_last"), {0.0: 1.0, -4.0: 0.0})
    assert seen == [-1.0, 1.0, 4.0] and found["usable"] == [-1.0, 0.0, 1.0]
    shares = {row["coef"]: row["well_formed"] for row in found["validation"]}
    assert shares == {-4.0: 0.0, -1.0: 1.0, 0.0: 1.0, 1.0: 0.95, 4.0: 0.9}


class Watched(Dialogue):
    """Dialogue that writes down which split is asked for."""

    def __init__(self):
        self.asked = []

    def problems(self, split, n, seed=0):
        self.asked.append((split, n))
        return super().problems(split, n, seed)


def test_choosing_extracts_on_train_and_never_sees_a_test_item(dialogue_lm, monkeypatch):
    rows = [{"edit_ratio": 1.0, "well_formed": True}]
    steered = []

    def correct(lm, task, pairs, cell, setting):
        steered.append([p.problem for p in pairs])
        return rows

    stand_in(monkeypatch, correct)
    task = Watched()
    config = Sweep(task=("dialogue",), pairs=4, validation=3, items=5, seed=1)
    chosen = choose(config, task, dialogue_lm)
    splits = {split for split, _ in task.asked}
    assert splits == {"train", "validation"}
    validation = [p.problem for p in Dialogue().pairs("validation", 3, 1)]
    assert len(steered) > 2 and all(s == validation for s in steered)
    # A random model copies nothing, so the contrast by its own behaviour is left out, and minimal pairs remain.
    assert {c.source.contrast for c in chosen.candidates} == {"minimal"}
    assert chosen.setting.span == "output" and chosen.vector.card["n"] == 4
    assert [c.layers for c in chosen.candidates] == [(0,)]


def test_a_task_that_can_make_none_of_the_contrasts_is_refused(dialogue_lm):
    with pytest.raises(UserError, match="no matched pair"):
        vectors(dialogue_lm, Dialogue(), SOURCES[:2], "diff_means", 2, 2, 0)


def test_where_coefficient_0_steers_its_share_is_not_the_unsteered_ones(tiny_lm, monkeypatch):
    """Planted: clamped at 0 half of the texts break, unsteered none does."""
    card = {"layers": {"0": {"origin": 3.0}}}
    clamped, seen = vector(tiny_lm, (0,), card), []

    def correct(lm, task, pairs, cell, setting):
        seen.append((cell.direction, cell.coef, cell.origin))
        formed = 4 if cell.vector is None or cell.coef else 2
        return [{"edit_ratio": UNSTEERED + 0.1 * cell.coef, "well_formed": i < formed} for i in range(4)]

    stand_in(monkeypatch, correct)
    found = {READ_KEY: clamped}
    chosen = select(tiny_lm, Dialogue(), found, (READ,), ((0,),), [], (-2.0, 2.0), "clamp")
    assert seen == [("none", 0.0, None), ("correction", -2.0, (3.0,)), ("correction", 2.0, (3.0,))]
    assert chosen.well_formed == {-2.0: 1.0, 2.0: 1.0}
    cells = [Cell("none", 0.0), *(Cell("correction", c, clamped, origin=(3.0,)) for c in (-2.0, 0.0, 2.0))]
    told = selection.usable_on(tiny_lm, Dialogue(), [], cells, chosen.setting, chosen.well_formed)
    assert seen[3:] == [("correction", 0.0, (3.0,))] and told["usable"] == []
    assert told["validation"][1] == {"coef": 0.0, "well_formed": 0.5}
    with pytest.raises(UserError, match="no origin of layer 0"):
        select(tiny_lm, Dialogue(), {READ_KEY: vector(tiny_lm)}, (READ,), ((0,),), [], (-2.0, 2.0), "clamp")


def test_every_candidate_has_its_own_gate_and_one_that_opens_nowhere_is_left_out(tiny_lm, monkeypatch):
    card = {"layers": {str(k): {"threshold": 10.0 + k} for k in range(3)}}
    open_at = {0: 0, 1: 3, 2: 4}
    seen = []

    def correct(lm, task, pairs, cell, setting):
        gate = setting.gate
        seen.append(gate and (gate.layer, gate.threshold, gate.when))
        n = open_at[gate.layer] if gate else 0
        return [{"edit_ratio": UNSTEERED + cell.coef, "well_formed": True, "applied": i < n} for i in range(4)]

    stand_in(monkeypatch, correct)
    pairs = Dialogue().pairs("validation", 4)
    found = {READ_KEY: vector(tiny_lm, card=card)}
    arguments = (tiny_lm, Dialogue(), found, (READ,))
    chosen = select(*arguments, ((0,), (1,)), pairs, (-1.0, 1.0), gating=Gating("prompt_last", "below"))
    assert seen == [None, *[(0, -10.0, "prompt_last")] * 2, *[(1, -11.0, "prompt_last")] * 2]
    assert chosen.setting.layers == (1,) and chosen.setting.gate.layer == 1
    assert chosen.left_out[0].startswith("the gate at layer 0 opens for none of 4 validation pairs; choose the other")
    with pytest.raises(UserError, match="opens for none of 4"):
        select(*arguments, ((0,), (1,)), pairs, (-1.0, 1.0), gating=Gating("token", layer=0))
