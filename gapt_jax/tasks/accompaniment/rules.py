"""Validity of a chord part and rule penalties (docs/method.md §1.3, §5.3). All [B, T] arrays, no loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gapt_jax.algorithm.rollout import before
from gapt_jax.vocabulary import EOS, NO_EVENT, PAD, SILENCE, TokenTables

SILENCE_FREE_FRAMES, SILENCE_SHARE = 8, 0.04
REPETITION_LIMIT, LONG_NOTE_LIMIT = 4, 31
PENALTY_UNIT = 0.1


def valid_tokens(previous: jax.Array, tables: TokenTables) -> jax.Array:
    """[...] previous chord-part token -> [..., V] bool: the tokens that may follow it.

    Any chord ONSET and SILENCE; HOLD continues the sounding chord, or opens one where nothing sounds.
    """
    sounding = jnp.asarray(tables.event)[previous][..., None]
    continues = (sounding == NO_EVENT) | (sounding == tables.event)
    is_silence = jnp.arange(len(tables.event)) == SILENCE
    return (jnp.asarray(tables.is_chord) & (tables.is_onset | continues)) | is_silence


def _sounding(chords: jax.Array, tables: TokenTables) -> jax.Array:
    """[B, T] int32: the event that sounds when each frame begins; PAD, BOS and EOS are passed over as if absent."""
    frame = jnp.where(chords < SILENCE, -1, jnp.arange(chords.shape[1]))
    last = before(jax.lax.cummax(frame, axis=1), -1)
    event = jnp.take_along_axis(jnp.asarray(tables.event)[chords], jnp.maximum(last, 0), axis=1)
    return jnp.where(last < 0, NO_EVENT, event)


def is_broken(chords: jax.Array, mask: jax.Array, tables: TokenTables) -> jax.Array:
    """[B] bool: the part cannot be decoded (a note in the chord part, or a HOLD of another chord than sounds)."""
    event, sounding = jnp.asarray(tables.event)[chords], _sounding(chords, tables)
    wrong_hold = jnp.asarray(tables.is_hold)[chords] & (sounding != NO_EVENT) & (sounding != event)
    return jnp.any((wrong_hold | jnp.asarray(tables.is_note)[chords]) & (mask > 0), axis=1)


def invalid_output(chords: jax.Array, mask: jax.Array, tables: TokenTables) -> jax.Array:
    """[B] float32: -10 if a special token lies inside the song or the part cannot be decoded.

    It judges the agent's part alone: a malformed melody of the data is not its fault (docs/method.md §10.1).
    """
    special = jnp.any((chords < SILENCE) & (mask > 0), axis=1)
    return jnp.where(special | is_broken(chords, mask, tables), -10.0, 0.0)


def early_stop(chords: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] float32: -(frames missing after the first EOS or PAD) / 10."""
    running = jnp.cumprod(((chords != EOS) & (chords != PAD)) | (mask == 0), axis=1)
    return -PENALTY_UNIT * jnp.sum((1 - running) * mask, axis=1)


def silence(chords: jax.Array, melody: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] float32: -0.1 on each silent frame under a sounding melody, if over 4 % of those after the first 8 are."""
    counted = mask * (jnp.arange(chords.shape[1]) >= SILENCE_FREE_FRAMES)
    silent = counted * (chords == SILENCE) * (melody != SILENCE)
    share = jnp.sum(silent, axis=1) / jnp.maximum(jnp.sum(counted, axis=1), 1.0)
    return -PENALTY_UNIT * silent * (share > SILENCE_SHARE)[:, None]


def _frames_in_long_runs(starts_run: jax.Array, counts: jax.Array, limit: int) -> jax.Array:
    """[B]: how many counted entries lie in runs of more than `limit` counted entries."""
    run = jnp.cumsum(starts_run, axis=1)
    size = starts_run.shape[1] + 1
    length = jax.vmap(lambda r, c: jnp.zeros(size, jnp.float32).at[r].add(c))(run, counts)
    return jnp.sum(counts * (jnp.take_along_axis(length, run, axis=1) > limit), axis=1)


def long_note(chords: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] float32: -0.1 per frame in runs of more than 31 equal tokens before the first PAD."""
    before_pad = jnp.cumprod(chords != PAD, axis=1)
    return -PENALTY_UNIT * _frames_in_long_runs(chords != before(chords, -1), mask * before_pad, LONG_NOTE_LIMIT)


def repetition(chords: jax.Array, mask: jax.Array, tables: TokenTables) -> jax.Array:
    """[B] float32: -0.1 per chord event in runs of more than 4 equal ones (rests end no run); -1 if undecodable."""
    event = jnp.asarray(tables.event)[chords]
    is_event = jnp.asarray(tables.is_chord)[chords] & (mask > 0)
    opens = is_event & (jnp.asarray(tables.is_onset)[chords] | (_sounding(chords, tables) == NO_EVENT))
    frame = jnp.where(opens, jnp.arange(chords.shape[1]), -1)
    last = before(jax.lax.cummax(frame, axis=1), -1)
    last_event = jnp.where(last < 0, NO_EVENT, jnp.take_along_axis(event, jnp.maximum(last, 0), axis=1))
    repeated = _frames_in_long_runs(opens & (event != last_event), opens.astype(jnp.float32), REPETITION_LIMIT)
    return jnp.where(is_broken(chords, mask, tables), -1.0, -PENALTY_UNIT * repeated)
