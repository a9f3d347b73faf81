"""The four reward models: two judge melody and chords, two the rhythm of both (docs/method.md §5.2)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from gapt_jax.algorithm.reward_models import ContrastiveReward, DiscriminativeReward, Pair
from gapt_jax.task import PAD, RewardModel
from gapt_jax.types import Array
from gapt_jax.vocabulary import RHYTHM_SIZE, SILENCE, Vocabulary

VOICES = "melody", "chord"  # the names of the towers
_ONSET, _HOLD = 4, 5  # in the rhythm alphabet


def in_place(part: str, context: Array, actions: Array) -> tuple[Array, Array]:
    """(melody, chords), whichever of the two, `part`, the agent plays."""
    return (actions, context) if part == "melody" else (context, actions)


def reward_models(vocabulary: Vocabulary, part: str) -> dict[str, RewardModel]:
    """Those of the agent that plays `part`. They read a melody, then its chords: agents of both parts share them."""
    acts = 0 if part == "melody" else 1
    view = functools.partial(in_place, part)
    rhythm = functools.partial(_rhythm, vocabulary, part)
    return {
        "contrastive": ContrastiveReward(vocabulary.size, VOICES, view, acts),
        "discriminative": DiscriminativeReward(vocabulary.size, view),
        # Rhythm does not depend on the key: no transposition (docs/method.md §3.1).
        "rhythm_contrastive": ContrastiveReward(RHYTHM_SIZE, VOICES, rhythm, acts, augmented=False),
        "rhythm_discriminative": DiscriminativeReward(RHYTHM_SIZE, rhythm, shift_one_part, augmented=False),
    }


def _rhythm(vocabulary: Vocabulary, part: str, context: jax.Array, actions: jax.Array) -> Pair:
    rhythm = jnp.asarray(vocabulary.tables.rhythm)
    melody, chords = in_place(part, context, actions)
    return rhythm[melody], rhythm[chords]


def shift_one_part(key: jax.Array, melody: jax.Array, chords: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Delays one of the two rhythm parts [B, T] of each row by 1-3 frames, fills the gap so that the part stays well
    formed (docs/method.md §3.6), and cuts the end so that the length stays."""
    which_key, delay_key = jax.random.split(key)
    rows, frames = melody.shape
    delay = jax.random.randint(delay_key, (rows, 1), 1, 4)
    source = jnp.arange(frames) - delay

    def delayed(x: jax.Array) -> jax.Array:
        opening = jnp.where(x[:, :1] == SILENCE, SILENCE, jnp.where(jnp.arange(frames) == 0, _ONSET, _HOLD))
        moved = jnp.where(source <= 0, opening, jnp.take_along_axis(x, jnp.maximum(source, 0), axis=1))
        return jnp.where(x == PAD, PAD, moved)

    moves_melody = jax.random.bernoulli(which_key, 0.5, (rows, 1))
    return jnp.where(moves_melody, delayed(melody), melody), jnp.where(moves_melody, chords, delayed(chords))
