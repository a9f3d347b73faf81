"""Fitting of a supervised stage (docs/method.md §3): policy, anchor, or all seeds of a reward model together."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gapt_jax import prng
from gapt_jax.algorithm import gradients, optim
from gapt_jax.algorithm.layout import ONE_DEVICE, Layout
from gapt_jax.algorithm.optim import OptimizerState
from gapt_jax.algorithm.supervised import Loss, Ratios
from gapt_jax.config import FitConfig
from gapt_jax.types import Batch, Metrics, Params, pytree


@pytree
class FitState:
    """A supervised stage in progress; with members, every leaf but `step` and `key` has a leading member axis."""

    step: jax.Array  # [] int32
    key: jax.Array  # [2] uint32 raw PRNG key
    params: Params
    optimizer: OptimizerState


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A stage: its loss, its settings and how many seeds train together (None: one, without a member axis).

    Members contrast the songs of a batch with each other, so that their loss needs the whole batch; without a member
    axis the loss is a mean over rows.
    """

    loss: Loss
    config: FitConfig
    members: int | None = None
    layout: Layout = ONE_DEVICE
    guessing: Callable[[int], float] = lambda songs: math.inf  # loss of guessing among so many songs

    @property
    def rows(self) -> int:
        """Songs per step: each member has its own."""
        return self.config.batch_size * (self.members or 1)


def init_fit(fit: Fit, init: Callable[[jax.Array], Params], seed: int) -> FitState:
    key = jax.random.key(seed)
    start = prng.stream(key, 0, "init")
    if fit.members is None:
        params = init(start)
        optimizer = optim.init(fit.config.optimizer, params)
    else:
        params = jax.vmap(init)(jax.random.split(start, fit.members))
        optimizer = jax.vmap(functools.partial(optim.init, fit.config.optimizer))(params)
    return FitState(jnp.int32(0), jax.random.key_data(key), params, optimizer)


@functools.partial(jax.jit, static_argnames="fit", donate_argnames="state")
def fit_step(fit: Fit, state: FitState, batch: Batch) -> tuple[FitState, Metrics]:
    """One optimiser step on `fit.rows` songs. Metrics are means over members."""
    key = jax.random.wrap_key_data(state.key)
    keys = prng.stream(key, state.step, "negatives"), prng.stream(key, state.step, "dropout")
    config = fit.config.optimizer

    def one(
        layout: Layout, params: Params, optimizer: OptimizerState, batch: Batch, key: jax.Array, dropout_key: jax.Array
    ) -> tuple[Params, OptimizerState, dict[str, jax.Array]]:
        def loss(params: Params, songs: Batch) -> Ratios:
            return fit.loss(params, songs, key, prng.per_example(dropout_key, songs.index))

        value, metrics, gradient = gradients.of_rows(loss, layout, params, batch)
        rate = config.learning_rate * optim.schedule(config, optimizer.updates, fit.config.steps)
        params, optimizer, info = optim.update(config, params, gradient, optimizer, rate)
        return params, optimizer, {"loss": value} | metrics | info

    if fit.members is None:
        params, optimizer, metrics = one(fit.layout, state.params, state.optimizer, batch, *keys)
    else:
        songs = jax.tree.map(lambda x: x[: fit.rows].reshape(fit.members, -1, *x.shape[1:]), batch)
        songs = fit.layout.rows(songs, axis=1)
        member_keys = [jax.random.split(k, fit.members) for k in keys]
        each = jax.vmap(functools.partial(one, ONE_DEVICE))  # the compiler spreads what needs a whole batch
        params, optimizer, metrics = each(state.params, state.optimizer, songs, *member_keys)
        metrics = jax.tree.map(jnp.mean, metrics)
    return fit.layout.stored(FitState(state.step + 1, state.key, params, optimizer)), metrics


@functools.partial(jax.jit, static_argnames="fit")
def validate(fit: Fit, params: Params, batch: Batch) -> Metrics:
    """Loss and accuracy without dropout, negatives drawn with a fixed key; means over members."""
    return jax.tree.map(jnp.mean, _of_each(fit, params, batch))


@functools.partial(jax.jit, static_argnames="fit")
def worst_loss(fit: Fit, params: Params, batch: Batch) -> jax.Array:
    """The largest `valid/loss` of a member, []."""
    return jnp.max(_of_each(fit, params, batch)["valid/loss"])


def _of_each(fit: Fit, params: Params, batch: Batch) -> Metrics:
    """Validation of every member, [members], or of the one model, []."""
    key = jax.random.key(0)

    def one(params: Params) -> dict[str, jax.Array]:
        loss, metrics = fit.loss(params, batch, key, None)
        return {f"valid/{name}": ratio.value() for name, ratio in ({"loss": loss} | metrics).items()}

    return one(params) if fit.members is None else jax.vmap(one)(params)
