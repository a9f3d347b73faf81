"""Vectorised play: the policy accompanies given melodies, one chord before each note is heard (method.md §1)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from gapt_jax import prng
from gapt_jax.algorithm import rules
from gapt_jax.models import Model
from gapt_jax.types import Params, Trajectory
from gapt_jax.vocabulary import BOS, PAD, SILENCE, TokenTables

MASKED_LOGIT = -1e30


def distribution(logits: jax.Array, valid: jax.Array | None) -> jax.Array:
    """[..., V] float32 log-probabilities at temperature 1, over the valid tokens where a mask is given.

    This is the one definition of the policy's probabilities: sampling, ratios, KL and entropy all use it.
    """
    chex.assert_type(logits, jnp.float32)
    return jax.nn.log_softmax(logits if valid is None else jnp.where(valid, logits, MASKED_LOGIT), axis=-1)


def sample(log_probs: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse-CDF draw: log_probs [B, V], uniform [B] in [0, 1) -> [B] int32."""
    p = jnp.exp(log_probs)
    cumulative = jnp.cumsum(p, axis=-1)
    # XLA's prefix sum is not monotone to the last bit: a token that cannot be played must not win by rounding.
    can_play = p > 0
    total = jnp.max(jnp.where(can_play, cumulative, 0.0), axis=-1, keepdims=True)
    return jnp.argmax(can_play & (cumulative > uniform[:, None] * total), axis=-1).astype(jnp.int32)


def rollout(
    policy: Model,
    params: Params,
    melody: jax.Array,
    index: jax.Array,
    key: jax.Array,
    tables: TokenTables,
    *,
    validity_mask: bool,
) -> Trajectory:
    """Plays over melody [B, T]; frame t sees chords and melody before t only.

    A song's draws depend on `key` and its global example `index` [B] alone. One decoding pass per frame covers two
    tokens: the chord just sampled and the note then heard.
    """
    batch, frames = melody.shape
    uniforms = prng.uniform_per_example(key, index, frames).T  # [T, B]
    mask = melody != PAD

    cache = policy.method(params, "empty_cache", batch, 2 * frames + 1)
    logits, cache = policy.method(params, "decode", jnp.full((batch, 1), BOS, jnp.int32), cache, 0)

    def frame(carry, inputs):
        logits, cache, previous = carry
        t, note, uniform, is_real = inputs
        valid = rules.valid_tokens(previous, tables) if validity_mask else None
        log_probs = distribution(logits, valid)
        chord = jnp.where(is_real, sample(log_probs, uniform), PAD)
        log_prob = jnp.take_along_axis(log_probs, chord[:, None], axis=1)[:, 0]
        heard = jnp.stack([chord, note], axis=1)
        logits, cache = policy.method(params, "decode", heard, cache, 1 + 2 * t)
        return (logits, cache, chord), (chord, jnp.where(is_real, log_prob, 0.0))

    start = (logits, cache, jnp.full((batch,), SILENCE, jnp.int32))
    _, (chords, log_probs) = jax.lax.scan(frame, start, (jnp.arange(frames), melody.T, uniforms, mask.T))
    return Trajectory(melody, chords.T, log_probs.T, mask.astype(jnp.float32))
