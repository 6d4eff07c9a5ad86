import dataclasses
import json

import pytest
import torch

from corrector import tasks
from corrector.errors import UserError
from steering.controls import Battery
from steering.sweeping.cells import Setting
from steering.sweeping.doses import Calibration
from steering.sweeping.grid import Grid, calibrated, read_factors, read_origins, written

SETTING = Setting((1,), "prompt_last")


@pytest.fixture(scope="module")
def grid(dialogue_vector):
    card = {"layers": {"0": {"mean_norm": 6.0}, "1": {"mean_norm": 24.0}}}
    battery = Battery(
        {"random-00": {1: dialogue_vector.at(0)}, "wrong-layer": {0: dialogue_vector.at(1)}}, {"p": "Do."}
    )
    return Grid(dataclasses.replace(dialogue_vector, card=card), SETTING, (2.0, 0.0, -1.0), battery)


def test_cells_are_in_one_order_whatever_the_order_of_the_coefficients(grid):
    cells = [(c.direction, c.coef, c.layers) for c in (*grid.correction(), *grid.controls())]
    steered = [
        (d, c, k) for d, k in (("correction", (1,)), ("random-00", (1,)), ("wrong-layer", (0,))) for c in (-1, 2)
    ]
    assert cells == [("none", 0.0, None), *steered, ("p", 0.0, None)]
    assert grid.controls()[-1].instruction == "Do." and grid.controls()[-1].vector is None


def test_doses_are_of_the_layer_that_is_written(grid):
    doses = {(c.direction, c.coef): c.dose for c in (*grid.correction(), *grid.controls()) if c.vector}
    expected = {"correction": 0.5, "random-00": 0.5, "wrong-layer": 2.0}  # ‖v‖ = 12 over 24, 24 and 6
    assert doses == {(d, c): pytest.approx(abs(c) * x) for d, x in expected.items() for c in (-1.0, 2.0)}


def test_in_the_unit_norm_the_dose_is_the_coefficient(grid):
    scaled = dataclasses.replace(grid, unit="norm")
    assert [c.dose for c in scaled.correction()[1:]] == pytest.approx([1.0, 2.0])
    assert float(written(grid.vector, "norm").at(1).norm()) == pytest.approx(24.0)
    assert written(grid.vector, "natural") is grid.vector


def test_in_the_unit_kl_every_direction_has_its_own_factor_and_the_same_divergence(dialogue_lm, grid):
    task = tasks.get("dialogue")
    pairs = task.pairs("validation", 3)
    still = Battery({**grid.battery.directions, "random-01": {1: torch.full((32,), 1e-9)}})
    asked = dataclasses.replace(grid, coefs=(-0.05, 0.0, 0.1), unit="kl", battery=still)
    found, record = calibrated(asked, dialogue_lm, task, pairs)
    calibration = Calibration(dialogue_lm, task, pairs)
    for cell in (*found.correction()[1:], *found.controls()):
        setting = dataclasses.replace(SETTING, layers=cell.layers)
        assert calibration.kl(cell.vector, cell.factor, setting) == pytest.approx(abs(cell.coef), rel=0.03)
        assert cell.factor * cell.coef > 0
    # a control that moves nothing reaches no divergence: it is left out and named, never run at another dose
    assert {c.direction for c in found.controls()} == {"random-00", "wrong-layer"}
    assert list(record["unreached"]) == ["random-01 -0.05", "random-01 +0.1"]
    assert read_factors(record) == found.factors
    with pytest.raises(UserError, match="not reached"):
        calibrated(dataclasses.replace(asked, coefs=(0.0, 1e6)), dialogue_lm, task, pairs)


def test_other_units_calibrate_nothing(dialogue_lm, grid):
    assert calibrated(grid, dialogue_lm, tasks.get("dialogue"), []) == (grid, {})


@pytest.fixture
def clamped(grid):
    card = {"layers": {"1": {"mean_norm": 24.0, "origin": 7.5}}}
    vector = dataclasses.replace(grid.vector, card=card)
    origins = {"random-00": {1: -3.0}, "wrong-layer": {0: 0.25}}
    setting = dataclasses.replace(SETTING, operator="clamp")
    return dataclasses.replace(grid, vector=vector, setting=setting, origins=origins)


def test_where_coefficient_0_steers_it_is_a_cell_beside_the_unsteered_one(clamped):
    cells = [(c.direction, c.coef, c.origin) for c in (*clamped.correction(), *clamped.controls())]
    of = (("correction", (7.5,)), ("random-00", (-3.0,)), ("wrong-layer", (0.25,)))
    steered = [(d, c, origin) for d, origin in of for c in (-1.0, 0.0, 2.0)]
    assert cells == [("none", 0.0, None), *steered, ("p", 0.0, None)]
    # it is measured whatever the coefficients, as the unsteered one is
    assert [c.coef for c in dataclasses.replace(clamped, coefs=(1.0, 3.0)).correction()] == [0.0, 0.0, 1.0, 3.0]
    # what clamp writes is not coef·v, at 0 neither
    assert {c.dose for c in clamped.correction()[1:]} == {None}


def test_a_control_without_an_origin_is_left_out_and_a_vector_without_one_is_refused(clamped):
    some = dataclasses.replace(clamped, origins={"wrong-layer": {0: 0.25}})
    assert {c.direction for c in some.controls()} == {"wrong-layer", "p"}
    bare = dataclasses.replace(clamped, vector=dataclasses.replace(clamped.vector, card={}))
    with pytest.raises(UserError, match="no origin of layer 1"):
        bare.correction()


def test_origins_are_read_back_as_they_were_recorded(clamped):
    record = {"origins": {name: {str(k): x for k, x in at.items()} for name, at in clamped.origins.items()}}
    assert read_origins(json.loads(json.dumps(record))) == clamped.origins and read_origins({}) == {}
