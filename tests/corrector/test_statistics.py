"""Statistics against scipy, known coverage and planted signals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from corrector.errors import UserError
from corrector.statistics import (
    bootstrap_mean,
    bootstrap_ratio,
    crossed_mean,
    crossed_ratio,
    item_slopes,
    line,
    max_null_p,
    mcnemar,
    null_p,
    slope_bootstrap,
    spearman,
    wilson,
    z_score,
)

RNG = np.random.default_rng(0)


def test_bootstrap_agrees_with_scipy() -> None:
    x = RNG.gamma(2.0, size=120)
    mine = bootstrap_mean(x, n_resamples=4000)
    theirs = stats.bootstrap((x,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert mine.mean == pytest.approx(x.mean()) and mine.n == 120
    assert mine.low == pytest.approx(theirs.low, abs=0.02) and mine.high == pytest.approx(theirs.high, abs=0.02)


def test_grouping_counts_questions_not_items() -> None:
    x = RNG.normal(size=50)
    once, tenfold = bootstrap_mean(x), bootstrap_mean(np.repeat(x, 10), np.repeat(np.arange(50), 10))
    assert tenfold.n == 50
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high))
    pretended = bootstrap_mean(np.repeat(x, 10))
    assert pretended.high - pretended.low < 0.5 * (once.high - once.low)


def test_groups_of_unequal_size_weigh_by_items() -> None:
    out = bootstrap_mean([0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert out.mean == 0.25 and (out.low, out.high) == (0.0, 1.0)
    assert out == bootstrap_mean([0.0, 0.0, 0.0, 1.0], [7, 7, 7, 3])


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng, hits = np.random.default_rng(1), 0
    for trial in range(300):
        groups = np.repeat(np.arange(40), 3)
        x = rng.normal(size=40)[groups] + rng.normal(size=120)
        interval = bootstrap_mean(x, groups, n_resamples=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / 300 <= 0.98


def test_one_question_has_a_mean_but_no_interval() -> None:
    out = bootstrap_mean([1.0, 3.0], ["q", "q"])
    assert out.mean == 2.0 and out.n == 1 and math.isnan(out.low) and math.isnan(out.high)


@pytest.mark.parametrize("values", [[], [1.0, None], [1.0, float("nan")]])
def test_no_number_without_data(values: list[float]) -> None:
    with pytest.raises(UserError, match=r"missing|no values"):
        bootstrap_mean(values)
    with pytest.raises(UserError):
        line(values, values)
    with pytest.raises(UserError):
        item_slopes([0.0, 1.0], np.array(values, dtype=float).reshape(-1, 2))


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=20))
@settings(max_examples=50, deadline=None)
def test_line_and_spearman_agree_with_scipy(points: list[tuple[int, int]]) -> None:
    x, y = (np.array(v, dtype=float) for v in zip(*points, strict=True))
    if np.ptp(x) == 0:
        with pytest.raises(UserError, match="not defined"):
            line(x, y)
        return
    mine, theirs = line(x, y), stats.linregress(x, y)
    assert mine.slope == pytest.approx(theirs.slope) and mine.at(2.0) == pytest.approx(
        theirs.intercept + 2 * theirs.slope
    )
    if np.ptp(y) == 0:
        assert math.isnan(mine.r2) and math.isnan(spearman(x, y))
    else:
        assert mine.r2 == pytest.approx(theirs.rvalue**2, abs=1e-9)
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_slope_of_the_mean_is_the_mean_of_slopes() -> None:
    coefs = np.array([-2.0, -0.5, 0.0, 1.0])
    values = RNG.normal(size=(60, 4)) + 0.7 * coefs
    slopes = item_slopes(coefs, values)
    assert slopes[3] == pytest.approx(np.polyfit(coefs, values[3], 1)[0])
    interval = slope_bootstrap(coefs, values, groups=np.arange(60) // 2)
    assert interval.mean == pytest.approx(line(coefs, values.mean(0)).slope) and interval.n == 30
    assert interval.low < 0.7 < interval.high and interval.low > 0.4
    flat = slope_bootstrap(coefs, RNG.normal(size=(60, 4)))
    assert flat.low < 0 < flat.high


def test_wilson_has_width_at_the_edges() -> None:
    for hits, n in ((0, 20), (20, 20), (7, 30)):
        theirs = stats.binomtest(hits, n).proportion_ci(method="wilson")
        mine = wilson(hits, n)
        assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
        assert mine.high > mine.low
    with pytest.raises(UserError, match="without trials"):
        wilson(0, 0)


def test_null_comparisons() -> None:
    assert z_score(3.0, [-1.0, 1.0]) == pytest.approx(3 / math.sqrt(2))
    assert math.isnan(z_score(3.0, [1.0])) and math.isnan(z_score(3.0, [1.0, 1.0]))
    assert null_p(3.0, [-1.0, 1.0, -4.0]) == 0.5 and null_p(3.0, [0.0] * 19) == 0.05
    assert null_p(1e-17, [0.0] * 19) == 1.0 and null_p(0.3, [0.1 + 0.2, 0.0, 0.0]) == 0.5


def test_the_maxima_of_nulls_correct_for_every_place() -> None:
    """By hand: s = sqrt((4 + 1 + 1) / 3) and sqrt((1 + 1 + 4) / 3), both √2; maxima of nulls 1/√2 and 2/√2."""
    null = np.array([[1.0, -1.0], [-1.0, 2.0]])
    assert max_null_p([2.0, 1.0], null).tolist() == pytest.approx([2 / 3, 1.0])
    assert max_null_p([3.0], np.array([[1.0], [-4.0], [2.0]])).tolist() == [null_p(3.0, [1.0, -4.0, 2.0])]
    with pytest.raises(UserError, match="2 places"):
        max_null_p([1.0, 2.0], np.ones((3, 1)))
    with pytest.raises(UserError, match="2 places"):
        max_null_p([1.0, 2.0], np.ones((0, 2)))


def test_corrected_p_ignores_what_a_place_is_measured_in_and_ties_are_the_nulls() -> None:
    own, null = RNG.normal(size=4), RNG.normal(size=(19, 4))
    units = np.array([1.0, 100.0, 1e-3, -7.0])
    assert max_null_p(own * units, null * units).tolist() == max_null_p(own, null).tolist()
    assert max_null_p([0.0, 1e-17], np.zeros((19, 2))).tolist() == [1.0, 1.0]
    assert max_null_p([0.5, 0.0], np.zeros((19, 2))).tolist() == [0.05, 1.0]
    same = np.array([[0.1 + 0.2, 1.0]] * 3)
    assert max_null_p([0.3, 1.0], same).tolist() == [1.0, 1.0]


def test_corrected_p_is_uniform_at_most_where_nothing_is_there_and_finds_what_bonferroni_cannot() -> None:
    n, places, level = 19, 6, 0.1
    any_below = np.mean([max_null_p(*_split(RNG.normal(size=(n + 1, places)))).min() <= level for _ in range(2000)])
    assert abs(any_below - level) < 0.025  # exact but for sampling: 2000 draws have a standard error of .007
    effect = np.zeros((n + 1, places))
    effect[0, 2] = 8.0
    found = np.array([max_null_p(*_split(RNG.normal(size=(n + 1, places)) + effect)) for _ in range(400)])
    assert (found[:, 2] == 1 / (n + 1)).mean() > 0.95 > places / (n + 1)
    assert (np.delete(found, 2, axis=1).min(1) <= level).mean() < level + 0.04  # the other places stay protected


def _split(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return table[0], table[1:]


def test_mcnemar_is_the_exact_binomial():
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0
    assert mcnemar(5, 1) == mcnemar(1, 5) == pytest.approx(14 / 64)
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)
    with pytest.raises(UserError, match="lost"):
        mcnemar(1, -1)


def test_crossed_intervals_hold_the_spread_of_seeds_and_of_problems() -> None:
    rng = np.random.default_rng(0)
    alike = rng.normal(0.0, 1.0, (1, 200)).repeat(3, axis=0)
    apart = alike + np.array([[-1.0], [0.0], [1.0]])
    one, same, other = (crossed_mean(x) for x in (alike[:1], alike, apart))
    assert same.mean == pytest.approx(one.mean) and other.mean == pytest.approx(one.mean)
    assert (same.low, same.high) == pytest.approx((one.low, one.high), abs=0.02), "equal seeds add nothing"
    assert other.high - other.low > 4 * (same.high - same.low), "seeds that differ widen it"
    assert (one.low, one.high) == pytest.approx((bootstrap_mean(alike[0]).low, bootstrap_mean(alike[0]).high))
    assert other.n == 200


def test_a_crossed_mean_of_nothing_or_with_gaps_is_refused() -> None:
    for bad in (np.zeros((0, 2)), np.array([[1.0, float("nan")]])):
        with pytest.raises(UserError, match="crossed_mean got"):
            crossed_mean(bad)


def test_crossed_ratios_are_of_sums_and_hold_the_spread_of_seeds() -> None:
    under = np.random.default_rng(0).uniform(1.0, 2.0, (1, 50)).repeat(3, axis=0)
    same, apart = crossed_ratio(3 * under, under), crossed_ratio(np.array([[1.0], [3.0], [5.0]]) * under, under)
    assert (same.mean, same.low, same.high, same.n) == pytest.approx((3.0, 3.0, 3.0, 50))
    assert apart.mean == pytest.approx(3.0) and apart.low < 2 and apart.high > 4
    one, flat = crossed_ratio(under[:1] ** 2, under[:1]), bootstrap_ratio(under[0] ** 2, under[0])
    assert (one.mean, one.low, one.high) == pytest.approx((flat.mean, flat.low, flat.high))
    with pytest.raises(UserError, match="divides by 0"):
        crossed_ratio(under, 0 * under)


def test_ratios_are_of_sums_and_paired() -> None:
    under = np.array([1.0, 2.0, 3.0, 4.0])
    found = bootstrap_ratio(2 * under, under)
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((2.0, 2.0, 2.0, 4))
    assert bootstrap_ratio([1.0, 1.0], [1.0, 3.0]).mean == pytest.approx(0.5)
    with pytest.raises(UserError, match="divides by 0"):
        bootstrap_ratio([1.0, 1.0], [1.0, 0.0])
