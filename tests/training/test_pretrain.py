"""Fitting: members, resumption, validation (docs/method.md §3)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import masked, models
from gapt_jax.algorithm import supervised
from gapt_jax.config import FitConfig, ModelsConfig, OptimizerConfig, RuntimeConfig, TransformerConfig
from gapt_jax.runtime.checkpoint import checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import pretrain
from tests.algorithm.losses import FRAMES, KEY, VOCABULARY, songs

REWARDS = Accompaniment(VOCABULARY).reward_models
RHYTHM = "rhythm_discriminative"


def tiny(dropout: float = 0.1) -> models.Models:
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2, dropout=dropout)
    return models.build(ModelsConfig(stack, stack, stack, stack), VOCABULARY.size, REWARDS)


NETWORKS = tiny()
FAST = FitConfig(steps=40, batch_size=4, optimizer=OptimizerConfig(learning_rate=1e-2))
POLICY = pretrain.Fit(supervised.policy_loss(NETWORKS), FAST)


def fit(stage, state, numbers):
    losses = []
    for number in numbers:
        state, metrics = pretrain.fit_step(stage, state, songs(stage.rows, seed=number))
        losses.append(float(metrics["loss"]))
    return state, losses


def assert_same(a, b):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def test_a_few_steps_lower_the_loss():
    state = pretrain.init_fit(POLICY, NETWORKS.policy.init, 0)
    before = float(pretrain.validate(POLICY, state.params, songs(4))["valid/loss"])
    state, losses = fit(POLICY, state, [0] * 40)
    after = float(pretrain.validate(POLICY, state.params, songs(4))["valid/loss"])
    assert before == pytest.approx(np.log(VOCABULARY.size), abs=1.0)
    assert after < 0.6 * before and losses[-1] < 0.7 * losses[0]
    assert int(state.step) == int(state.optimizer.updates) == 40


def test_a_resumed_fit_is_bit_equal(tmp_path):
    fresh = lambda seed=3: pretrain.init_fit(POLICY, NETWORKS.policy.init, seed)  # noqa: E731
    whole, whole_losses = fit(POLICY, fresh(), range(6))
    state, first = fit(POLICY, fresh(), range(3))
    with checkpoints(tmp_path, RuntimeConfig(keep_checkpoints=1), Console()) as saved:
        saved.save(3, state, {})
        fit(POLICY, state, [3])  # donates what is being saved
    with checkpoints(tmp_path, RuntimeConfig(keep_checkpoints=1), Console()) as saved:
        _, restored = saved.restore(fresh(seed=4), {})
    resumed, rest = fit(POLICY, restored, range(3, 6))
    assert first + rest == whole_losses
    assert_same(whole, resumed)


def noisy_regression(params, batch, key, dropout_keys):
    """A loss that compiles fast and uses all that a stage gives it: songs, draws and dropout."""
    noise = jax.random.normal(key, batch.index.shape) + jax.vmap(jax.random.bernoulli)(dropout_keys)
    error = batch.context / 100 @ params["weights"] - noise
    every = jnp.ones_like(error)
    return masked.ratio(jnp.square(error), every), {"accuracy": masked.ratio((error > 0).astype(jnp.float32), every)}


def initial_weights(key):
    return {"weights": jax.random.normal(key, (FRAMES,))}


MEMBERS = {n: pretrain.Fit(noisy_regression, FAST, n) for n in (1, 2)}


def test_members_differ_and_do_not_disturb_each_other():
    """Member 0 of two is the only member of one, if it sees the same songs."""
    two, one = (pretrain.init_fit(MEMBERS[n], initial_weights, 0) for n in (2, 1))
    assert_same(jax.tree.map(lambda x: x[:1], two.params), one.params)
    assert MEMBERS[2].rows == 8
    for number in range(3):
        rows = songs(8, seed=number)
        two, _ = pretrain.fit_step(MEMBERS[2], two, rows)
        one, _ = pretrain.fit_step(MEMBERS[1], one, jax.tree.map(lambda x: x[:4], rows))
    both = np.asarray(two.params["weights"])
    np.testing.assert_allclose(both[:1], one.params["weights"], atol=1e-6)
    assert np.all(both[0] != both[1])
    assert two.optimizer.updates.tolist() == [3, 3] and int(two.step) == 3


def test_members_draw_different_negatives_and_dropout():
    """Two members with equal weights and equal songs part at the first step."""
    state = pretrain.init_fit(MEMBERS[2], initial_weights, 0)
    equal = {"weights": jnp.broadcast_to(state.params["weights"][0], (2, FRAMES)) + 0.0}
    rows = jax.tree.map(lambda x: np.concatenate([x[:4], x[:4]]), songs(8))
    state, _ = pretrain.fit_step(MEMBERS[2], dataclasses.replace(state, params=equal), rows)
    moments = jax.tree.leaves(state.optimizer.moments)
    assert any(np.any(np.asarray(x)[0] != np.asarray(x)[1]) for x in moments)


def test_a_member_that_fails_does_not_stop_the_other():
    state = pretrain.init_fit(MEMBERS[2], initial_weights, 0)
    before = {"weights": state.params["weights"].at[1].set(jnp.nan)}
    state, metrics = pretrain.fit_step(
        MEMBERS[2], dataclasses.replace(state, params=jax.tree.map(jnp.copy, before)), songs(8)
    )
    assert float(metrics["skipped"]) == 0.5
    assert state.optimizer.updates.tolist() == [1, 0]
    after = np.asarray(state.params["weights"])
    assert np.all(np.isfinite(after[0])) and np.all(after[0] != before["weights"][0]) and np.all(np.isnan(after[1]))


def test_validation_draws_the_same_negatives_and_no_dropout():
    stage = pretrain.Fit(REWARDS[RHYTHM].loss(NETWORKS.rewards[RHYTHM]), FAST)
    params = NETWORKS.rewards[RHYTHM].init(KEY)
    first, second = (pretrain.validate(stage, params, songs(8)) for _ in range(2))
    assert first == second and set(first) == {"valid/loss", "valid/accuracy"}
