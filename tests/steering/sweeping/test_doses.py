import dataclasses
import math

import pytest
import torch

from corrector import tasks
from corrector.errors import UserError
from steering.sweeping.cells import Setting
from steering.sweeping.doses import Calibration, bracketed, dose, in_norms, iso_kl, mean_norms

NORMS = {0: 4.0, 1: 10.0}
SETTING = Setting((1,), "prompt_last")


@pytest.fixture(scope="module")
def carded(dialogue_vector):
    """The fixture's vector, of norm 12 at both layers, with a card that knows mean ‖h‖."""
    card = {"layers": {str(k): {"mean_norm": norm} for k, norm in NORMS.items()}}
    return dataclasses.replace(dialogue_vector, card=card)


@pytest.fixture(scope="module")
def drawn():
    task = tasks.get("dialogue")
    return task, task.pairs("validation", 4)


def test_a_dose_is_the_written_norm_over_the_mean_norm_of_its_layer(carded):
    v = carded.directions
    assert mean_norms(carded.card) == NORMS
    assert dose(v, (1,), -2.0, NORMS) == pytest.approx(2.4)
    assert dose(v, (0, 1), 1.0, NORMS) == pytest.approx(3.0)  # the largest of the layers
    assert dose(v, (0, 1), 0.0, {}) == 0.0


def test_a_dose_that_is_not_known_is_none(carded):
    assert dose(carded.directions, (0, 1), 1.0, {0: 4.0}) is None
    assert dose(carded.directions, (0,), 1.0, NORMS, "ablate") is None
    assert dose(carded.directions, (0,), 0.0, NORMS, "clamp") is None  # 0 writes something too
    assert dose(carded.directions, (0,), 0.0, NORMS, "rotate") == 0.0
    assert mean_norms({}) == {}


def test_in_norms_keeps_the_direction_and_makes_coefficient_1_a_dose_of_1(carded, dialogue_vector):
    scaled = in_norms(carded)
    for k in (0, 1):
        assert dose(scaled.directions, (k,), -3.0, NORMS) == pytest.approx(3.0)
        assert float(torch.cosine_similarity(scaled.at(k), carded.at(k), dim=0)) == pytest.approx(1.0)
    with pytest.raises(UserError, match="no mean_norm of layer 0"):
        in_norms(dialogue_vector)


@pytest.mark.parametrize("target", [1e-4, 0.02, 1.0, 3000.0])
def test_a_parabola_is_inverted(target):
    assert bracketed(lambda x: x * x, target) == pytest.approx(math.sqrt(target), rel=0.02)


def test_the_first_crossing_of_a_curve_that_falls_again_is_found():
    assert bracketed(lambda x: math.sin(x) if x < 3 else 0.0, 0.5) == pytest.approx(math.asin(0.5), rel=0.05)


def test_a_divergence_that_is_not_reached_or_jumped_over_is_refused():
    with pytest.raises(UserError, match=r"not reached up to 64 times the vector, where the largest is 0\.9"):
        bracketed(lambda x: min(x, 0.9), 1.0)
    with pytest.raises(UserError, match="jumps over 1 nats"):
        bracketed(lambda x: float(x > 0.3) * 2, 1.0)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UserError, match="above 0"):
            bracketed(lambda x: x, bad)


@pytest.mark.parametrize("target", [0.05, -0.2])
def test_a_calibrated_coefficient_causes_the_divergence_it_was_asked_for(dialogue_lm, carded, drawn, target):
    task, pairs = drawn
    coef = iso_kl(dialogue_lm, task, pairs, carded, SETTING, target)
    assert math.copysign(1, coef) == math.copysign(1, target)
    calibration = Calibration(dialogue_lm, task, pairs)
    assert calibration.kl(carded, coef, SETTING) == pytest.approx(abs(target), rel=0.03)
    double = dataclasses.replace(carded, directions={k: 2 * v for k, v in carded.directions.items()})
    assert calibration.coef(double, SETTING, target) == pytest.approx(coef / 2, rel=0.05)
