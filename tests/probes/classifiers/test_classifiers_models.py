import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from corrector.errors import UserError
from probes.classifiers.models import GRID, fitter, logistic, names, nats, prior
from probes.directions import METHODS, lat


def data(n=120, d=6, signal=1.5, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2 == 0
    x = rng.normal(size=(n, d)) * np.arange(1, d + 1) + 5
    x[:, 0] += signal * y
    return x, y, [f"p{i // 2}" for i in range(n)]


def test_logistic_equals_the_sklearn_pipeline_at_its_chosen_strength():
    x, y, problems = data()
    got = logistic(x, y, problems)
    assert got.c in GRID
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=got.c, max_iter=1000)).fit(x, y)
    np.testing.assert_allclose(got.scores(x), oracle.decision_function(x), atol=1e-3)
    np.testing.assert_allclose(got.probability(x), oracle.predict_proba(x)[:, 1], atol=1e-3)
    assert got.scores(x[:0]).shape == (0,)


def test_the_strength_is_chosen_by_problem():
    """Labels and features that only the problem ties together: by item a weak penalty wins, by problem a strong one."""
    rng = np.random.default_rng(0)
    problem = np.repeat(np.arange(30), 4)
    x, y = rng.normal(size=(30, 40))[problem], (rng.random(30) < 0.5)[problem]
    assert logistic(x, y, [str(p) for p in problem]).c == min(GRID)
    assert logistic(x, y, [str(i) for i in range(120)]).c == max(GRID)


def test_a_feature_without_spread_changes_nothing():
    x, y, problems = data()
    wider = np.concatenate([x, np.full((len(x), 1), 1e6) + 1e-9 * x[:, :1]], axis=1)
    np.testing.assert_allclose(logistic(wider, y, problems).scores(wider), logistic(x, y, problems).scores(x))


def test_methods_of_directions_are_given_pairs_of_one_problem():
    x, y, problems = data()
    order = np.random.default_rng(1).permutation(len(x))
    x, y, problems = x[order], y[order], [problems[i] for i in order]
    extra = np.array([True, True, False])
    x, y, problems = np.concatenate([x, x[:3] + 9]), np.concatenate([y, extra]), [*problems, "a", "b", "c"]
    by = {(p, bool(label)): i for i, (p, label) in enumerate(zip(problems, y, strict=True))}
    both = [p for p in dict.fromkeys(problems) if (p, True) in by and (p, False) in by]
    pos, neg = (torch.tensor(x[[by[p, side] for p in both]]).float() for side in (True, False))
    u = lat(pos, neg).unit.double().numpy()
    scores = fitter("lat")(x, y, problems).scores(x)
    assert len(both) == 60 and abs(np.corrcoef(scores, x @ u)[0, 1]) > 1 - 1e-9


def test_mass_mean_takes_all_items_and_points_to_the_positives():
    x, y, problems = data(signal=4.0)
    x, y, problems = x[:-20], np.concatenate([y[:80], np.ones(20, dtype=bool)]), problems[:-20]
    v = x[y].mean(0) - x[~y].mean(0)
    scores = fitter("mass_mean")(x, y, problems).scores(x)
    assert np.corrcoef(scores, x @ v)[0, 1] > 1 - 1e-9


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_there_is_can_be_a_classifier(name):
    x, y, problems = data(signal=12.0, n=80)
    assert name in names()
    scores = fitter(name)(x, y, problems).scores(x)
    assert scores.shape == (80,) and np.isfinite(scores).all()


def test_prior_says_the_share_and_nats_are_its_log_loss():
    x, y, problems = data(n=40)
    fitted = prior(x, np.arange(40) < 10, problems)
    np.testing.assert_allclose(fitted.probability(x), 11 / 42)
    p = fitter("lda")(x, y, problems)
    assert nats(p.scores(x), y) == pytest.approx(-np.log(np.where(y, p.probability(x), 1 - p.probability(x))).sum())
    assert nats(np.array([800.0, -800.0]), np.array([False, True])) == 1600


def test_mistakes_are_named():
    x, y, problems = data()
    with pytest.raises(UserError, match=r"classifier='svm' is not one of logistic, mass_mean, lda, .*--classifier"):
        fitter("svm")
    for name in ("logistic", "mass_mean", "lda", "diff_means"):
        with pytest.raises(UserError, match=r"one class only|negatives"):
            fitter(name)(x, y | True, problems)
