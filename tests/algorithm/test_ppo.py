"""Losses of policy and critic by hand (docs/method.md §5.5, §6.3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gapt_jax.algorithm import ppo
from gapt_jax.algorithm.rollout import distribution


def log(*probabilities):
    return jnp.log(jnp.array(probabilities, jnp.float32))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.5, 1, -1.2), (0.5, 1, -0.5), (1.5, -1, 1.5), (0.5, -1, 0.8), (1.1, 2, -2.2), (0.9, -2, 1.8), (1, 3, -3)],
)
def test_clipped_surrogate(ratio, advantage, loss):
    """-min(rho A, clip(rho, .8, 1.2) A): a good action gains nothing beyond 1.2, a bad one nothing below .8."""
    one = jnp.ones((1, 1))
    loss_of = lambda new: ppo.clipped_surrogate(new, -one, advantage * one, one, 0.2).value()  # noqa: E731
    value, gradient = jax.value_and_grad(loss_of)(jnp.log(ratio) - one)
    assert float(value) == pytest.approx(loss, rel=1e-6)
    clipped = loss not in (-ratio * advantage,)
    assert float(gradient[0, 0]) == pytest.approx(0.0 if clipped else -ratio * advantage, rel=1e-6)


def test_losses_average_over_actions_then_over_songs():
    # Song 1 has one action with loss -1; song 2 three with losses -3, -5, -7: (1 + 5) / 2 = 3, not (1 + 15) / 4 = 4
    mask = jnp.array([[1.0, 0, 0], [1, 1, 1]])
    advantages = jnp.array([[1.0, 100, 100], [3, 5, 7]])
    zero = jnp.zeros((2, 3))
    assert float(ppo.clipped_surrogate(zero, zero, advantages, mask, 0.2).value()) == -3.0
    # squared errors 4 and (1, 9, 2) -> half of (4 + 4) / 2
    values = jnp.array([[2.0, 9, 9], [1, 3, jnp.sqrt(2.0)]])
    assert float(ppo.value_loss(values, zero, mask).value()) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("junk", [3.0, np.nan, np.inf])
def test_padding_changes_neither_surrogate_nor_its_gradient(junk):
    mask = jnp.array([[1.0, 1.0, 0.0]])
    new, old, advantages = jnp.array([[-1.0, -2.0, junk]]), jnp.array([[-1.1, -1.9, junk]]), jnp.array([[1, -2, junk]])
    loss = lambda n, o, a, m: ppo.clipped_surrogate(n, o, a, m, 0.2).value()  # noqa: E731
    value, gradient = jax.value_and_grad(loss)(new, old, advantages, mask)
    short, short_gradient = jax.value_and_grad(loss)(new[:, :2], old[:, :2], advantages[:, :2], mask[:, :2])
    assert value == short
    np.testing.assert_array_equal(gradient, np.append(short_gradient, [[0.0]], axis=1))
    assert np.all(short_gradient != 0)


@pytest.mark.parametrize("junk", [3.0, np.nan])
def test_padding_changes_neither_value_loss_nor_its_gradient(junk):
    mask, values, returns = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[1.0, 2.0, junk]]), jnp.array([[0.5, 4.0, junk]])
    value, gradient = jax.value_and_grad(lambda v: ppo.value_loss(v, returns, mask).value())(values)
    assert float(value) == 0.5 * (0.25 + 4) / 2
    np.testing.assert_array_equal(gradient, [[0.25, -1.0, 0.0]])  # (v - G) / 2 actions


def test_kl_by_hand():
    # .5 log(.5 / .25) + .5 log(.5 / .75) = .5 log(4 / 3); the other way round .25 log .5 + .75 log 1.5
    p, q = log(0.5, 0.5), log(0.25, 0.75)
    assert float(ppo.kl_divergence(p, q)) == pytest.approx(0.5 * np.log(4 / 3), rel=1e-5)
    assert float(ppo.kl_divergence(q, p)) == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5), rel=1e-5)
    assert float(ppo.kl_divergence(p, p)) == 0.0
    # a token that p cannot play counts nothing, even where q is 0 as well
    assert float(ppo.kl_divergence(log(0, 0.5, 0.5), log(0, 0.25, 0.75))) == pytest.approx(
        0.5 * np.log(4 / 3), rel=1e-5
    )


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, (2, 3, 5), elements=st.floats(-30, 30, width=32)))
def test_kl_is_never_negative(logits):
    log_p, log_q = jax.nn.log_softmax(jnp.asarray(logits))
    assert np.all(ppo.kl_divergence(log_p, log_q) >= -1e-5)
    np.testing.assert_array_equal(ppo.kl_divergence(log_p, log_p), 0.0)


def test_entropy_by_hand():
    assert float(ppo.entropy(log(*[0.2] * 5))) == pytest.approx(np.log(5), rel=1e-6)
    assert float(ppo.entropy(log(0.0, 1.0))) == 0.0
    assert float(ppo.entropy(log(0.25, 0.75))) == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75), rel=1e-5)


def test_masked_tokens_leave_every_gradient_finite():
    valid, logits = jnp.array([True, False, True]), jnp.array([0.3, 50.0, -0.2])

    def loss(x):
        log_p = distribution(x, valid)
        return ppo.entropy(log_p) + ppo.kl_divergence(log_p, distribution(2 * x, valid)) + log_p[0]

    gradient = jax.grad(loss)(logits)
    assert np.all(np.isfinite(gradient))
    assert gradient[1] == 0 and gradient[0] != 0
    np.testing.assert_allclose(
        jnp.exp(distribution(logits, valid)), [1 / (1 + np.exp(-0.5)), 0, 1 / (1 + np.exp(0.5))], rtol=1e-6
    )


def test_ratio_deviation():
    new, old, mask = (
        jnp.log(jnp.array([[0.5, 0.3, np.nan]])),
        jnp.log(jnp.array([[0.5, 0.25, 1.0]])),
        jnp.array([[1.0, 1, 0]]),
    )
    found = ppo.ratio_deviation(new, old, mask)
    assert {name: float(x) for name, x in found.items()} == pytest.approx(
        {"mean": 0.1, "high": 0.2, "largest": 0.2},
        rel=1e-5,  # .3 / .25 - 1
    )
    assert all(float(x) == 0.0 for x in ppo.ratio_deviation(old, old, mask).values())


@pytest.mark.parametrize(("hidden", "high"), [(0, 1.0), (1000, 2.0)])
def test_ratio_deviation_is_high_where_one_action_of_1000_exceeds_it(hidden, high):
    """4,000 actions deviate by 1e-4 but for four, by 1, 2, 3 and 4; hidden ones do not count, whatever they hold."""
    new = jnp.full((4000 + 1000,), jnp.log1p(1e-4)).at[:4].set(jnp.log1p(jnp.arange(1.0, 5)))
    mask = jnp.arange(5000) < 4000
    new = jnp.where(mask, new, jnp.nan).reshape(50, 100)
    mask = jnp.where(jnp.arange(5000) < 4000 - hidden, 1.0, 0.0).reshape(50, 100)
    found = ppo.ratio_deviation(new, jnp.zeros_like(new), mask)
    assert float(found["largest"]) == pytest.approx(4, rel=1e-5)
    assert float(found["high"]) == pytest.approx(high, rel=1e-5)
