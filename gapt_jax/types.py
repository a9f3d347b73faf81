"""The trees that travel between phases; every field states its shape and dtype. B songs, T frames."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")
Array = Any  # a NumPy array as it leaves the loader, a JAX array on the device
Params = Any  # nested dict of arrays, as `models.split` makes it


@typing.dataclass_transform(frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """A frozen dataclass whose fields are all leaves or subtrees."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytree
class Batch:
    """Songs on the frame grid; the end of a song shorter than T is PAD in both parts.

    An agent's own part is always called `chords` and what it hears `melody`, here and in `Trajectory`: for a melody
    agent (method.md §5) the two fields hold each other's tokens, and `Spec.in_place` puts them back.
    """

    melody: Array  # [B, T] int32 note tokens; rows of PAD alone may follow, so that all devices have as many
    chords: Array  # [B, T] int32 chord tokens
    index: Array  # [B] int32 global example index: random draws depend on it, not on the device


@pytree
class Trajectory:
    """What the policy played over the given melodies."""

    melody: jax.Array  # [B, T] int32 note tokens
    chords: jax.Array  # [B, T] int32 sampled chord tokens; PAD where the song has ended
    log_probs: jax.Array  # [B, T] float32 behaviour log-probabilities of `chords`
    mask: jax.Array  # [B, T] float32, 1 where an action was taken that counts (reference.md §4.2)

    def is_song(self) -> jax.Array:
        """[B] float32, 0 for rows that only fill up."""
        return jnp.max(self.mask, axis=1)


@pytree
class Reward:
    """What a rollout is paid, [B, T] float32: the sum, and each term by name before its weight."""

    total: jax.Array
    terms: dict[str, jax.Array]
