"""Advantages, returns and whitening by hand (docs/method.md §6.1, §6.2)."""

import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import masked
from gapt_jax.algorithm.returns import generalized_advantage_estimation as gae

REWARDS, VALUES, REAL = (jnp.array([x], jnp.float32) for x in ([0, 0, 1], [0.5, 0.25, 0.5], [1, 1, 1]))


def test_golden_numbers():
    # deltas: .25 - .5 = -.25, .5 - .25 = .25, 1 - .5 = .5; A3 = .5, A2 = .25 + .5 * .5 = .5, A1 = -.25 + .5 * .5 = 0
    advantages, returns = gae(REWARDS, VALUES, REAL, discount=1.0, gae_lambda=0.5)
    np.testing.assert_array_equal(advantages, [[0, 0.5, 0.5]])
    np.testing.assert_array_equal(returns, [[0.5, 0.75, 1.0]])  # A + v


def test_discount():
    # discount .5, lambda .5: deltas .125 - .5 = -.375, .25 - .25 = 0, .5; A2 = .25 * .5 = .125, A1 = -.375 + .25 * .125
    advantages, _ = gae(REWARDS, VALUES, REAL, discount=0.5, gae_lambda=0.5)
    np.testing.assert_array_equal(advantages, [[-0.34375, 0.125, 0.5]])


def test_lambda_1_is_monte_carlo():
    rewards = jnp.array([[1.0, -2.0, 4.0]])
    advantages, returns = gae(rewards, VALUES, REAL, discount=1.0, gae_lambda=1.0)
    np.testing.assert_array_equal(returns, [[3, 2, 4]])  # rewards to go, whatever the values
    np.testing.assert_array_equal(advantages, [[2.5, 1.75, 3.5]])


def test_lambda_0_is_one_step_temporal_difference():
    advantages, _ = gae(REWARDS, VALUES, REAL, discount=1.0, gae_lambda=0.0)
    np.testing.assert_array_equal(advantages, [[-0.25, 0.25, 0.5]])


@pytest.mark.parametrize("junk", [7.0, np.nan, np.inf])
def test_what_follows_the_end_changes_nothing(junk):
    pad = lambda x, y: jnp.concatenate([x, jnp.full((1, 2), y, jnp.float32)], axis=1)  # noqa: E731
    plain = gae(REWARDS, VALUES, REAL, discount=1.0, gae_lambda=0.95)
    padded = gae(pad(REWARDS, junk), pad(VALUES, junk), pad(REAL, 0.0), discount=1.0, gae_lambda=0.95)
    for short, long in zip(plain, padded, strict=True):
        np.testing.assert_array_equal(long[:, :3], short)
        np.testing.assert_array_equal(long[:, 3:], 0.0)


def test_integer_rewards_are_refused():
    with pytest.raises(AssertionError):
        gae(jnp.zeros((1, 3), jnp.int32), VALUES, REAL, discount=1.0, gae_lambda=0.95)


def test_whitening_by_hand():
    # valid entries 1, 3, 8: mean 4, variance (9 + 1 + 16) / 3; what is masked may be anything and becomes 0
    values, mask = jnp.array([[1.0, np.nan, 3.0], [8.0, np.inf, -50.0]]), jnp.array([[1.0, 0, 1], [1, 0, 0]])
    expected = np.array([[-3, 0, -1], [4, 0, 0]]) / np.sqrt(26 / 3)
    np.testing.assert_allclose(masked.whiten(values, mask), expected, rtol=1e-6)
    # equal values: the variance is floored at 1e-8, nothing is divided by 0
    np.testing.assert_array_equal(masked.whiten(jnp.full((1, 3), 2.0), jnp.ones((1, 3))), 0.0)
    # below the floor: +-1e-6 have variance 1e-12 < 1e-8, so they are divided by 1e-4
    np.testing.assert_allclose(masked.whiten(jnp.array([1e-6, -1e-6]), jnp.ones(2)), [1e-2, -1e-2], rtol=1e-5)


def test_masked_means_by_hand():
    values, mask = jnp.array([[1.0, np.nan], [3.0, 5.0], [7.0, 7.0]]), jnp.array([[1.0, 0], [1, 1], [0, 0]])
    assert float(masked.mean(values, mask)) == 3.0  # (1 + 3 + 5) / 3
    by_row = masked.ratio_of_rows(values, mask)
    assert (float(by_row.total), float(by_row.number)) == (5.0, 2.0)  # 1 + 4; the last row has no entry
    assert float(masked.mean(values, jnp.zeros((3, 2)))) == 0.0
    parts = [masked.ratio(v, m) for v, m in zip(values, mask, strict=True)]
    assert float((parts[0] + parts[1] + parts[2]).value()) == 3.0  # ragged micro-batches combine exactly


def test_select_takes_the_entry():
    values = jnp.arange(12.0).reshape(2, 2, 3)
    np.testing.assert_array_equal(masked.select(values, jnp.array([[0, 2], [1, 1]])), [[0, 5], [7, 10]])
    hidden = jnp.array([[-1e30, 2.0]])  # a masked log-probability beside it leaves it exact
    assert masked.select(hidden, jnp.array([1])).tolist() == [2.0]
