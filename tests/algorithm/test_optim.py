"""Schedule, Adam and the guard against non-finite gradients (docs/method.md §6.4)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gapt_jax.algorithm import optim
from gapt_jax.config import OptimizerConfig
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
PLAIN = OptimizerConfig(clip_norm=1e9)


@pytest.mark.parametrize(
    ("update", "rate"),
    [
        (0, 6.25e-9),  # 5e-6 / 800
        (799, 5e-6),
        (800, 5e-6),
        (4400, 2.75e-6),  # half-way: (.1 + .9 / 2) of the peak
        (8000, 5e-7),
        (9000, 5e-7),  # stays there
    ],
)
def test_published_learning_rates(update, rate):
    config = AlgorithmConfig().policy
    assert (config.learning_rate, AlgorithmConfig().critic.learning_rate) == (5e-6, 9e-5)
    multiplier = optim.schedule(config, jnp.int32(update), 8000)
    assert float(config.learning_rate * multiplier) == pytest.approx(rate, rel=1e-6)


def test_constant_rate_of_the_supervised_stages():
    rates = [float(optim.schedule(OptimizerConfig(), jnp.int32(n), 100)) for n in (0, 50, 100)]
    assert rates == [1.0, 1.0, 1.0]


def test_first_step_of_adam_by_hand():
    # after bias correction the first direction is g / (|g| + 1e-8) = the sign of g
    gradients = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(12.0)}
    params, state, info = optim.update(PLAIN, PARAMS, gradients, optim.init(PLAIN, PARAMS), jnp.float32(0.1))
    np.testing.assert_allclose(params["a"], [0.9, -1.9], rtol=1e-6)
    assert float(params["b"]) == pytest.approx(0.4, abs=2e-6)  # 1 - .999 in float32
    assert float(info["gradient_norm"]) == 13.0  # 3, 4, 12
    assert float(info["skipped"]) == 0 and int(state.updates) == 1


def test_several_steps_are_those_of_optax_adam_with_clipping():
    config = OptimizerConfig(b1=0.9, b2=0.95, clip_norm=1.0)
    theirs = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01, 0.9, 0.95))
    ours, state = PARAMS, optim.init(config, PARAMS)
    other, other_state = PARAMS, theirs.init(PARAMS)
    for n in range(5):
        gradients = jax.tree.map(lambda x, n=n: jnp.sin(x * 3 + n) * (n + 1), PARAMS)
        ours, state, _ = optim.update(config, ours, gradients, state, jnp.float32(0.01))
        updates, other_state = theirs.update(gradients, other_state)
        other = optax.apply_updates(other, updates)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_gradient_changes_nothing(bad):
    gradients = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)}
    step = jax.jit(lambda p, g, s: optim.update(PLAIN, p, g, s, jnp.float32(0.1)))
    params, state, _ = step(PARAMS, gradients, optim.init(PLAIN, PARAMS))
    poisoned = gradients | {"a": jnp.array([1.0, bad])}
    kept, kept_state, info = step(params, poisoned, state)
    for new, old in zip(jax.tree.leaves((kept, kept_state)), jax.tree.leaves((params, state)), strict=True):
        np.testing.assert_array_equal(new, old)
    assert float(info["skipped"]) == 1.0 and not np.isfinite(info["gradient_norm"])
    after, after_state, info = step(kept, gradients, kept_state)  # and training goes on
    assert float(info["skipped"]) == 0 and int(after_state.updates) == 2
    assert np.all(after["a"] != params["a"])
