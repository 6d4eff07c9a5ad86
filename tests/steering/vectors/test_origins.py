import dataclasses

import pytest
import torch

from corrector import tasks
from corrector.errors import UserError
from probes.capture import Activations, capture_all
from probes.contrasts import minimal
from probes.directions import fit
from steering.controls.states import control_origins
from steering.extract import contrast_of, extract_vectors
from steering.interventions import Gate
from steering.vectors.origins import along, middle, of_card, own_origins


def contrasts(lm):
    task = tasks.get("dialogue")
    return minimal(lm, task.minimal_pairs("train", 6)), minimal(lm, task.minimal_pairs("validation", 4))


@pytest.fixture(scope="module")
def extracted(dialogue_lm):
    methods = ("diff_means", "logistic", "lat_repe")
    return extract_vectors(dialogue_lm, *contrasts(dialogue_lm), methods, ("prompt_last",), n_resamples=20)


@pytest.fixture(scope="module")
def states(dialogue_lm):
    sides = contrasts(dialogue_lm)[0].sequences(dialogue_lm)
    return [capture_all(dialogue_lm, side, spans=("prompt_last",))["resid_post", "prompt_last"] for side in sides]


def test_the_origin_of_a_layer_lies_midway_between_the_projected_classes(extracted, states):
    pos, neg = states
    for vector in extracted.values():
        for k, origin in own_origins(vector, (1, 0)).items():
            u = vector.at(k) / vector.at(k).norm()
            classes = [float((side.at(k) @ u).mean()) for side in (pos, neg)]
            assert origin == pytest.approx(sum(classes) / 2, abs=1e-4)
    assert list(own_origins(vector, (1, 0))) == [1, 0]
    v = extracted["diff_means", "prompt_last"]
    # natural units: at half a coefficient to either side lie the class means themselves
    u = v.at(1) / v.at(1).norm()
    assert of_card(v, 1, "origin") + 0.5 * float(v.at(1).norm()) == pytest.approx(
        float((pos.at(1) @ u).mean()), abs=1e-4
    )


def test_the_threshold_is_what_the_method_calls_positive(extracted, states):
    for (method, _), vector in extracted.items():
        for k, direction in fit(method, *states).items():
            assert of_card(vector, k, "threshold") == pytest.approx(Gate.of(direction).threshold, abs=1e-5)
            u = direction.unit
            for side in states:
                by_card = side.at(k) @ u > of_card(vector, k, "threshold")
                assert torch.equal(by_card, direction.predict(side.at(k)))
    plain, logistic = (extracted[m, "prompt_last"] for m in ("diff_means", "logistic"))
    assert of_card(plain, 0, "threshold") == pytest.approx(of_card(plain, 0, "origin"), abs=1e-5)
    assert of_card(logistic, 0, "threshold") != pytest.approx(of_card(logistic, 0, "origin"), abs=1e-5)


def test_projections_of_a_point_do_not_depend_on_the_length_of_the_direction():
    g = torch.Generator().manual_seed(2)
    point, v = torch.randn(8, generator=g), torch.randn(8, generator=g)
    assert along(point, v) == pytest.approx(along(point, 7 * v)) == pytest.approx(-along(point, -v))
    h = torch.arange(12.0).reshape(3, 1, 4)
    pos = Activations(h, (5,), "resid_post", "last", ("a", "b", "c"))
    neg = dataclasses.replace(pos, h=h[:1], ids=("a",))
    assert middle(pos, neg, 5).tolist() == [2.0, 3.0, 4.0, 5.0]  # of class means, however many each class has


def test_cards_without_the_number_are_refused_in_one_line_with_the_cure(extracted, dialogue_vector):
    known = extracted["diff_means", "prompt_last"]
    old = {k: {n: x for n, x in row.items() if n != "origin"} for k, row in known.card["layers"].items()}
    for vector in (dialogue_vector, 2 * known, dataclasses.replace(known, card={"layers": old})):
        with pytest.raises(
            UserError, match=r"no origin of layer 1, which --operator clamp needs; extract .* anew"
        ) as e:
            own_origins(vector, (1,))
        assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="no threshold of layer 0, which --gate needs"):
        of_card(dialogue_vector, 0, "threshold")


def test_controls_are_measured_on_the_states_that_the_vector_was(dialogue_lm, extracted, states):
    """Oracle: the vector itself, handed over as a control, has the origin of its own card."""
    task, vector = tasks.get("dialogue"), extracted["diff_means", "prompt_last"]
    directions = {"itself": {0: vector.at(0), 1: vector.at(1)}, "turned": {1: -3 * vector.at(1)}}
    origins = control_origins(dialogue_lm, task, vector, directions, "minimal", 6, 0)["origins"]
    assert origins["itself"] == {str(k): pytest.approx(x, abs=1e-4) for k, x in own_origins(vector, (0, 1)).items()}
    assert origins["turned"] == {"1": pytest.approx(-origins["itself"]["1"])}
    assert contrast_of("minimal", dialogue_lm, task, "train", 6, 0).problems == contrasts(dialogue_lm)[0].problems


def test_controls_without_a_contrast_have_no_origins_and_the_reason(dialogue_lm, dialogue_vector, capsys):
    task = tasks.get("dialogue")
    arguments = (dialogue_lm, task, dialogue_vector)
    # a random model copies nothing, so its own behaviour makes no contrast
    found = control_origins(*arguments, {"random-00": {0: dialogue_vector.at(0)}}, "copy_rewrite", 4, 0)
    assert found["origins"] == {} and "no matched pair" in found["origins_absent"]
    assert "dialogue: controls are left out" in capsys.readouterr().err
    assert control_origins(*arguments, {}, "copy_rewrite", 4, 0) == {"origins": {}}
