"""How the terms of a reward are combined: seeds into a score, scores and penalties into what is paid."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gapt_jax import masked


def weighted(weight: jax.Array, term: jax.Array) -> jax.Array:
    """weight [] times term [B, T]. A weight of 0 gives 0 whatever the term holds, NaN included."""
    return jnp.where(weight == 0, 0.0, weight * term)


def weighted_sum(weights: Mapping[str, jax.Array], terms: Mapping[str, jax.Array]) -> jax.Array:
    """The terms [B, T], each times its weight, summed in their order; 0 where there is none."""
    return sum((weighted(weights[name], term) for name, term in terms.items()), jnp.float32(0))


def at_last(values: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] -> [B, T]: each value on the last frame of its song, 0 elsewhere; nothing for an empty song."""
    is_last = (jnp.cumsum(mask, axis=1) == jnp.sum(mask, axis=1, keepdims=True)) & (mask > 0)
    return jnp.where(is_last, values[:, None], 0.0)


EPSILON = 1e-4  # added to deviations: where all songs are paid alike there is nothing to learn


def standardised(values: jax.Array, is_song: jax.Array) -> jax.Array:
    """(value - mean) / (deviation + 1e-4) over the songs of a rollout, [B] -> [B]."""
    return (values - masked.mean(values, is_song)) / (spread(values, is_song) + EPSILON)


def normalised(term: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] -> [B, T]: the term so scaled that its sum over each song is `standardised`. The mean is
    subtracted on the last frame; what other frames are paid is only divided."""
    is_song, by_song = jnp.max(mask, axis=1), jnp.sum(term, axis=1)
    mean, scale = masked.mean(by_song, is_song), spread(by_song, is_song) + EPSILON
    return (term - at_last(jnp.full_like(by_song, mean), mask)) / scale


def combine(scores: jax.Array, ensemble: str, std_weight: float = 1.0) -> jax.Array:
    """[seeds, B] -> [B]: sum (released code), mean, min (worst case), or mean - k deviations, with k = `std_weight`
    (uncertainty-weighted). The last two: Coste et al. 2024, arXiv:2310.02743."""
    match ensemble:
        case "sum":
            return jnp.sum(scores, axis=0)
        case "mean" | "normalised_mean":  # of scores that are `standardised` seed by seed
            return jnp.mean(scores, axis=0)
        case "min":
            return jnp.min(scores, axis=0)
        case "mean_minus_std":
            return jnp.mean(scores, axis=0) - std_weight * jnp.std(scores, axis=0)
    raise ValueError(ensemble)


def spread(values: jax.Array, is_song: jax.Array) -> jax.Array:
    """Standard deviation over the songs of a rollout, [B] -> []."""
    return jnp.sqrt(masked.mean(jnp.square(values - masked.mean(values, is_song)), is_song))
