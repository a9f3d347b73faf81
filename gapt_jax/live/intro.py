"""The chords of the silent beats at a session's begin: by the anchor, which has read the whole melody of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gapt_jax.export.functions import allowed, drawn
from gapt_jax.models import Model
from gapt_jax.models.networks import part
from gapt_jax.types import Params
from gapt_jax.vocabulary import PAD, SILENCE, TokenTables

LONGEST = 64  # frames
Intro = Callable[[list[int], int], list[int]]  # (notes, seed) -> chords


def make_intro(anchor: Model, params: Params, tables: TokenTables) -> Intro:
    """Chord tokens of the frames of some notes, at most `LONGEST`: sampled at temperature 1, valid ones only."""
    compiled = jax.jit(lambda *arguments: _chords(anchor, tables, *arguments))

    def intro(notes: list[int], seed: int) -> list[int]:
        padded = np.full((1, LONGEST), PAD, np.int32)
        padded[0, : len(notes)] = notes
        uniforms = np.random.default_rng((seed, 0, 1)).random(LONGEST, np.float32)
        chords = compiled(params, padded, np.int32(len(notes)), uniforms)
        return np.asarray(chords)[0, : len(notes)].tolist()

    return intro


def _chords(
    anchor: Model, tables: TokenTables, params: Params, notes: jax.Array, frames: jax.Array, uniforms: jax.Array
) -> jax.Array:
    """[1, T] int32: chords of the first `frames` [] notes [1, T]; PAD after them."""

    def play(frame: jax.Array, carry: Any) -> Any:
        chords, before = carry
        logits = anchor(params, part(notes), part(chords)[:, : chords.shape[1]])[:, frame]
        may_be = allowed(before, jnp.bool_(True), tables)
        chord = drawn(logits, may_be, uniforms[frame][None], jnp.float32(1))
        return chords.at[:, frame].set(chord), chord

    begun = jnp.full_like(notes, PAD), jnp.full(1, SILENCE, jnp.int32)
    return jax.lax.fori_loop(0, frames, play, begun)[0]
