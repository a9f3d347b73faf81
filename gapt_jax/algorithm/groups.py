"""Several rollouts over one context: baselines that need no critic, and what a song adds to the variety of its group.

A group is `group_size` successive rows, of [B, ...] arrays whose last rows may only fill up the devices.
"""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from gapt_jax.algorithm.layout import pad_rows

STD_EPSILON = 1e-4  # of returns: a group in which all are alike teaches nothing


def first_of_group(rows: jax.Array, group_size: int) -> jax.Array:
    """[B, ...] -> [B, ...]: every row becomes the first of its group."""
    return rows[jnp.arange(len(rows)) // group_size * group_size]


def relative_to_group(returns: jax.Array, group_size: int) -> jax.Array:
    """GRPO: (R_i - mean) / (std + 1e-4) over the group, [B] -> [B] float32 (Shao et al. 2024, arXiv:2402.03300)."""

    def relative(group: jax.Array) -> jax.Array:
        return (group - jnp.mean(group)) / (jnp.std(group) + STD_EPSILON)

    return _by_group(relative, returns, group_size)


def leave_one_out(returns: jax.Array, group_size: int) -> jax.Array:
    """RLOO: R_i - mean of the others in the group, [B] -> [B] float32 (Ahmadian et al. 2024, arXiv:2402.14740).

    It is group_size / (group_size - 1) times R_i - mean, the advantage of GRPO without its deviation (Dr. GRPO).
    """

    def relative(group: jax.Array) -> jax.Array:
        return group - (jnp.sum(group) - group) / (group_size - 1)

    return _by_group(relative, returns, group_size)


BASELINES: dict[str, Callable[[jax.Array, int], jax.Array]] = {"grpo": relative_to_group, "rloo": leave_one_out}


def log_determinant_gains(embeddings: jax.Array, group_size: int) -> jax.Array:
    """log det(I + K_S) - log det(I + K_{S without i}) of each row, [B, D] -> [B] float32 in (0, log 2].

    K is the cosine kernel of the group S (DQO, Chen et al. 2025, arXiv:2509.04784: log-determinant of a group). The
    added identity is ours: two equal songs have determinant 0 without it. A song at right angles to all others gains
    log 2, one of n equal songs log((n + 1) / n).
    """
    chex.assert_rank(embeddings, 2)

    def gains(group: jax.Array) -> jax.Array:
        unit = group / jnp.maximum(jnp.linalg.norm(group, axis=1, keepdims=True), 1e-12)
        kernel = jnp.eye(group_size) + jnp.matmul(unit, unit.T, precision="highest")
        # Cramer: the i-th diagonal entry of the inverse is det without row and column i, over det.
        return -jnp.log(jnp.diagonal(jnp.linalg.inv(kernel)))

    return _by_group(gains, embeddings, group_size)


def _by_group(fn: Callable[[jax.Array], jax.Array], rows: jax.Array, group_size: int) -> jax.Array:
    """fn([group_size, ...]) -> [group_size] of every group, [B, ...] -> [B]."""
    groups = pad_rows(rows, group_size)
    return jax.vmap(fn)(groups.reshape(-1, group_size, *rows.shape[1:])).reshape(-1)[: len(rows)]
