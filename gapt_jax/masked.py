"""Reductions over valid entries. Losses are `Ratio`s, so that micro-batches and devices combine exactly."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Ratio(NamedTuple):
    """A mean kept as (sum of values, number of them), both [] float32."""

    total: jax.Array
    number: jax.Array

    def __add__(self, other: Ratio) -> Ratio:  # type: ignore[override]
        return Ratio(self.total + other.total, self.number + other.number)

    def value(self) -> jax.Array:
        return self.total / jnp.maximum(self.number, 1.0)


def ratio(values: jax.Array, mask: jax.Array) -> Ratio:
    """Sum and count of `values` where `mask` is 1; what lies under a 0 may be anything, NaN included."""
    return Ratio(jnp.sum(jnp.where(mask > 0, values, 0.0)), jnp.sum(mask))


def mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the valid entries; 0 where there is none."""
    return ratio(values, mask).value()


def ratio_of_rows(values: jax.Array, mask: jax.Array) -> Ratio:
    """[B, T]: each row's mean over its valid entries, summed; counted are the rows that have any."""
    total, number = jnp.sum(jnp.where(mask > 0, values, 0.0), axis=-1), jnp.sum(mask, axis=-1)
    return Ratio(jnp.sum(total / jnp.maximum(number, 1.0)), jnp.sum(number > 0, dtype=jnp.float32))


def whiten(values: jax.Array, mask: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    """Zero mean and unit variance over the valid entries (docs/method.md §6.2); 0 elsewhere."""
    centred = jnp.where(mask > 0, values - mean(values, mask), 0.0)
    variance = mean(jnp.square(centred), mask)
    return centred * jax.lax.rsqrt(jnp.maximum(variance, epsilon))


def select(values: jax.Array, index: jax.Array) -> jax.Array:
    """values [..., V], index [...] -> [...]: the entry at `index` of the last axis.

    As a masked sum: its gradient fuses with what surrounds it, where that of a gather would be a scatter into [..., V].
    """
    return jnp.sum(jnp.where(jnp.arange(values.shape[-1]) == index[..., None], values, 0.0), axis=-1)
