"""Seeds: intervals, exact tests and the p that cannot be reached."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gapt_jax.evaluation.diversity import vendi
from gapt_jax.evaluation.statistics import (
    estimate,
    hierarchical_bootstrap,
    holm,
    hypervolume,
    iqm,
    matched,
    matched_means,
    paired_bootstrap,
    paired_difference,
    pareto_front,
    reachable,
    sign_flip_floor,
    sign_flip_p,
    song_interval,
    two_way_interval,
    wilcoxon_p,
)

A = [5.1, 4.9, 6.2, 5.5, 5.8, 4.0, 7.1]
B = [4.7, 5.0, 5.1, 5.2, 4.4, 4.2, 5.3]  # differences 0.4, -0.1, 1.1, 0.3, 1.4, -0.2, 1.8
NAN = float("nan")


def test_estimate_is_student_t():
    values = [1.0, 2.0, 4.0, 5.0]
    mean, ci95, n = estimate(values)
    expected = stats.t.interval(0.95, 3, loc=3.0, scale=stats.sem(values))
    assert (mean, n) == (3.0, 4)
    assert ci95 == pytest.approx(expected)


def test_estimate_of_few_or_equal_values():
    assert estimate([2.0]) == (2.0, None, 1)
    assert estimate([2.0, 2.0]) == (2.0, (2.0, 2.0), 2)
    assert np.isnan(estimate([]).mean)


@pytest.mark.parametrize("n", [2, 3, 6, 9])
@pytest.mark.parametrize("shift", [0.0, 0.7, 5.0])
def test_sign_flip_p_against_brute_force(n, shift):
    differences = np.random.default_rng(n).normal(shift, 1, n)
    flipped = [np.mean(differences * signs) for signs in itertools.product((-1, 1), repeat=n)]
    expected = np.mean(np.abs(flipped) >= abs(differences.mean()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 5, 6, 8])
def test_floor_is_the_p_of_differences_of_one_sign(n):
    assert sign_flip_p(np.arange(1.0, n + 1)) == pytest.approx(sign_flip_floor(n))


def test_five_pairs_cannot_reach_five_percent():
    assert sign_flip_floor(5) == 0.0625 > 0.05 > sign_flip_floor(6)
    assert np.isnan(sign_flip_p(np.array([1.0, np.nan, 2.0])))
    assert sign_flip_floor(1) == 1.0 == sign_flip_p(np.array([3.0]))


def test_paired_difference_follows_the_seeds():
    result = paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    assert result.difference == (1.0, (1.0, 1.0), 3)
    assert result.p == result.p_floor == 0.25


def test_paired_tests_are_scipys():
    result = paired_difference(A, B)
    assert result.p_t == pytest.approx(stats.ttest_rel(A, B).pvalue)
    assert result.p_wilcoxon == pytest.approx(10 / 128)  # W- = 1 + 2; rank sets of at most 3: {} 1 2 3 12, two tails
    assert result.improvement == pytest.approx(5 / 7)


def test_effect_size_is_hedges():
    result = paired_difference([1.0, 2.0, 3.0, 6.0], [0.0, 0.0, 0.0, 0.0])  # mean 3, SD sqrt(14 / 3)
    correction = (np.sqrt(np.pi) / 2) / np.sqrt(3 / 2)  # gamma(3/2) / (sqrt(3/2) gamma(1)), 3 degrees of freedom
    assert correction == pytest.approx(0.7236, abs=1e-4)  # Hedges' table
    assert result.effect_size == pytest.approx(3 / np.sqrt(14 / 3) * correction)


def test_ties_and_zeros_survive_floating_point():
    result = paired_difference([0.3, 0.7, 0.9, 0.5], [0.1, 0.5, 0.7, 0.5])  # 0.2, 0.2, 0.2, 0 but for the last bits
    assert result.improvement == 3.5 / 4
    assert result.p_wilcoxon == 2 / 8
    assert np.isnan(paired_difference([0.3, 0.7, 0.9], [0.1, 0.5, 0.7]).p_t)


def test_paired_difference_of_equals_and_of_nan():
    same = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (same.p, same.p_wilcoxon, same.improvement) == (1.0, 1.0, 0.5)
    assert np.isnan([same.p_t, same.effect_size]).all()
    lost = paired_difference([1.0, NAN, 3.0], [1.0, 2.0, 3.0])
    assert np.isnan([lost.p, lost.p_t, lost.p_wilcoxon, lost.effect_size, lost.improvement]).all()
    assert np.isnan(paired_difference([], []).improvement)


def test_wilcoxon_with_ties_is_exact():
    differences = np.array([1.0, 1.0, 2.0, -1.0, 3.0, 3.0])
    ranks = stats.rankdata(np.abs(differences))
    sums = [np.dot(ranks, signs) for signs in itertools.product((-1, 1), repeat=6)]
    expected = np.mean(np.abs(sums) >= abs(np.dot(ranks, np.sign(differences))))
    assert wilcoxon_p(differences) == pytest.approx(expected)


def test_sign_flips_of_many_pairs_are_sampled():
    differences = np.random.default_rng(1).normal(0.0, 1, 24)
    assert sign_flip_p(differences) == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.01)
    assert sign_flip_p(differences) == sign_flip_p(differences)


def test_holm_by_hand():
    assert holm([0.01, 0.04, NAN, 0.03])[:2] == pytest.approx([0.03, 0.06])
    assert holm([0.01, 0.04, NAN, 0.03])[3] == pytest.approx(0.06)  # 2 x 0.03, and 0.04 may not be below it
    assert np.isnan(holm([0.01, NAN])[1]) and holm([0.01, NAN])[0] == 0.01
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_iqm_drops_a_quarter_at_each_end():
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0]) == 3.5
    assert iqm([1.0, 2.0, 6.0]) == 3.0
    assert np.isnan(iqm([1.0, 2.0, 3.0, 4.0, NAN])) and np.isnan(iqm([]))


@pytest.mark.parametrize("n", [3, 5, 6, 9])
def test_reachable_is_what_the_tests_reach(n):
    best = paired_difference(np.arange(1.0, n + 1).tolist(), [0.0] * n)
    assert reachable(n)[:2] == pytest.approx((best.p, best.p_wilcoxon))


def test_reachable_says_so_below_six():
    assert reachable(5).sentence == "with 5 pairs an exact paired test cannot go below p = 0.0625"
    assert reachable(6).sentence is None


# (SD of seeds, of songs shared by all seeds, of songs within a seed)
@pytest.mark.parametrize("deviations", [(1, 0, 1), (1, 0, 7), (1, 7, 1), (1, 3, 7)])
def test_coverage_of_the_interval(deviations):
    rng = np.random.default_rng(0)
    simulations, seeds, songs, resamples = 2000, 6, 50, 300
    shapes = [(simulations, seeds, 1), (simulations, 1, songs), (simulations, seeds, songs)]
    y = sum(deviation * rng.normal(size=shape) for deviation, shape in zip(deviations, shapes, strict=True))
    counts = rng.multinomial(songs, np.full(songs, 1 / songs), size=resamples) / songs
    low, high = two_way_interval(y.mean(-1), np.moveaxis(y @ counts.T, -1, -2), songs)
    coverage = np.mean((low <= 0) & (high >= 0))
    three_errors = 3 * np.sqrt(0.95 * 0.05 / simulations)
    assert 0.93 < coverage < 0.97 and abs(coverage - 0.95) < three_errors, coverage


def test_bootstrap_of_means_is_the_two_way_variance():
    rng = np.random.default_rng(3)
    y = rng.normal(size=(6, 1)) + rng.normal(0, 3, size=(1, 40)) + rng.normal(size=(6, 40))
    low, high = hierarchical_bootstrap([(row,) for row in y], np.mean, resamples=4000)
    means, covariance = y.mean(1), np.cov(y) / 40
    of_seeds, of_songs = means.var(ddof=1) / 6, (covariance.sum() - np.trace(covariance)) / 30
    freedom = (of_seeds + of_songs) ** 2 / (of_seeds**2 / 5 + of_songs**2 / 39)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(of_seeds + of_songs)
    assert (low + high) / 2 == pytest.approx(means.mean())
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def test_bootstrap_without_song_noise_is_student_t():
    values = [1.0, 2.0, 4.0, 5.0]
    interval = hierarchical_bootstrap([(np.full(10, value),) for value in values], np.mean, 20)
    assert interval == pytest.approx(estimate(values).ci95)
    assert hierarchical_bootstrap([(np.ones(10),)] * 3, np.mean, 20) == (1.0, 1.0)


def test_song_interval_of_a_mean_is_student_t():
    songs = np.random.default_rng(4).normal(3, 2, 60)
    low, high = song_interval([songs], np.mean, resamples=4000)
    assert (low + high) / 2 == pytest.approx(songs.mean())
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 59) * stats.sem(songs), rel=0.05)
    assert song_interval([songs[:1]], np.mean) is None and song_interval([], np.mean) is None
    assert song_interval([songs], lambda x: NAN if songs[0] in x else 1.0) is None, "not defined for all songs"


def test_bootstrap_holds_the_statistic_that_repeated_songs_lower():
    rng = np.random.default_rng(0)
    by_seed = [(rng.normal(size=(30, 8)),) for _ in range(4)]
    low, high = hierarchical_bootstrap(by_seed, vendi, 50)
    assert (low + high) / 2 == pytest.approx(np.mean([vendi(x) for (x,) in by_seed]))
    assert hierarchical_bootstrap(by_seed, vendi, 50) == (low, high)


def test_paired_bootstrap_cancels_what_both_arms_share():
    rng = np.random.default_rng(5)
    songs = rng.normal(0, 10, 30)
    a = [(songs + seed + 1.0 + 0.1 * rng.normal(size=30),) for seed in range(4)]
    b = [(songs + seed,) for seed in range(4)]
    low, high = paired_bootstrap(a, b, np.mean, 200)
    assert 0.8 < low < 1.0 < high < 1.2
    with pytest.raises(ValueError):
        paired_bootstrap(a, b[:3], np.mean, 10)


def test_bootstrap_needs_two_seeds_and_the_same_songs():
    assert hierarchical_bootstrap([(np.ones(9),)], np.mean) is None
    assert hierarchical_bootstrap([(np.ones(1),)] * 3, np.mean) is None
    with pytest.raises(ValueError, match="different numbers of songs"):
        hierarchical_bootstrap([(np.ones(9),), (np.ones(8),)], np.mean)


def test_pareto_front_and_hypervolume_by_hand():
    points = np.array([[1, 3], [2, 2], [3, 1], [1, 1], [2, 2], [NAN, 9], [3, 0.5]])
    assert pareto_front(points).tolist() == [True, True, True, False, True, False, False]
    assert hypervolume(points, (0, 0)) == 3 + 2 + 1
    assert hypervolume(points, (1, 0)) == 2 + 1  # the first point is not above the reference
    assert hypervolume(points, (5, 5)) == 0.0 == hypervolume(np.zeros((0, 2)), (0, 0))


def test_matched_is_the_best_that_is_at_least_as_harmonious():
    curve = np.array([[0.3, 7.0], [0.5, 4.0], [0.4, 5.0], [0.35, 2.0]])
    np.testing.assert_array_equal(matched(curve, np.array([0.3, 0.31, 0.45, 0.6])), [7, 5, 4, NAN])


def test_matched_means_by_hand():
    a = np.array([[0.2, 8.0], [0.4, 6.0], [0.6, 3.0]])
    b = np.array([[0.3, 7.0], [0.5, 2.0]])
    # Both reach 0.3 to 0.5. a: 6 up to 0.4, then 3. b: 2 all along.
    assert matched_means(a, b) == pytest.approx((4.5, 2.0))
    assert matched_means(b, a) == pytest.approx((2.0, 4.5))
    assert matched_means(a, np.array([[0.6, 9.0]])) == (3.0, 9.0)
    assert np.isnan(matched_means(a, np.array([[0.7, 9.0], [0.8, 1.0]]))).all()
    assert np.isnan(matched_means(a, np.array([[NAN, 1.0]]))).all()
