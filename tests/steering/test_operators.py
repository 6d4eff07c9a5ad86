"""Operators: identity at 0, what each promises, degenerate cases, and gradients against finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.errors import UserError
from steering.operators import IDENTITY_AT_ZERO, OPERATORS, ablate, add, clamp, operator, rotate

D = 16
ALL = sorted(OPERATORS)


def drawn(*shape, seed=0, dtype=torch.float32, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def angle(a, b):
    return torch.atan2((a - (a * b).sum(-1, keepdim=True) * b).norm(dim=-1), (a * b).sum(-1))


@pytest.mark.parametrize("name", ALL)
def test_a_new_tensor_is_written_and_rows_are_apart(name):
    h, v, coef = drawn(2, 3, D), drawn(2, 1, D, seed=1), torch.tensor([0.5, -2.0]).view(2, 1, 1)
    before = h.clone()
    new = operator(name)(h, v, coef)
    assert torch.equal(h, before) and new.shape == h.shape and not torch.equal(new, h)
    assert torch.allclose(operator(name)(h[1], v[1], -2.0), new[1], atol=1e-6)


@pytest.mark.parametrize("name", sorted(IDENTITY_AT_ZERO))
def test_coefficient_zero_is_the_identity_to_the_bit(name):
    h, v = drawn(50, D, scale=30.0), drawn(50, D, seed=1, scale=4.0)
    for zero in (0.0, torch.zeros(50, 1), -torch.zeros(50, 1)):
        assert torch.equal(operator(name)(h, v, zero), h)


def test_only_clamp_moves_at_coefficient_zero():
    assert set(OPERATORS) - IDENTITY_AT_ZERO == {"clamp"}
    h, v = drawn(5, D), drawn(1, D, seed=1)
    assert torch.allclose(clamp(h, v, 0.0), ablate(h, v), atol=1e-6)


def test_add():
    h, v = drawn(5, D), drawn(1, D, seed=1)
    assert torch.equal(add(h, v, 2.0), h + 2 * v)


def test_ablate_leaves_no_projection_and_only_the_direction_counts():
    h, v = drawn(50, D, scale=20.0), drawn(1, D, seed=1)
    gone = ablate(h, v)
    assert (gone @ v[0] / v.norm()).abs().max() < 1e-5
    assert torch.allclose(ablate(gone, v), gone, atol=1e-5)
    assert torch.allclose(ablate(h, 100 * v), gone, atol=1e-5)
    assert torch.allclose(ablate(h, v, 0.25) @ v[0], 0.75 * h @ v[0], atol=1e-4)


def test_clamp_sets_the_projection_in_natural_units_and_nothing_else():
    h, v = drawn(50, D, scale=20.0), drawn(1, D, seed=1, scale=3.0)
    u, origin = v[0] / v.norm(), 4.0
    for coef in (-0.5, 0.0, 1.0):
        new = clamp(h, v, coef, origin)
        assert torch.allclose(new @ u, (origin + coef * v.norm()).expand(50), atol=1e-4)
        assert torch.allclose(ablate(new, v), ablate(h, v), atol=1e-4)
        assert torch.allclose(clamp(new, v, coef, origin), new, atol=1e-4)
    # between the class means: what add moves the negatives' mean by, clamp moves every h to
    negatives, positives = drawn(40, D, seed=2), drawn(40, D, seed=3) + 2
    delta = positives.mean(0) - negatives.mean(0)
    at = float(negatives.mean(0) @ delta / delta.norm())
    moved = clamp(negatives, delta[None], 1.0, at)
    assert torch.allclose(moved @ delta, (positives.mean(0) @ delta).expand(40), atol=1e-3)


@pytest.mark.parametrize("c", [-3.0, -0.7, 0.3, 1.5, 3.0])
def test_rotate_is_the_rotation_matrix_of_the_plane(c):
    h, v = drawn(D, dtype=torch.float64), drawn(D, seed=1, dtype=torch.float64)
    u = v / v.norm()
    e = h - (h @ u) * u
    e = e / e.norm()
    matrix = torch.linalg.matrix_exp(c * (torch.outer(u, e) - torch.outer(e, u)))
    assert torch.allclose(rotate(h[None], v[None], c)[0], matrix @ h, atol=1e-12)
    assert torch.allclose(rotate(h[None], 7 * v[None], c)[0], matrix @ h, atol=1e-12)


def test_rotate_turns_toward_u_by_its_angle():
    h, v = drawn(50, D, dtype=torch.float64), drawn(1, D, seed=1, dtype=torch.float64)
    u = (v / v.norm()).expand(50, D)
    for c in (-0.2, 0.4):
        assert torch.allclose(angle(rotate(h, v, c), u), angle(h, u) - c, atol=1e-9)


@given(c=st.floats(-6.3, 6.3), tilt=st.floats(-6, 1), scale=st.floats(-3, 4), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_rotate_keeps_the_norm_also_where_h_is_nearly_parallel(c, tilt, scale, seed):
    v, noise = drawn(1, D, seed=seed), drawn(1, D, seed=seed + 1000)
    h = 10**scale * (v + 10**tilt * noise)
    new = rotate(h, v, c)
    assert new.isfinite().all()
    assert math.isclose(float(new.double().norm()), float(h.double().norm()), rel_tol=1e-6)


@pytest.mark.parametrize("c", [0.0, 0.5, math.pi / 2, -math.pi])
def test_rotate_leaves_what_defines_no_plane(c):
    v = drawn(1, D)
    v = torch.where(torch.arange(D) == 3, 2.0, 0.0)[None]
    for h in (torch.zeros(1, D), 5 * v, -0.1 * v):
        assert torch.equal(rotate(h, v, c), h)
    h = drawn(1, D, seed=5)
    assert torch.allclose(rotate(rotate(h, v, 0.2), v, 0.3), rotate(h, v, 0.5), atol=1e-6)
    orthogonal = ablate(h, v)
    assert torch.allclose(rotate(orthogonal, v, math.pi / 2), orthogonal.norm() * v / v.norm(), atol=1e-5)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("c", [0.0, 0.8])
def test_gradients_are_those_of_finite_differences(name, c):
    h, v = drawn(2, 3, D, dtype=torch.float64), drawn(2, 1, D, seed=1, dtype=torch.float64)
    coef = torch.full((2, 1, 1), c, dtype=torch.float64)
    assert torch.autograd.gradcheck(operator(name), [x.requires_grad_() for x in (h, v, coef)])


@pytest.mark.parametrize("name", ALL)
def test_degenerate_rows_give_no_nan_to_gradients(name):
    h, v = torch.zeros(2, D).requires_grad_(), torch.zeros(2, D).requires_grad_()
    coef = torch.ones(2, 1).requires_grad_()
    operator(name)(h, v, coef).sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (h, v, coef))


def test_names():
    with pytest.raises(UserError, match="operator='multiply' is not one of add, ablate, clamp, rotate"):
        operator("multiply")
