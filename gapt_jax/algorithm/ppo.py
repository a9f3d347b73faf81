"""Losses of policy and critic, KL, entropy, check of the ratio (docs/method.md §6.3).

Distributions are [B, T, V] float32 log-probabilities.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gapt_jax import masked
from gapt_jax.masked import Ratio


def kl_divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p || q) exact over all tokens, [..., V] -> [...]. Tokens that p cannot play count nothing."""
    chex.assert_equal_shape([log_p, log_q])
    p = jnp.exp(log_p)
    return jnp.sum(jnp.where(p > 0, p * (log_p - log_q), 0.0), axis=-1)


def entropy(log_p: jax.Array) -> jax.Array:
    """Entropy in nats, [..., V] -> [...]."""
    p = jnp.exp(log_p)
    return -jnp.sum(jnp.where(p > 0, p * log_p, 0.0), axis=-1)


def clipped_surrogate(
    log_probs: jax.Array,
    behaviour_log_probs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    clip_epsilon: float,
) -> Ratio:
    """-E[min(rho A, clip(rho, 1 ± epsilon) A)]: mean over each song's actions, then over songs (Schulman et al. 2017,
    arXiv:1707.06347, eq. 7). All inputs [B, T] float32."""
    chex.assert_equal_shape([log_probs, behaviour_log_probs, advantages, mask])
    chex.assert_type([log_probs, behaviour_log_probs, advantages, mask], jnp.float32)
    rho = jnp.exp(jnp.where(mask > 0, log_probs - behaviour_log_probs, 0.0))
    clipped = jnp.clip(rho, 1 - clip_epsilon, 1 + clip_epsilon)
    return masked.ratio_of_rows(-jnp.minimum(rho * advantages, clipped * advantages), mask)


def value_loss(values: jax.Array, returns: jax.Array, mask: jax.Array) -> Ratio:
    """Half the mean squared error, over each song's actions, then over songs; no clipping."""
    chex.assert_equal_shape([values, returns, mask])
    return masked.ratio_of_rows(0.5 * jnp.square(jnp.where(mask > 0, values - returns, 0.0)), mask)


RARE = 1_000  # one action of so many deviates by `high` or more in `ratio_deviation`


def ratio_deviation(
    log_probs: jax.Array,
    behaviour_log_probs: jax.Array,
    mask: jax.Array,
    everywhere: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> dict[str, jax.Array]:
    """|rho - 1| of all actions, [B, T] -> [] each: its mean, its 99.9 % quantile (`high`) and the largest.

    Zero to rounding before the first update, else rollout and training disagree. Of n actions n // 1000 deviate by
    `high` or more, and at least one does. `everywhere` gives every device all of [B, T], for the quantile.
    """
    chex.assert_equal_shape([log_probs, behaviour_log_probs, mask])
    rho = jnp.exp(jnp.where(mask > 0, log_probs - behaviour_log_probs, 0.0))
    deviation = jnp.abs(rho - 1)
    largest = jax.lax.top_k(everywhere(deviation).ravel(), max(mask.size // RARE, 1))[0]
    rare = jnp.maximum(jnp.sum(mask).astype(jnp.int32) // RARE, 1)
    return {"mean": masked.mean(deviation, mask), "high": largest[rare - 1], "largest": largest[0]}
