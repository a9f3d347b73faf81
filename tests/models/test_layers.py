"""Blocks of docs/method.md §2.1 against hand-worked numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.models.layers import dropout, l2_normalise, relative_bucket, rms_norm, rotate

# Read off x-transformers 2.11.23 (docs/method.md §2.1 has the formula): distance (query - key) -> bucket.
CAUSAL = {**{d: d for d in range(16)}, 16: 16, 17: 16, 20: 17, 24: 19, 32: 21, 48: 24, 64: 26, 96: 29, 112: 30,
          127: 31, 128: 31, 255: 31, -1: 0, -100: 0}  # fmt: skip
BIDIRECTIONAL = {**{d: d for d in range(8)}, 8: 8, 16: 10, 64: 14, 128: 15, 500: 15, -1: 17, -7: 23, -8: 24, -16: 26,
                 -64: 30, -128: 31, -500: 31}  # fmt: skip


def exact_bucket(distance: int, causal: bool) -> int:
    """The same formula in integers: the logarithm is never rounded.

    exact + k is reached where log(d / exact) / log(128 / exact) * exact >= k,
    i.e. d^exact >= exact^exact (128 / exact)^k.
    """
    exact = 16 if causal else 8
    offset = 0 if causal or distance >= 0 else 16
    d = max(distance, 0) if causal else abs(distance)
    if d < exact:
        return offset + d
    k = max(k for k in range(2 * exact) if d**exact >= exact**exact * (128 // exact) ** k)
    return offset + min(exact + k, 2 * exact - 1)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("causal", "table"), [(True, CAUSAL), (False, BIDIRECTIONAL)])
def test_relative_buckets_are_those_of_the_reference(causal, table, compiled):
    def buckets(d):
        return relative_bucket(d, causal=causal)

    buckets = jax.jit(buckets) if compiled else buckets
    assert buckets(jnp.array(list(table))).tolist() == list(table.values())
    every = list(range(-600, 601))
    assert buckets(jnp.array(every)).tolist() == [exact_bucket(d, causal) for d in every]


def test_rotation_by_hand():
    # head width 8: the first 4 dims turn as pairs (0, 1), (2, 3); inverse frequencies 10000^0 = 1 and 10000^-0.5 = 0.01
    x = np.arange(1.0, 9.0, dtype=np.float32)[None]
    turned = np.asarray(rotate(jnp.asarray(x), jnp.array([3])))[0]
    a, b = 3.0, 0.03
    expected = [
        np.cos(a) - 2 * np.sin(a),
        2 * np.cos(a) + np.sin(a),
        3 * np.cos(b) - 4 * np.sin(b),
        4 * np.cos(b) + 3 * np.sin(b),
        *(5, 6, 7, 8),
    ]
    np.testing.assert_allclose(turned, expected, rtol=1e-6)


def test_published_head_turns_32_of_64_dims_with_16_frequencies():
    x = jnp.zeros((1, 64)).at[0, 30].set(1.0).at[0, 32:].set(7.0)
    turned = np.asarray(rotate(x, jnp.array([100])))[0]
    angle = 100 * 10000 ** (-15 / 16)  # pair i = 15
    np.testing.assert_allclose(turned[30:32], [np.cos(angle), np.sin(angle)], atol=1e-6)
    np.testing.assert_array_equal(turned[32:], 7.0)


def test_rotated_scores_depend_on_the_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 64))
    score = [float(jnp.sum(rotate(q, jnp.array([p + 5])) * rotate(k, jnp.array([p])))) for p in (0, 1, 40)]
    np.testing.assert_allclose(score, score[0], rtol=1e-4)
    assert abs(float(jnp.sum(rotate(q, jnp.array([6])) * rotate(k, jnp.array([0])))) - score[0]) > 1e-3


def test_norms_by_hand():
    x = jnp.array([3.0, 4.0])  # length 5
    np.testing.assert_allclose(l2_normalise(x), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(rms_norm(x), np.sqrt(2) * np.array([0.6, 0.8]), rtol=1e-6)
    np.testing.assert_array_equal(l2_normalise(jnp.zeros(4)), 0.0)
    np.testing.assert_array_equal(rms_norm(jnp.zeros(4)), 0.0)


def test_l2_normalise_has_a_finite_gradient_at_zero():
    assert jnp.all(jnp.isfinite(jax.grad(lambda x: jnp.sum(l2_normalise(x)))(jnp.zeros(4))))


def test_dropout_keeps_the_mean_and_zeroes_the_stated_share():
    x = jnp.ones(20_000)
    out = np.asarray(dropout(x, 0.1, jax.random.split(jax.random.key(0), len(x))))
    # share of zeros: 0.1, standard deviation sqrt(.1 * .9 / 20000) = 0.0021; 4 of them
    assert abs(np.mean(out == 0) - 0.1) < 4 * 0.0021
    np.testing.assert_allclose(out[out != 0], 1 / 0.9, rtol=1e-6)
    assert dropout(x, 0.1, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
