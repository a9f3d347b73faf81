"""Adam with clipping, a schedule, and a guard that skips non-finite gradients without touching any state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from gapt_jax.config import OptimizerConfig
from gapt_jax.types import Params, pytree


@pytree
class OptimizerState:
    moments: optax.OptState
    updates: jax.Array  # [] int32: updates applied


def _direction(config: OptimizerConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.scale_by_adam(config.b1, config.b2))


def init(config: OptimizerConfig, params: Params) -> OptimizerState:
    return OptimizerState(_direction(config).init(params), jnp.int32(0))


def schedule(config: OptimizerConfig, step: jax.Array, total_steps: int) -> jax.Array:
    """Multiplier of the peak rate at 0-based update `step`: linear warm-up, then cosine to `final_fraction`
    (docs/method.md §6.4)."""
    warmup = jnp.minimum((step + 1) / max(config.warmup_steps, 1), 1.0)
    progress = jnp.clip((step - config.warmup_steps) / max(total_steps - config.warmup_steps, 1), 0.0, 1.0)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return warmup * (config.final_fraction + (1 - config.final_fraction) * cosine)


def update(
    config: OptimizerConfig,
    params: Params,
    gradients: Params,
    state: OptimizerState,
    learning_rate: jax.Array,
) -> tuple[Params, OptimizerState, dict[str, jax.Array]]:
    """One step at `learning_rate`; a non-finite gradient changes nothing and is reported as `skipped` = 1."""
    norm = optax.tree.norm(gradients)
    is_finite = jnp.isfinite(norm)
    safe = jax.tree.map(lambda g: jnp.where(is_finite, g, 0.0), gradients)
    direction, moments = _direction(config).update(safe, state.moments, params)
    new_params = jax.tree.map(lambda p, d: p - learning_rate * d, params, direction)
    new_state = OptimizerState(moments, state.updates + 1)
    keep_new = lambda new, old: jnp.where(is_finite, new, old)  # noqa: E731
    return (
        jax.tree.map(keep_new, new_params, params),
        jax.tree.map(keep_new, new_state, state),
        {"gradient_norm": norm, "skipped": 1.0 - is_finite},
    )
