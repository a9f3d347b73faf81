"""The trees that travel between phases; every field states its shape and dtype. B songs, T frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

Params = Any  # nested dict of arrays, as `models.split` makes it


def pytree(cls):
    """A frozen dataclass whose fields are all leaves or subtrees."""
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))


@pytree
class Batch:
    """Songs on the frame grid; the end of a song shorter than T is PAD in both parts."""

    melody: jax.Array  # [B, T] int32 note tokens
    chords: jax.Array  # [B, T] int32 chord tokens
    index: jax.Array  # [B] int32 global example index: random draws depend on it, not on the device


@pytree
class Trajectory:
    """What the policy played over the given melodies."""

    melody: jax.Array  # [B, T] int32 note tokens
    chords: jax.Array  # [B, T] int32 sampled chord tokens; PAD where the song has ended
    log_probs: jax.Array  # [B, T] float32 behaviour log-probabilities of `chords`
    mask: jax.Array  # [B, T] float32, 1 where an action was taken that counts (reference.md §4.2)


@pytree
class RewardTerms:
    """Named rewards, each [B, T] float32 before its weight; nothing is summed away."""

    terms: dict[str, jax.Array]
    weights: dict[str, jax.Array]  # [] float32 each

    def total(self) -> jax.Array:
        """[B, T] float32: the weighted sum of all terms."""
        return sum(self.weights[name] * value for name, value in self.terms.items())
