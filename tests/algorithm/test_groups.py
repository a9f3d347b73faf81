"""Baselines of a group and the log-determinant of its songs, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm.groups import BASELINES, first_of_group, leave_one_out, log_determinant_gains, relative_to_group


def test_every_row_plays_the_first_melody_of_its_group():
    melody = jnp.array([[1, 1], [2, 2], [3, 3], [4, 4], [0, 0]])  # the last row only fills up
    assert first_of_group(melody, 2)[:, 0].tolist() == [1, 1, 3, 3, 0]
    assert first_of_group(melody, 1)[:, 0].tolist() == [1, 2, 3, 4, 0]


def test_grpo_standardises_each_group():
    # groups (1, 3) and (10, 10, ...) : mean 2, deviation 1; mean 5, deviation 5
    advantages = relative_to_group(jnp.array([1.0, 3.0, 10.0, 0.0]), 2)
    np.testing.assert_allclose(advantages, [-1, 1, 1, -1], rtol=2e-4)


def test_a_group_of_equal_returns_teaches_nothing():
    np.testing.assert_allclose(relative_to_group(jnp.full(6, 7.3), 3), np.zeros(6), atol=0.01)  # rounding over 1e-4
    np.testing.assert_allclose(leave_one_out(jnp.full(6, 7.3), 3), np.zeros(6), atol=1e-5)


def test_rloo_subtracts_the_mean_of_the_others():
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2
    np.testing.assert_allclose(leave_one_out(jnp.array([1.0, 2.0, 6.0]), 3), [-3.0, -1.5, 4.5])


@pytest.mark.parametrize("name", BASELINES)
def test_groups_and_rows_that_fill_up_do_not_mix(name):
    returns = jnp.array([1.0, 2.0, 6.0, -5.0, 0.5, 0.25])
    alone = BASELINES[name](returns, 3)
    np.testing.assert_array_equal(BASELINES[name](returns.at[:3].set(9.0), 3)[3:], alone[3:])
    filled = BASELINES[name](jnp.concatenate([returns, jnp.zeros(2)]), 3)
    np.testing.assert_array_equal(filled[:6], alone)
    assert np.all(np.isfinite(filled)) and len(filled) == 8
    assert float(jnp.sum(alone)) == pytest.approx(0.0, abs=1e-5)


def test_gains_by_hand():
    right_angle, equal = jnp.eye(2), jnp.ones((2, 2))
    # det [[2, 0], [0, 2]] / det [2] = 2; det [[2, 1], [1, 2]] / det [2] = 3 / 2
    np.testing.assert_allclose(log_determinant_gains(right_angle, 2), [np.log(2)] * 2, rtol=1e-5)
    np.testing.assert_allclose(log_determinant_gains(equal, 2), [np.log(1.5)] * 2, rtol=1e-5)
    # n equal songs: det (I + 11') = n + 1
    np.testing.assert_allclose(log_determinant_gains(jnp.ones((4, 3)), 4), [np.log(5 / 4)] * 4, rtol=1e-5)
    # two equal songs and one at right angles: 6 / 4 for the twins, 6 / 3 for the other; lengths do not matter
    songs = jnp.array([[1.0, 0], [5.0, 0], [0, 0.1]])
    np.testing.assert_allclose(log_determinant_gains(songs, 3), np.log([1.5, 1.5, 2]), rtol=1e-5)


def test_gains_are_those_of_leaving_a_song_out():
    songs = np.array(jax.random.normal(jax.random.key(0), (8, 5)))
    unit = songs / np.linalg.norm(songs, axis=1, keepdims=True)
    expected = []
    for group in (unit[:4], unit[4:]):
        kernel = np.eye(4) + group @ group.T
        for i in range(4):
            rest = np.delete(np.delete(kernel, i, 0), i, 1)
            expected.append(np.linalg.slogdet(kernel)[1] - np.linalg.slogdet(rest)[1])
    gains = np.asarray(log_determinant_gains(jnp.asarray(songs), 4))
    np.testing.assert_allclose(gains, expected, rtol=1e-4)
    assert np.all((gains > 0) & (gains <= np.log(2) + 1e-6))


def test_a_hundred_copies_do_not_break_the_determinant():
    gains = log_determinant_gains(jnp.ones((100, 2)) + 1e-7, 100)
    np.testing.assert_allclose(gains, np.log(101 / 100), rtol=1e-2)
