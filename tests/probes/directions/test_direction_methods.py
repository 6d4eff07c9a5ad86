"""Each method against an independent implementation, and on data made for what sets it apart."""

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from corrector.errors import UserError
from probes.directions import (
    ccs,
    ccs_polarity,
    cluster_mean,
    diff_means,
    lat,
    lat_repe,
    lda,
    length_direction,
    logistic,
    rda,
    supervised,
    without,
)
from probes.directions.consistency import CONSTANT_LOSS, search
from probes.directions.unsupervised import pair_order


def planted(n=120, d=24, signal=4.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.normalize(torch.randn(d, generator=g), dim=0)
    neg = torch.randn(n, d, generator=g)
    return neg + signal * truth + 0.5 * torch.randn(n, d, generator=g), neg, truth


def published_lat(pos, neg, order, h):
    """Section 3.1 of 2310.01405 in numpy: (signed unit component, signed scores of h)."""
    first = np.where(order[:, None] > 0, pos, neg)
    second = np.where(order[:, None] > 0, neg, pos)
    label = np.where(order > 0, 0, 1)  # which of the pair is the positive
    d = first - second
    mean = d.mean(0)
    values, vectors = np.linalg.eigh((d - mean).T @ (d - mean))
    u = vectors[:, values.argmax()]
    scores = np.stack([(first - mean) @ u, (second - mean) @ u], 1)
    at = scores[np.arange(len(d)), label]
    sign = np.sign((at == scores.max(1)).mean() - (at == scores.min(1)).mean()) or 1.0
    return sign * u, sign * ((h - mean) @ u)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("signal", [0.5, 4.0])
def test_lat_repe_equals_the_published_method(seed, signal):
    pos, neg, _ = planted(signal=signal, seed=seed)
    direction = lat_repe(pos, neg, seed=seed)
    h = torch.randn(50, 24, generator=torch.Generator().manual_seed(9))
    order = pair_order(len(pos), seed).numpy()
    assert 0.3 < (order > 0).mean() < 0.7
    u, scores = published_lat(pos.double().numpy(), neg.double().numpy(), order, h.double().numpy())
    assert 1 - float(direction.unit.double() @ torch.from_numpy(u)) <= 1e-6
    np.testing.assert_allclose(direction.scores(h).numpy(), scores, atol=1e-4)


def test_the_published_centring_needs_the_shuffle():
    pos, neg, truth = planted()
    arrays = pos.double().numpy(), neg.double().numpy()
    lost, _ = published_lat(*arrays, np.ones(len(pos)), arrays[0])
    kept, _ = published_lat(*arrays, pair_order(len(pos), 0).numpy(), arrays[0])
    assert abs(lost @ truth.numpy()) <= 0.3 and kept @ truth.numpy() > 0.98


def test_the_sign_of_lat_repe_is_a_vote_of_pairs_not_the_mean():
    pos, neg, _ = planted(n=40)
    outlier = pos.clone()
    outlier[0] -= 400 * (pos - neg).mean(0)  # one pair turns the mean, and 39 outvote it
    voted, meant = lat_repe(outlier, neg), lat(outlier, neg)
    assert voted.scores(outlier)[1:].mean() > voted.scores(neg)[1:].mean()
    assert voted.unit @ meant.unit < -0.9
    delta = outlier.mean(0) - neg.mean(0)
    assert math.isclose(voted.norm, -float(delta @ voted.unit), rel_tol=1e-4)


def test_a_tied_vote_of_lat_repe_counts_as_plus():
    pos, neg = torch.zeros(2, 3), torch.zeros(2, 3)
    pos[0, 0], pos[1, 0] = 3.0, -1.0  # one pair each way
    tied = lat_repe(pos, neg)
    assert tied.sign == 1 and abs(tied.unit[0]) > 0.99 and math.isclose(tied.norm, 1.0, rel_tol=1e-6)
    with pytest.raises(UserError, match="got one pair"):
        lat_repe(pos[:1], neg[:1])


def test_cluster_mean_is_the_best_of_all_clusterings():
    pos, neg, _ = planted(n=10, d=4, signal=1.0)
    d = (pos - neg).double()
    every = torch.cartesian_prod(*[torch.tensor([1.0, -1.0], dtype=torch.float64)] * 10)
    best = max(every @ d, key=torch.norm)  # least within-cluster scatter = longest centroid
    assert abs(torch.cosine_similarity(cluster_mean(pos, neg).vector.double(), best, dim=0)) > 1 - 1e-9


def test_cluster_mean_counts_a_long_pair_less_than_lat():
    pos, neg, truth = planted()
    nuisance = torch.nn.functional.normalize(torch.eye(24)[0] - truth[0] * truth, dim=0)
    long = pos.clone()
    long[::10] += 20 * nuisance * torch.tensor([1.0, -1.0]).repeat(6)[:, None]
    assert abs(lat(long, neg).unit @ truth) < 0.3
    # It weighs 120 pairs of 4 against 12 of 20: cos = 480 / ‖(480, 240)‖.
    assert cluster_mean(long, neg).unit @ truth == pytest.approx(0.894, abs=0.03)


def test_logistic_folds_the_standardisation_and_the_intercept_back():
    pos, neg, _ = planted(signal=1.0)
    scales = torch.logspace(-1, 1, 24)
    pos, neg = (h * scales + 5 for h in (pos, neg))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(torch.cat([pos, neg]).double().numpy(), np.repeat([1, 0], len(pos)))
    h = (torch.randn(200, 24, generator=torch.Generator().manual_seed(1)) * scales + 5).float()
    logits = model.decision_function(h.double().numpy())
    direction = logistic(pos, neg)
    margin = (direction.scores(h) - direction.threshold).numpy()
    np.testing.assert_allclose(margin / np.abs(margin).mean(), logits / np.abs(logits).mean(), atol=1e-3)
    assert 0.2 < direction.predict(h).float().mean() < 0.8


def test_logistic_says_when_it_did_not_converge(monkeypatch):
    monkeypatch.setattr(supervised, "MAX_ITERATIONS", 2)
    with pytest.raises(UserError, match="did not converge in 2 steps"):
        logistic(*planted()[:2])


def ledoit_wolf(x):
    """Ledoit & Wolf 2004, lemma 3.2-3.4, for data of mean 0."""
    n, d = x.shape
    s = x.T @ x / n
    m = np.trace(s) / d
    spread = np.sum((s - m * np.eye(d)) ** 2)
    noise = sum(np.sum((np.outer(row, row) - s) ** 2) for row in x) / n**2
    share = min(noise, spread) / spread
    return share * m * np.eye(d) + (1 - share) * s


def test_lda_is_the_shrunk_covariance_inverse_times_delta():
    pos, neg, _ = planted(n=30)
    x = np.concatenate([h.double().numpy() - h.double().numpy().mean(0) for h in (pos, neg)])
    w = np.linalg.solve(ledoit_wolf(x), (pos.double().mean(0) - neg.double().mean(0)).numpy())
    assert 1 - float(lda(pos, neg).unit.double() @ torch.from_numpy(w / np.linalg.norm(w))) < 1e-6


def test_rda_is_scikit_learns_shrunk_discriminant_and_ends_at_diff_means():
    pos, neg = planted(n=200)[:2]
    x, y = torch.cat([pos, neg]).double().numpy(), np.repeat([1, 0], [len(pos), len(neg)])
    w = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.8).fit(x, y).coef_[0]
    assert 1 - float(rda(pos, neg).unit.double() @ torch.from_numpy(w / np.linalg.norm(w))) < 1e-6
    torch.testing.assert_close(rda(pos, neg, gamma=1.0).vector, diff_means(pos, neg).vector, atol=1e-5, rtol=1e-5)
    with pytest.raises(UserError, match="no class varies"):
        rda(torch.ones(3, 2), torch.zeros(3, 2))


def test_lda_turns_from_noise_that_diff_means_takes_along():
    g = torch.Generator().manual_seed(0)
    shape = torch.eye(8)
    shape[0, 0] = 6.0  # loud noise on axis 0
    pos, neg = (torch.randn(2000, 8, generator=g) @ shape for _ in range(2))
    pos += torch.tensor([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    axis = torch.nn.functional.normalize(torch.tensor([1 / 36, 1.0, 0, 0, 0, 0, 0, 0]), dim=0)
    assert lda(pos, neg).unit @ axis > 0.97
    assert diff_means(pos, neg).unit @ axis < 0.9
    with pytest.raises(UserError, match="no class varies"):
        lda(torch.ones(3, 2), torch.zeros(3, 2))


@functools.cache
def searched(order):
    pos, neg, truth = planted()
    if order == "both":
        centre = torch.cat([pos, neg]).mean(0)
        w, loss = search(pos - centre, neg - centre, 0)
    else:
        w, loss = search(pos - pos.mean(0), neg - neg.mean(0), 0)
    return float(torch.nn.functional.normalize(w, dim=0) @ truth.double()), loss


def test_ccs_loses_the_signal_where_the_slots_are_the_classes():
    assert abs(searched("both")[0]) > 0.85 and searched("both")[1] < 0.1
    assert abs(searched("classes")[0]) <= 0.3 and searched("classes")[1] > 0.15


def test_ccs_takes_its_sign_from_labels_alone():
    pos, neg, truth = planted()
    direction = ccs(pos, neg)
    assert direction.unit @ truth > 0.85 and not direction.sign_identified
    assert direction.loss == pytest.approx(searched("both")[1], abs=1e-6)
    turned = ccs(neg, pos)
    assert {direction.sign, turned.sign} == {1, -1} and turned.loss == pytest.approx(direction.loss, abs=1e-6)


def test_ccs_writes_nothing_where_no_activation_is():
    pos, neg, truth = planted(n=12, d=64)
    direction = ccs(pos, neg)
    centred = torch.cat([pos, neg]) - torch.cat([pos, neg]).mean(0)
    seen = torch.linalg.pinv(centred.double()) @ (centred.double() @ direction.vector.double())
    torch.testing.assert_close(seen.float(), direction.vector, atol=1e-4, rtol=1e-4)
    assert direction.unit @ truth > 0.5


def test_ccs_says_when_it_found_nothing():
    _, neg, _ = planted()
    pos = neg.clone()
    pos[0] += 1e-4
    with pytest.raises(UserError, match=f"a constant answer has {CONSTANT_LOSS}"):
        ccs(pos, neg)


def polar(cue):
    """Pairs of alternating polarity: the label moves h by 3 along one axis, and by ±cue along another."""
    g = torch.Generator().manual_seed(0)
    general, polarised, offset = torch.linalg.qr(torch.randn(32, 3, generator=g))[0].T
    s = torch.tensor([1, -1]).repeat(100)[:, None]
    shared = torch.randn(200, 32, generator=g) + 5 * s * offset
    step = (3 * general + s * cue * polarised) / 2
    pos, neg = (shared + t * step + 0.25 * torch.randn(200, 32, generator=g) for t in (1, -1))
    return pos, neg, s[:, 0].tolist(), general, polarised


def test_polarity_aware_ccs_finds_what_holds_in_both_groups():
    pos, neg, polarity, general, polarised = polar(cue=6.0)
    plain, aware = ccs(pos, neg), ccs_polarity(pos, neg, polarity)
    assert abs(plain.unit @ general) < 0.2 and abs(plain.unit @ polarised) > 0.8
    assert aware.unit @ general > 0.8 and abs(aware.unit @ polarised) < 0.1
    assert not aware.sign_identified and aware.predict(pos).float().mean() > 0.9


def test_polarity_must_be_balanced_and_signed():
    pos, neg, polarity, _, _ = polar(cue=1.0)
    for bad in (polarity[:-1], [1] * 200, [0, 1] * 100):
        with pytest.raises(UserError, match="as many of each"):
            ccs_polarity(pos, neg, bad)


def sized(n=200, d=32):
    g = torch.Generator().manual_seed(0)
    axis = torch.nn.functional.normalize(torch.randn(d, generator=g), dim=0)
    lengths = torch.randint(5, 60, (n,), generator=g).tolist()
    z = torch.tensor(lengths).float()
    return torch.randn(n, d, generator=g) + 2 * ((z - z.mean()) / z.std())[:, None] * axis, lengths, axis


def test_length_direction_is_found_in_units_of_one_standard_deviation():
    h, lengths, axis = sized()
    direction = length_direction(h, lengths)
    assert direction.unit @ axis > 0.95 and direction.norm == pytest.approx(2.0, rel=0.1)
    slope = np.polyfit(np.array(lengths) / np.std(lengths), direction.scores(h).numpy(), 1)[0]
    assert direction.norm == pytest.approx(slope, rel=1e-4)
    pos, neg, _ = planted()
    two = length_direction(torch.cat([pos, neg]), [9] * len(pos) + [4] * len(neg))
    torch.testing.assert_close(two.vector, diff_means(pos, neg).vector / 2)


def test_no_linear_probe_reads_length_once_it_is_projected_out():
    h, lengths, _ = sized()
    u = length_direction(h, lengths).unit
    before, after = (
        LinearRegression().fit(x.numpy(), lengths).score(x.numpy(), lengths)
        for x in (h.double(), (h - torch.outer(h @ u, u)).double())
    )
    assert before > 0.8 and after < 1e-4


def test_without_length_a_confounded_direction_keeps_its_own_part():
    h, lengths, axis = sized()
    own = torch.nn.functional.normalize(torch.eye(32)[3] - axis[3] * axis, dim=0)
    longest = np.argsort(lengths)[len(lengths) // 2 :]
    label = torch.zeros(len(h), dtype=torch.bool)
    label[torch.from_numpy(longest.copy())] = True
    moved = h + 3 * label[:, None] * own
    v, length = diff_means(moved[label], moved[~label]), length_direction(h, lengths)
    left = without(v, length)
    assert v.unit @ axis > 0.5 and abs(left.unit @ axis) < 0.1 and left.unit @ own > 0.95


def test_length_direction_refuses_what_has_no_slope():
    h, lengths, _ = sized()
    with pytest.raises(UserError, match="200 activations and 199 lengths"):
        length_direction(h, lengths[:-1])
    with pytest.raises(UserError, match="one length"):
        length_direction(h, [7] * len(h))
    with pytest.raises(UserError, match="NaN"):
        length_direction(h, [math.nan, *lengths[1:]])
    with pytest.raises(UserError, match="do not vary"):
        length_direction(torch.ones(200, 3), lengths)
