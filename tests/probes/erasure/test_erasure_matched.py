"""Nulls of a size: they reach it, they leave the concept exactly as it is, and they say where they fall short."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from corrector.errors import UserError
from probes.erasure import complement, leace, matched, size_matched

D = 12


def states(share, n=1200, seed=0):
    """Correlated states of which the classes' difference makes about this share of the variance."""
    g = torch.Generator().manual_seed(seed)
    mixing = torch.randn(D, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    h = torch.randn(n, D, generator=g, dtype=torch.float64) @ mixing
    labels = torch.rand(n, generator=g) < 0.5
    axis = torch.randn(D, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    total = float((h - h.mean(0)).square().sum(1).mean())
    h += labels[:, None] * axis / axis.norm() * 2 * math.sqrt(total * share / (1 - share))
    return h + 3, labels


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def moved(eraser, h):
    centred = h - h.mean(0)
    return float((eraser(h) - h).square().sum() / centred.square().sum())


def covariance(h, labels):
    return (h - h.mean(0)).T @ (labels.double() - labels.double().mean()) / len(h)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(4))
def test_the_size_of_leace_is_met_exactly_by_erasure_where_there_is_room_for_it(share, seed):
    h, z = states(share)
    wanted = leace(h, z).moved
    null = size_matched(h, z, wanted, generator(seed))
    assert null.scale == 1 and null.wanted == wanted and null.rank >= 1
    assert moved(null, h) == pytest.approx(wanted, rel=1e-5) == null.moved
    assert matched(null.moved, wanted)
    torch.testing.assert_close(null(null(h)), null(h), atol=1e-9, rtol=0)  # an erasure: once is enough


@pytest.mark.parametrize("fit", [complement, lambda h, z: size_matched(h, z, 0.3, generator())])
def test_the_concept_stays_in_covariance_and_in_every_states_score(fit):
    h, z = states(0.3)
    null, own = fit(h, z), leace(h, z)
    assert moved(null, h) > 0.25
    torch.testing.assert_close(covariance(null(h), z), covariance(h, z), atol=1e-9, rtol=0)
    torch.testing.assert_close((null(h) - own.mean) @ own.right, (h - own.mean) @ own.right, atol=1e-9, rtol=0)
    probe = LogisticRegression(max_iter=5000)
    before = probe.fit(h, z).score(h, z)
    assert probe.fit(null(h), z).score(null(h), z) > before - 0.02
    assert probe.fit(own(h), z).score(own(h), z) < 0.55


def test_the_complement_and_leace_share_the_variance_out():
    h, z = states(0.3)
    rest, own = complement(h, z), leace(h, z)
    assert rest.rank == D - 1 and rest.moved + own.moved == pytest.approx(1, abs=0.05)  # shrinkage tilts them
    left = rest(h) - h.mean(0)
    assert torch.linalg.matrix_rank(left, atol=1e-8) == 1  # the concept's axis is all there is
    torch.testing.assert_close(rest(h) - h.mean(0), (h - h.mean(0)) @ own.right @ own.left.T, atol=1e-9, rtol=0)


def test_a_concept_of_most_of_the_variance_is_matched_past_the_mean_and_a_larger_one_not_at_all():
    h, z = states(0.6)
    own, room = leace(h, z), complement(h, z).moved
    assert own.moved > room
    past = size_matched(h, z, own.moved, generator())
    assert 1 < past.scale < 1.5 and moved(past, h) == pytest.approx(own.moved, rel=1e-5)
    assert past.removed < past.moved  # some of it comes back on the other side of the mean
    torch.testing.assert_close(covariance(past(h), z), covariance(h, z), atol=1e-9, rtol=0)
    h, z = states(0.8)
    own, room = leace(h, z), complement(h, z).moved
    short = size_matched(h, z, own.moved, generator())
    assert short.scale == 1.5 and short.moved == pytest.approx(1.5**2 * 0.9 * room, rel=0.02)
    assert short.wanted == own.moved and not matched(short.moved, own.moved)


def test_draws_differ_and_follow_their_generator():
    h, z = states(0.3)
    a, b, c = (size_matched(h, z, 0.3, generator(s)) for s in (0, 0, 1))
    assert torch.equal(a.left, b.left) and not torch.allclose(a.left @ a.right.T, c.left @ c.right.T, atol=0.05)
    none = size_matched(h, z, 0.0, generator())
    assert none.rank == 0 and none.moved == 0 and torch.equal(none(h), h)


def test_matched_is_within_a_tenth():
    assert matched(0.55, 0.6) and matched(0.65, 0.6) and not matched(0.53, 0.6) and not matched(0.67, 0.6)
    assert matched(0.0, 0.0)


def test_without_a_concept_all_of_the_variance_is_there_to_erase():
    h, _ = states(0.0, 50)
    both, labels = torch.cat([h, h]), torch.arange(100) < 50
    assert complement(both, labels).moved == pytest.approx(1, abs=1e-9)
    with pytest.raises(UserError, match="all 100 labels are True"):
        size_matched(both, torch.ones(100, dtype=torch.bool), 0.3, generator())
