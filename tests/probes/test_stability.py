import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from corrector.errors import UserError
from probes.capture import Activations
from probes.directions import diff_means, fit
from probes.stability import layer_cosines, method_cosines, stability

LAYERS = (0, 2, 10)


def make(signal=3.0, n=80, d=24, per_problem=2, seed=0):
    """No signal at layer 0, one at layer 2, and the same one on another axis at layer 10."""
    g = torch.Generator().manual_seed(seed)
    ids = tuple(f"p{i // per_problem}" for i in range(n))
    neg, pos = torch.randn(n, 3, d, generator=g), torch.randn(n, 3, d, generator=g)
    pos[:, 1, 0] += signal
    pos[:, 2, 1] += signal
    return [Activations(h, LAYERS, "resid_post", "last", ids) for h in (pos, neg)]


def test_a_planted_direction_is_stable_and_noise_is_not():
    noise, planted, other = stability("diff_means", *make())
    assert (planted.layer, planted.method, planted.span, planted.n_problems) == (2, "diff_means", "last", 40)
    assert (planted.n_resamples, planted.dropped) == (50, 0)
    for row in (planted, other):
        assert 0.85 < row.low < row.mean < 1
    assert 0.35 < noise.mean < 0.65 and noise.low < noise.mean  # one half: the resamples share the sample's noise


def test_what_depends_on_its_seed_alone_is_not_stable():
    for row in stability("random", *make(signal=0.0)):
        assert abs(row.mean) < 0.2


def test_more_problems_make_it_stabler_and_repeated_rows_do_not():
    def mean(side):
        return stability("diff_means", *side)[1].mean

    small, large = make(signal=1.0, n=40), make(signal=1.0, n=400)
    assert mean(large) > mean(small) + 0.05
    repeated = [
        Activations(a.h.repeat_interleave(3, 0), LAYERS, a.site, a.span, tuple(i for i in a.ids for _ in range(3)))
        for a in small
    ]
    assert mean(repeated) == pytest.approx(mean(small), abs=1e-5)


def test_cosines_are_of_a_plain_bootstrap():
    pos, neg = make(n=12, per_problem=2)
    rng = np.random.default_rng([4, *b"stability"])
    units = []
    for _ in range(6):
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in rng.integers(0, 6, 6)])
        units.append(diff_means(pos.at(2)[rows], neg.at(2)[rows]).unit)
    plain = [float(units[i] @ units[j]) for i in range(6) for j in range(i)]
    row = stability("diff_means", pos, neg, n_resamples=6, seed=4)[1]
    assert row.mean == pytest.approx(np.mean(plain), abs=1e-5)
    assert row.low == pytest.approx(np.quantile(plain, 0.05), abs=1e-5)
    assert row == stability("diff_means", pos, neg, n_resamples=6, seed=4)[1]
    assert row != stability("diff_means", pos, neg, n_resamples=6, seed=5)[1]


def test_pairs_stay_pairs_in_a_resample():
    g = torch.Generator().manual_seed(0)
    base = 20 * torch.randn(60, 1, 16, generator=g)  # drowns the signal where a pair is broken
    pos = base + torch.eye(16)[0] + 0.1 * torch.randn(60, 1, 16, generator=g)
    sides = [Activations(h, (0,), "resid_post", "last", tuple(f"p{i % 30}" for i in range(60))) for h in (pos, base)]
    (row,) = stability("lat", *sides, n_resamples=10)
    assert row.low > 0.99


def test_resamples_without_a_class_are_dropped_and_counted():
    h = torch.randn(4, 1, 8, generator=torch.Generator().manual_seed(0))
    pos = Activations(h[:2] + 1, (0,), "resid_post", "last", ("a", "b"))
    neg = Activations(h[2:], (0,), "resid_post", "last", ("c", "d"))
    (row,) = stability("diff_means", pos, neg, n_resamples=40)
    assert 0 < row.dropped < 20 and row.n_resamples + row.dropped == 40


def test_too_little_is_refused():
    pos, neg = make(n=2)
    with pytest.raises(UserError, match="of 1 problems"):
        stability("diff_means", pos, neg)
    pos, neg = make()
    with pytest.raises(UserError, match="1 resamples"):
        stability("diff_means", pos, neg, n_resamples=1)
    with pytest.raises(UserError, match="method='pca'"):
        stability("pca", pos, neg)


def test_cosines_between_methods_and_between_layers():
    pos, neg = make()
    fitted = {m: fit(m, pos, neg) for m in ("diff_means", "lda", "random")}
    between = method_cosines(fitted, 2)
    assert between.names == ("diff_means", "lda", "random") and between.of == "layer 2"
    matrix = np.array(between.cosine)
    np.testing.assert_allclose(matrix, matrix.T)
    np.testing.assert_allclose(np.diag(matrix), 1)
    assert matrix[0, 1] > 0.9 and abs(matrix[0, 2]) < 0.6
    assert matrix[0, 2] == pytest.approx(float(fitted["diff_means"][2].unit @ fitted["random"][2].unit), abs=1e-6)

    layers = layer_cosines(dict(reversed(fitted["diff_means"].items())))
    assert layers.names == ("0", "2", "10") and layers.of == "diff_means"
    assert abs(layers.cosine[1][2]) < 0.3  # the planted axes are orthogonal
    assert json.loads(json.dumps(asdict(layers)))["cosine"][0][0] == pytest.approx(1)

    with pytest.raises(UserError, match="layer=3 was not fitted by diff_means"):
        method_cosines(fitted, 3)
    with pytest.raises(UserError, match="no layers"):
        layer_cosines({})
