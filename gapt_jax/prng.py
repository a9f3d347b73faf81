"""Randomness by name: every draw folds a key by step, stream and, where it belongs to a song, global example index.

So adding a stream never changes the others, and the same song draws the same numbers on 1, 8 or 256 devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Append only: a stream's number is part of every result.
STREAMS = (
    "init",
    "rollout",
    "minibatch",
    "dropout",
    "discriminator",
    "negatives",
    "evaluation",
    "agent",
    "counterfactual",
)


def stream(key: jax.Array, step: jax.Array | int, name: str) -> jax.Array:
    """The key of the named stream at this step."""
    return jax.random.fold_in(jax.random.fold_in(key, STREAMS.index(name)), step)


def per_example(key: jax.Array, index: jax.Array) -> jax.Array:
    """[B] keys, one for each global example index."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def fold_each(keys: jax.Array, number: int) -> jax.Array:
    """[B] keys -> [B] other keys, for another place of the network."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def uniform_per_example(key: jax.Array, index: jax.Array, length: int) -> jax.Array:
    """[B, length] float32 in [0, 1): row b depends on `key` and `index[b]` alone."""
    return jax.vmap(lambda k: jax.random.uniform(k, (length,), jnp.float32))(per_example(key, index))
