"""What every method promises: the planted direction, natural units, the invariances, and errors."""

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions import METHODS, Direction, diff_means, fit, lat, random_direction, without

D, N = 64, 300
PAIRED = ("lat", "lat_repe", "cluster_mean", "ccs")
FOUND = {
    "diff_means": 0.99,
    "lat": 0.99,
    "lat_repe": 0.99,
    "cluster_mean": 0.99,
    "lda": 0.95,
    "rda": 0.98,
    "logistic": 0.85,
    "ccs": 0.85,
}
"""Least cosine to the truth; what discriminates also uses the noise of the sample, and so turns from it a little."""


def planted(signal=4.0, nuisance=0.0, seed=0, n=N, d=D):
    """Pairs that differ by `signal` along a true axis, plus noise, plus a nuisance axis of random sign."""
    g = torch.Generator().manual_seed(seed)
    truth, other = torch.linalg.qr(torch.randn(d, 2, generator=g))[0].T
    neg = torch.randn(n, d, generator=g)
    pos = neg + signal * truth + 0.5 * torch.randn(n, d, generator=g)
    pos += nuisance * (2 * torch.randint(0, 2, (n, 1), generator=g) - 1) * other
    return pos, neg, truth


@functools.cache
def fitted(method, nuisance=0.0):
    pos, neg, _ = planted(nuisance=nuisance)
    return METHODS[method](pos, neg, 0)


def small():
    return planted(signal=3.0, n=80, d=16)[:2]


@functools.cache
def fitted_small(method):
    return METHODS[method](*small(), 0)


@pytest.mark.parametrize("method", FOUND)
def test_a_planted_direction_is_found(method):
    truth = planted()[2]
    assert fitted(method).unit @ truth > FOUND[method]


def test_lat_keeps_what_centred_pca_of_one_order_loses():
    pos, neg, truth = planted()
    assert abs(lat(pos, neg).unit @ truth) >= 0.95
    centred = torch.tensor(PCA(1).fit((pos - neg).numpy()).components_[0])
    assert abs(centred @ truth) <= 0.3


def test_a_nuisance_of_twice_the_signal_fools_what_has_no_labels_but_its_pairs():
    truth = planted(nuisance=8.0)[2]
    for method in ("lat", "lat_repe", "cluster_mean"):
        assert abs(fitted(method, 8.0).unit @ truth) <= 0.05
    assert fitted("diff_means", 8.0).unit @ truth > 0.95
    for method in ("logistic", "lda", "ccs"):  # what is consistent: the nuisance moves one side of a pair alone
        assert fitted(method, 8.0).unit @ truth > 0.85


def test_a_random_axis_finds_nothing_and_keeps_the_contract():
    truth = planted()[2]
    cosines = [METHODS["random"](*planted()[:2], seed).unit @ truth for seed in range(20)]
    assert max(cosines) < 0.5 and min(cosines) >= -0.5 and len({float(c) for c in cosines}) == 20


def test_removing_the_direction_removes_the_signal():
    pos, neg, _ = planted()
    u = diff_means(pos, neg).unit
    gap = (pos.mean(0) - neg.mean(0)) @ u
    gone = [h - torch.outer(h @ u, u) for h in (pos, neg)]
    assert gap > 3.9 and abs((gone[0].mean(0) - gone[1].mean(0)) @ u) < 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_coef_1_adds_the_mean_difference_along_it(method):
    pos, neg = small()
    direction = fitted_small(method)
    delta = pos.mean(0) - neg.mean(0)
    assert math.isclose(direction.norm, float(delta @ direction.unit), rel_tol=1e-4)
    moved = (neg + direction.vector).mean(0) @ direction.unit
    assert math.isclose(float(moved), float(pos.mean(0) @ direction.unit), abs_tol=1e-4)
    share = ((pos - neg) @ direction.unit).square().sum() / (pos - neg).square().sum()
    assert math.isclose(direction.explained_variance, float(share), rel_tol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_classes_swapped_flip_it_and_units_scale_it(method):
    pos, neg = small()
    v = fitted_small(method).vector
    swapped = METHODS[method](neg, pos, 0)
    torch.testing.assert_close(swapped.vector, -v, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(METHODS[method](5 * pos, 5 * neg, 0).vector, 5 * v, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_order_of_items_and_origin_of_space_do_not_matter(method):
    pos, neg = small()
    v = fitted_small(method).vector
    order = torch.randperm(len(pos), generator=torch.Generator().manual_seed(3))
    permuted = METHODS[method](pos[order], neg[order], 0).vector
    if method == "lat_repe":  # its coins fall on places, not on items
        assert torch.cosine_similarity(permuted, v, dim=0) > 0.999
    else:
        torch.testing.assert_close(permuted, v, atol=1e-3, rtol=1e-3)
    away = torch.full((pos.shape[1],), 3.0)
    torch.testing.assert_close(METHODS[method](pos + away, neg + away, 0).vector, v, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_same_seed_same_direction_whatever_the_global_generators_hold(method):
    pos, neg = small()
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 (what a stray global draw would read)
    state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    again = METHODS[method](pos, neg, 0)
    assert torch.equal(again.vector, fitted_small(method).vector)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("method", FOUND)
def test_threshold_tells_the_classes_apart_and_scores_rank_them(method):
    pos, neg, _ = planted()
    direction = fitted(method)
    assert direction.scores(pos).mean() > direction.threshold > direction.scores(neg).mean()
    right = direction.predict(pos).float().mean() / 2 + (~direction.predict(neg)).float().mean() / 2
    assert right > 0.95


def test_which_methods_leave_the_sign_to_the_labels():
    left = {m for m in METHODS if not fitted_small(m).sign_identified}
    assert left == {"lat", "lat_repe", "cluster_mean", "ccs", "random"}
    with pytest.raises(UserError, match="no threshold"):
        random_direction(D, 1.0, torch.Generator()).predict(torch.zeros(1, D))


def test_lat_has_the_largest_explained_variance():
    pos, neg, _ = planted(nuisance=3.0)
    most = lat(pos, neg).explained_variance
    assert 0.3 < diff_means(pos, neg).explained_variance <= most
    g = torch.Generator().manual_seed(1)
    d = pos - neg
    for _ in range(20):
        u = random_direction(D, 1.0, g).vector
        assert (d @ u).square().sum() / d.square().sum() < most


def test_random_direction_has_its_norm_and_its_generator():
    a, b, c = (random_direction(D, 2.5, torch.Generator().manual_seed(s)).vector for s in (0, 0, 1))
    assert math.isclose(float(a.norm()), 2.5, rel_tol=1e-6)
    assert torch.equal(a, b) and abs(torch.cosine_similarity(a, c, dim=0)) < 0.5


@pytest.mark.parametrize("method", METHODS)
def test_bad_input_is_refused(method):
    pos, neg, _ = planted()
    with pytest.raises(UserError, match="no negatives"):
        METHODS[method](pos, neg[:0], 0)
    broken = pos.clone()
    broken[7, 3] = float("nan")
    with pytest.raises(UserError, match="positives hold a NaN or infinity in row 7"):
        METHODS[method](broken, neg, 0)
    with pytest.raises(UserError, match="same mean"):
        METHODS[method](pos, pos, 0)


@pytest.mark.parametrize("method", METHODS)
def test_pairs_are_needed_or_not(method):
    pos, neg, _ = planted(n=40)
    if method in PAIRED:
        with pytest.raises(UserError, match=f"{method} needs pairs, got 40 positives and 39 negatives"):
            METHODS[method](pos, neg[:-1], 0)
    else:
        assert METHODS[method](pos, neg[:-1], 0).explained_variance is None


def test_without_projects_out_and_keeps_the_units():
    g = torch.Generator().manual_seed(0)
    v, w = (Direction(torch.randn(D, generator=g), name, threshold=1.0) for name in ("lat", "length"))
    left = without(v, w)
    assert abs(left.vector @ w.unit) < 1e-5 and left.method == "lat-without-length" and left.threshold is None
    torch.testing.assert_close(left.vector + (v.vector @ w.unit) * w.unit, v.vector)
    torch.testing.assert_close(without(left, w).vector, left.vector)
    with pytest.raises(UserError, match="parallel"):
        without(v, Direction(-3 * v.vector, "minus"))
    with pytest.raises(UserError, match="fit both at one place"):
        without(v, Direction(w.vector, "length", layer=2))


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
    with pytest.raises(UserError, match="unlike problems"):
        fit("lat", activations(p), activations(n, ids=("q",) * N))
    assert fit("diff_means", activations(p), activations(n, ids=("q",) * N))


def test_fit_draws_by_seed_method_and_layer():
    pos, neg = small()
    p, n = (activations(torch.stack([h, h], 1)) for h in (pos, neg))
    first = fit("random", p, n)
    assert not torch.equal(first[2].vector, first[5].vector)
    assert torch.equal(first[5].vector, fit("random", p, n)[5].vector)
    assert not torch.equal(first[5].vector, fit("random", p, n, seed=1)[5].vector)
    one = [activations(a.h[:, 1:], layers=(5,)) for a in (p, n)]
    assert torch.equal(fit("random", *one)[5].vector, first[5].vector)  # what else is fitted does not matter
