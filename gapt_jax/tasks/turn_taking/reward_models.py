"""The four reward models: two judge a participant and what he hears, two the rhythm of both: who speaks when."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gapt_jax.algorithm.reward_models import ContrastiveReward, DiscriminativeReward, Pair
from gapt_jax.task import PAD, RewardModel
from gapt_jax.tasks.turn_taking.tokens import CONTEXT, SIZE, speaks

SILENT, SPEAKING, RHYTHM_SIZE = 3, 4, 5  # the alphabet of the rhythm: kinds, numbers and changes are left out
VOICES = "others", "agent"  # the names of the towers
LEAST_DELAY, MOST_DELAY = 2, 10  # frames


def reward_models() -> dict[str, RewardModel]:
    """By the names of their terms."""
    return {
        "contrastive": ContrastiveReward(SIZE, VOICES),
        "discriminative": DiscriminativeReward(SIZE),
        "rhythm_contrastive": ContrastiveReward(RHYTHM_SIZE, VOICES, rhythm),
        "rhythm_discriminative": DiscriminativeReward(RHYTHM_SIZE, rhythm, shift_one_part),
    }


def rhythm(context: jax.Array, actions: jax.Array) -> Pair:
    """Whether somebody else speaks, and whether the agent does, in each frame [B, T]."""
    somebody = (context >= CONTEXT + 4).astype(jnp.int32)
    heard = jnp.where(context == PAD, PAD, SILENT + somebody)
    return heard, jnp.where(actions == PAD, PAD, SILENT + speaks(actions).astype(jnp.int32))


def shift_one_part(key: jax.Array, others: jax.Array, agent: jax.Array) -> Pair:
    """Delays one of the two parts [B, T] of each row by 0.4 to 2 s. What it begins with fills the gap; the end is cut,
    so that the length stays."""
    which_key, delay_key = jax.random.split(key)
    rows, frames = others.shape
    delay = jax.random.randint(delay_key, (rows, 1), LEAST_DELAY, MOST_DELAY + 1)
    source = jnp.maximum(jnp.arange(frames) - delay, 0)

    def delayed(x: jax.Array) -> jax.Array:
        return jnp.where(x == PAD, PAD, jnp.take_along_axis(x, source, axis=1))

    moves_others = jax.random.bernoulli(which_key, 0.5, (rows, 1))
    return jnp.where(moves_others, delayed(others), others), jnp.where(moves_others, agent, delayed(agent))
