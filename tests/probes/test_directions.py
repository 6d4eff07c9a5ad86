import math

import pytest
import torch
from sklearn.decomposition import PCA

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions import diff_means, fit, lat, random_direction

D, N = 64, 300


def planted(signal=4.0, nuisance=0.0, seed=0):
    """Pairs that differ by `signal` along a true axis, plus noise, plus a nuisance axis of random sign."""
    g = torch.Generator().manual_seed(seed)
    truth, other = torch.linalg.qr(torch.randn(D, 2, generator=g))[0].T
    neg = torch.randn(N, D, generator=g)
    pos = neg + signal * truth + 0.5 * torch.randn(N, D, generator=g)
    pos += nuisance * (2 * torch.randint(0, 2, (N, 1), generator=g) - 1) * other
    return pos, neg, truth


def test_both_methods_find_a_planted_direction_that_centred_pca_loses():
    pos, neg, truth = planted()
    assert diff_means(pos, neg).unit @ truth > 0.99
    assert lat(pos, neg).unit @ truth > 0.99
    centred = torch.tensor(PCA(1).fit((pos - neg).numpy()).components_[0])
    assert abs(centred @ truth) < 0.3


def test_a_nuisance_of_twice_the_signal_fools_lat_but_not_diff_means():
    pos, neg, truth = planted(nuisance=8.0)
    assert abs(lat(pos, neg).unit @ truth) < 0.3
    assert diff_means(pos, neg).unit @ truth > 0.95


def test_removing_the_direction_removes_the_signal():
    pos, neg, _ = planted()
    u = diff_means(pos, neg).unit
    gap = (pos.mean(0) - neg.mean(0)) @ u
    gone = [h - torch.outer(h @ u, u) for h in (pos, neg)]
    assert gap > 3.9 and abs((gone[0].mean(0) - gone[1].mean(0)) @ u) < 1e-4


@pytest.mark.parametrize("method", [diff_means, lat])
def test_natural_units_sign_and_symmetry(method):
    pos, neg, _ = planted(signal=3.0)
    direction = method(pos, neg)
    delta = pos.mean(0) - neg.mean(0)
    assert math.isclose(direction.norm, float(delta @ direction.unit), rel_tol=1e-5)
    assert abs(direction.norm - 3.0) < 0.2
    torch.testing.assert_close(method(neg, pos).vector, -direction.vector, atol=1e-5, rtol=0)
    torch.testing.assert_close(method(5 * pos, 5 * neg).vector, 5 * direction.vector, atol=1e-4, rtol=1e-4)
    assert direction.scores(pos).mean() > direction.scores(neg).mean()
    assert 0.3 < direction.explained_variance < 0.6  # 9 of 9 + 64/4


def test_lat_has_the_largest_explained_variance():
    pos, neg, _ = planted(nuisance=3.0)
    assert lat(pos, neg).explained_variance >= diff_means(pos, neg).explained_variance
    g = torch.Generator().manual_seed(1)
    d = pos - neg
    for _ in range(20):
        u = random_direction(D, 1.0, g).vector
        assert (d @ u).square().sum() / d.square().sum() < lat(pos, neg).explained_variance


def test_random_direction_has_its_norm_and_its_generator():
    a, b, c = (random_direction(D, 2.5, torch.Generator().manual_seed(s)).vector for s in (0, 0, 1))
    assert math.isclose(float(a.norm()), 2.5, rel_tol=1e-6)
    assert torch.equal(a, b) and abs(torch.cosine_similarity(a, c, dim=0)) < 0.5


@pytest.mark.parametrize("method", [diff_means, lat])
def test_bad_input_is_refused(method):
    pos, neg, _ = planted()
    with pytest.raises(UserError, match="no negatives"):
        method(pos, neg[:0])
    broken = pos.clone()
    broken[7, 3] = float("nan")
    with pytest.raises(UserError, match="positives hold a NaN or infinity in row 7"):
        method(broken, neg)
    with pytest.raises(UserError, match="same mean"):
        method(pos, pos)


def test_lat_needs_pairs_and_diff_means_does_not():
    pos, neg, _ = planted()
    with pytest.raises(UserError, match="needs pairs"):
        lat(pos, neg[:-1])
    assert diff_means(pos, neg[:-1]).explained_variance is None


def activations(h, **changes):
    values = {"h": h, "layers": (2, 5), "site": "resid_post", "span": "last", "ids": ("p",) * len(h)} | changes
    return Activations(**values)


def test_fit_records_layer_site_and_span():
    pos, neg, truth = planted()
    p, n = (torch.stack([torch.randn(N, D), h], 1) for h in (pos, neg))
    fitted = fit("lat", activations(p), activations(n))
    assert {k: (f.layer, f.site, f.span, f.method) for k, f in fitted.items()} == {
        k: (k, "resid_post", "last", "lat") for k in (2, 5)
    }
    assert fitted[5].unit @ truth > 0.99
    with pytest.raises(UserError, match="capture both alike"):
        fit("lat", activations(p), activations(n, span="output"))
    with pytest.raises(UserError, match="method='pca'"):
        fit("pca", activations(p), activations(n))
    with pytest.raises(UserError, match=r"layer 2, resid_post at last: .*same mean"):
        fit("lat", activations(p), activations(p))
