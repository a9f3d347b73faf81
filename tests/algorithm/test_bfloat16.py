"""In bfloat16 decoding and the full pass agree but for rare roundings, and what is no rounding is noticed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import masked, models
from gapt_jax.algorithm import ppo
from gapt_jax.algorithm.rollout import distribution, roll_out, valid_along
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.models.layers import rounded
from gapt_jax.models.networks import interleave
from gapt_jax.runtime.health import Health
from gapt_jax.tasks.accompaniment.config import Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import NOTE_ONSET

SONGS, FRAMES = 32, 32
STACK = TransformerConfig(dim=64, depth=2, heads=4, head_dim=16)
EXPERIMENT = Experiment(models=ModelsConfig(STACK, STACK, STACK, STACK, compute_dtype="bfloat16"))


@pytest.fixture(scope="module")
def played(vocabulary):
    """(networks, parameters, trajectory over all tokens) of a policy that is as sure as a trained one."""
    networks = models.build(EXPERIMENT.models, vocabulary.size)
    params = networks.policy.init(jax.random.key(0))
    params["head"] = jax.tree.map(lambda x: 4 * x, params["head"])
    melody = jax.random.randint(jax.random.key(1), (SONGS, FRAMES), NOTE_ONSET, NOTE_ONSET + 128)

    @jax.jit
    def play(params):
        key, index = jax.random.key(2), jnp.arange(SONGS)
        return roll_out(networks.policy, params, melody, index, key, Accompaniment(vocabulary), validity_mask=False)

    return networks, params, play(params)


def deviation(played, vocabulary, params=None, *, is_masked=False):
    networks, own, trajectory = played

    @jax.jit
    def log_probs(params):
        states = networks.policy.method(params, "states", interleave(trajectory.actions, trajectory.context)[:, :-1])
        valid = valid_along(Accompaniment(vocabulary), trajectory.actions) if is_masked else None
        log_p = distribution(networks.policy.method(params, "head", states), valid)
        return masked.select(log_p, trajectory.actions)

    found = log_probs(own if params is None else params)
    return {k: float(v) for k, v in ppo.ratio_deviation(found, trajectory.log_probs, trajectory.mask).items()}


def alarms(found, experiment=EXPERIMENT):
    health = Health(experiment)
    row = {f"ratio_deviation/{name}": value for name, value in found.items()}
    return {alarm.alarm for step in range(1, 7) for alarm in health.observe(step, row)}


def test_rounding_alone_is_small_and_raises_no_alarm(played, vocabulary):
    found = deviation(played, vocabulary)
    assert 0 < found["mean"] < 3e-3 and found["high"] < 0.05, found
    assert alarms(found) == set()


def test_a_stale_policy_and_a_foreign_mask_raise_it(played, vocabulary):
    _, params, _ = played
    keys = iter(jax.random.split(jax.random.key(3), len(jax.tree.leaves(params))))
    step = 1e-3  # of Adam in the direction of a sign
    moved = jax.tree.map(lambda x: x + step * jnp.sign(jax.random.normal(next(keys), x.shape)), params)
    assert alarms(deviation(played, vocabulary, moved)) == {"ratio"}
    assert alarms(deviation(played, vocabulary, is_masked=True)) == {"ratio"}


def test_the_limit_of_float32_would_stop_it(played, vocabulary):
    assert alarms(deviation(played, vocabulary), Experiment()) == {"ratio"}


def test_rounded_is_the_nearest_bfloat16_inside_a_program_too():
    x = jax.random.normal(jax.random.key(0), (1000,))
    expected = np.asarray(x).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(rounded(x, jnp.bfloat16)), expected)
    back = jax.jit(lambda x: rounded(x, jnp.bfloat16).astype(jnp.float32))(x)
    np.testing.assert_array_equal(back, expected.astype(np.float32))
    assert rounded(x, jnp.float32) is x
