"""Validity of what a participant does, and rule penalties. All [B, T] arrays, no loops.

The limits are rates of the AMI meetings that are trained on (docs/turn_taking.md has the command): of the turns 95 %
last 112 frames (22.4 s) or less; in 99 % of the excerpts of 25.6 s, no 10 s have more than 4 beginnings of anything.
In 31 % of these excerpts the participant says nothing at all: there is no limit within a minute that the data
keeps, and `mute` is paid by it too.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gapt_jax.algorithm.rollout import before
from gapt_jax.tasks.turn_taking.tokens import (
    CONTEXT,
    FRAME_SECONDS,
    REST,
    SIZE,
    TURN_HOLD,
    TURN_ONSET,
    is_hold,
    is_onset,
    speaks,
)

TURN_LIMIT = 112  # frames of a turn
WINDOW, ONSET_LIMIT = 50, 4  # frames, and what may begin in so many
PENALTY_UNIT = 0.1


def valid_tokens(previous: jax.Array) -> jax.Array:
    """[...] previous action -> [..., V] bool: rest, any onset, and the hold of what goes on."""
    token, last = jnp.arange(SIZE), previous[..., None]
    continues = is_hold(token) & ((last == token) | (last == token - 1))
    return (token == REST) | is_onset(token) | continues


def valid_context(previous: jax.Array) -> jax.Array:
    """[...] previous context -> [..., V] bool: any token of the context."""
    return jnp.broadcast_to(jnp.arange(SIZE) >= CONTEXT, (*previous.shape, SIZE))


def invalid(actions: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] float32: -10 where something is no action, or a hold holds nothing."""
    previous = before(actions, REST)
    holds_nothing = is_hold(actions) & (previous != actions) & (previous != actions - 1)
    foreign = (actions < REST) | (actions >= CONTEXT)
    return jnp.where(jnp.any((holds_nothing | foreign) & (mask > 0), axis=1), -10.0, 0.0)


def monologue(actions: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] float32: -0.1 a second on each frame by which a turn is longer than 22.4 s."""
    frame = jnp.arange(actions.shape[1])
    is_turn = (actions == TURN_ONSET) | (actions == TURN_HOLD)
    length = frame - jax.lax.cummax(jnp.where(is_turn, -1, frame), axis=1)
    return -PENALTY_UNIT * FRAME_SECONDS * mask * (is_turn & (length > TURN_LIMIT))


def chatter(actions: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] float32: -0.1 on each onset by which more than 4 lie within 10 s."""
    begins = is_onset(actions) & (mask > 0)
    known = jnp.cumsum(begins, axis=1)
    earlier = jnp.pad(known, ((0, 0), (WINDOW, 0)))[:, : actions.shape[1]]
    return -PENALTY_UNIT * (begins & (known - earlier > ONSET_LIMIT))


def mute(actions: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] float32: -1 where nothing is said at all."""
    return -1.0 * ~jnp.any(speaks(actions) & (mask > 0), axis=1)
