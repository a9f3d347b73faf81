"""Seeds: intervals, exact tests and the p that cannot be reached."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gapt_jax.evaluation.statistics import estimate, paired_difference, sign_flip_floor, sign_flip_p


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
