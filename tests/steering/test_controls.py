import dataclasses
import itertools

import pytest
import torch

from steering.controls import random_controls
from steering.vectors import SteeringVector


@pytest.fixture
def vector():
    g = torch.Generator().manual_seed(3)
    directions = {k: (k + 1) * torch.randn(256, generator=g) for k in range(4)}
    return SteeringVector(directions, "diff_means", "resid_post", "prompt_last", "abc", "lab", "planted")


def test_controls_have_the_vectors_norm_at_every_layer(vector):
    controls = random_controls(vector, (1, 3), 5, seed=0)
    assert list(controls) == [f"random-{i:02d}" for i in range(5)]
    for control in controls.values():
        assert set(control) == {1, 3}
        for layer, v in control.items():
            assert v.shape == (256,) and v.dtype == torch.float32
            assert float(v.norm()) == pytest.approx(float(vector.at(layer).norm()), rel=1e-5)


def test_a_control_depends_on_no_other_control_and_no_order(vector):
    few, many = random_controls(vector, (1, 3), 2, seed=0), random_controls(vector, (3, 0, 1), 6, seed=0)
    torch.manual_seed(99)
    again = random_controls(vector, (1, 3), 2, seed=0)
    for name, layer in itertools.product(few, (1, 3)):
        assert torch.equal(few[name][layer], again[name][layer])
        assert torch.equal(few[name][layer], many[name][layer])


def test_seed_model_name_and_layer_each_change_the_draw(vector):
    base = random_controls(vector, (0, 1), 2, seed=0)
    other_model = dataclasses.replace(vector, fingerprint="abd")
    drawn = [
        base["random-00"][0],
        base["random-00"][1],
        base["random-01"][0],
        random_controls(vector, (0,), 1, seed=1)["random-00"][0],
        random_controls(other_model, (0,), 1, seed=0)["random-00"][0],
    ]
    for a, b in itertools.combinations(drawn, 2):
        assert abs(float(torch.cosine_similarity(a, b, dim=0))) < 0.3


def test_controls_are_nearly_orthogonal_on_average(vector):
    controls = random_controls(vector, (2,), 40, seed=0)
    u = torch.stack([c[2] for c in controls.values()])
    u = u / u.norm(dim=-1, keepdim=True)
    to_vector = u @ (vector.at(2) / vector.at(2).norm())
    among = (u @ u.T)[torch.triu_indices(40, 40, 1).unbind()]
    for cosines in (to_vector, among):
        # the cosine of isotropic directions in d dimensions has mean 0 and standard deviation 1/sqrt(d) = 0.0625
        assert abs(float(cosines.mean())) < 0.04
        assert 0.045 < float(cosines.std()) < 0.08
