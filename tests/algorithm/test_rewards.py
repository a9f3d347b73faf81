"""Placement and combination of the reward terms."""

import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import rewards


def test_terminal_rewards_sit_on_the_last_real_frame():
    mask = jnp.array([[1.0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    placed = rewards.at_last(jnp.array([7.0, 8.0, 9.0, 5.0]), mask)
    np.testing.assert_array_equal(placed, [[0, 0, 7], [8, 0, 0], [0, 9, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("ensemble", "expected"),
    [("sum", [4, 0]), ("mean", [2, 0]), ("min", [1, -2]), ("mean_minus_std", [1, -2])],
)
def test_combining_members(ensemble, expected):
    scores = jnp.array([[1.0, 2.0], [3.0, -2.0]])  # two members, two songs; deviations 1 and 2
    np.testing.assert_allclose(rewards.combine(scores, ensemble), expected, atol=1e-6)


def test_how_much_disagreement_costs_is_a_setting():
    scores = jnp.array([[1.0, 2.0], [3.0, -2.0]])  # means 2 and 0, deviations 1 and 2
    np.testing.assert_allclose(rewards.combine(scores, "mean_minus_std", jnp.float32(0.5)), [1.5, -1.0], atol=1e-6)
    np.testing.assert_allclose(rewards.combine(scores, "mean_minus_std", 0.0), [2.0, 0.0], atol=1e-6)


def test_spread_is_that_of_songs():
    values, is_song = jnp.array([1.0, 5.0, 99.0]), jnp.array([1.0, 1.0, 0.0])
    assert float(rewards.spread(values, is_song)) == pytest.approx(2.0)


def test_total_is_the_weighted_sum():
    terms = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[10.0, 20.0]])}
    total = rewards.weighted_sum({"a": jnp.float32(0.5), "b": jnp.float32(-1)}, terms)
    np.testing.assert_array_equal(total, [[-9.5, -19.0]])
    np.testing.assert_array_equal(rewards.weighted(jnp.float32(0), jnp.array([jnp.nan, 1.0])), [0, 0])


def test_a_normalised_term_pays_each_song_its_distance_from_the_mean_in_deviations():
    mask = jnp.array([[1.0, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 0]])
    term = jnp.array([[-1.0, 0, 3], [0, 0, 0], [-2, 0, 6], [0, 0, jnp.nan]])  # sums 2, 0, 4; the last is no song
    found = rewards.normalised(term, mask)
    np.testing.assert_allclose(found[:3].sum(axis=1), np.array([0, -2, 2]) / np.sqrt(8 / 3), atol=1e-3)
    np.testing.assert_allclose(found[2], np.array([-2, 0, 4]) / np.sqrt(8 / 3), atol=1e-3)  # the mean is 2
    np.testing.assert_allclose(
        rewards.normalised(jnp.full((3, 3), 5.0), mask[:1].repeat(3, 0)).sum(axis=1), 0, atol=1e-3
    )


def test_seeds_of_other_scales_count_alike_once_they_are_standardised():
    scores, is_song = jnp.array([1.0, 2.0, 3.0, 99.0]), jnp.array([1.0, 1.0, 1.0, 0.0])
    expected = np.array([-1, 0, 1]) / np.sqrt(2 / 3)
    for scale in (1.0, 50.0):
        np.testing.assert_allclose(rewards.standardised(scale * scores, is_song)[:3], expected, atol=1e-3)
    np.testing.assert_allclose(rewards.combine(jnp.array([[1.0, 4.0], [3.0, 0.0]]), "normalised_mean"), [2, 2])
