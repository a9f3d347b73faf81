"""From rewards to advantages (docs/method.md §6.1; Schulman et al. 2016, arXiv:1506.02438)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def generalized_advantage_estimation(
    rewards: jax.Array, values: jax.Array, mask: jax.Array, *, discount: float, gae_lambda: float
) -> tuple[jax.Array, jax.Array]:
    """(advantages, returns), both [B, T] float32, over the frames of actions; padded frames are exactly zero.

    delta_t = r_t + discount v_{t+1} - v_t, A_t = delta_t + discount gae_lambda A_{t+1} (Schulman et al. 2016,
    eq. 16; docs/method.md §6.1). A song ends at its last masked frame: the value after it is 0.
    """
    chex.assert_rank([rewards, values, mask], 2)
    chex.assert_equal_shape([rewards, values, mask])
    chex.assert_type([rewards, values, mask], jnp.float32)
    values = jnp.where(mask > 0, values, 0.0)
    rewards = jnp.where(mask > 0, rewards, 0.0)
    values_next = jnp.pad(values[:, 1:], ((0, 0), (0, 1)))
    deltas = rewards + discount * values_next - values

    def backwards(advantage: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, is_real = inputs
        advantage = is_real * (delta + discount * gae_lambda * advantage)
        return advantage, advantage

    _, advantages = jax.lax.scan(backwards, jnp.zeros(rewards.shape[0]), (deltas.T, mask.T), reverse=True)
    return advantages.T, advantages.T + values
