"""The trees that phases exchange; every field states its shape and dtype. B songs, T frames."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
Array = Any  # a NumPy array as it leaves the loader, a JAX array on the device
Params = Any  # nested dict of arrays, as `models.split` makes it
Metrics = dict[str, jax.Array]  # [] float32 each, of a population [P]


@typing.dataclass_transform(frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are all leaves or subtrees."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytree
class Batch:
    """Examples on the frame grid; the end of one shorter than T is PAD in both parts."""

    context: Array  # [B, T] int32: what the agent hears; rows of PAD alone may follow, so that all devices have as many
    actions: Array  # [B, T] int32: what it plays, here as in the data
    index: Array  # [B] int32 global example index: random draws depend on it, not on the device


@pytree
class Trajectory:
    """What the policy played over the given contexts."""

    context: jax.Array  # [B, T] int32: what it heard
    actions: jax.Array  # [B, T] int32 sampled tokens; PAD where the example has ended
    log_probs: jax.Array  # [B, T] float32 behaviour log-probabilities of `actions`
    mask: jax.Array  # [B, T] float32, 1 where an action was taken that counts (docs/method.md §4.1)

    def is_song(self) -> jax.Array:
        """[B] float32, 0 for rows that only fill up."""
        return jnp.max(self.mask, axis=1)


@pytree
class Reward:
    """What a rollout is paid, [B, T] float32: the sum, and each term by name before its weight."""

    total: jax.Array
    terms: dict[str, jax.Array]
