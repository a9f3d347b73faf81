"""Tokens of turn-taking: what one participant of a conversation does in each frame, and what he hears of the others.

A frame lasts `FRAME_SECONDS`. Somebody speaks in a frame where any of it is speech of his; he makes a vocal sound
(laughter, coughs and the like, which the annotations do not tell apart) where any of it is one and none is speech.
A stretch is a maximal run of frames of one participant, of speech or of vocal sound.

A stretch of speech is a backchannel where it has at most `SHORT` frames, and no longer stretch of speech of the same
participant ends or begins with fewer than `NEAR` frames between the two. All other speech is a turn. So a short stretch
beside a longer one is a part of a turn, and a few short ones together are backchannels. In the training meetings of AMI
38 % of the stretches of speech are backchannels, with 5 % of the frames of speech.

Actions: `REST`, and the onset (the first frame of a stretch) and hold (the others) of each kind. Context tokens: how
many others speak, up to `MANY`, and what has changed since the frame before. Vocal sounds of others are not heard.
S participants, T frames.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gapt_jax.task import BOS, EOS, PAD
from gapt_jax.types import Array

FRAME_SECONDS = 0.2
SHORT = 5  # frames, which is 1 s
NEAR = 5

REST = 3
TURN_ONSET, TURN_HOLD, BACKCHANNEL_ONSET, BACKCHANNEL_HOLD, VOCAL_ONSET, VOCAL_HOLD = range(4, 10)
TURN, BACKCHANNEL, VOCAL = range(3)  # kinds: the onset is TURN_ONSET + 2 * kind, the hold the one after
KINDS = ("turn", "backchannel", "vocal sound")

CONTEXT = 10  # the first context token: CONTEXT + 4 * others that speak + change
MANY = 3  # others, or more
NOTHING, BEGUN, ENDED, BOTH = range(4)  # changes: BEGUN and ENDED are bits
SIZE = CONTEXT + 4 * (MANY + 1)


class Stretch(NamedTuple):
    """Frames `start` to `end` (exclusive) of one kind."""

    start: int
    end: int
    kind: int


def names() -> tuple[str, ...]:
    """What each token means, by its id."""
    special = {PAD: "pad", BOS: "begin", EOS: "end", REST: "rest"}
    actions = [f"{kind} {part}" for kind in KINDS for part in ("onset", "hold")]
    others = [*map(str, range(MANY)), f"{MANY} or more"]
    changes = ("", ", one has begun", ", one has ended", ", one has begun and one has ended")
    context = [f"{number} speak{change}" for number in others for change in changes]
    return (*(special[token] for token in sorted(special)), *actions, *context)


def runs(active: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First frames and end frames (exclusive) of the maximal runs of true in [T] bool."""
    steps = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def are_backchannels(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[N] bool: which of the N stretches of speech of one participant, in order, are backchannels."""
    is_long = ends - starts > SHORT
    far = np.iinfo(np.int64).max // 2
    long_ends = np.maximum.accumulate(np.where(is_long, ends, -far))
    long_starts = np.minimum.accumulate(np.where(is_long, starts, far)[::-1])[::-1]
    return ~is_long & (starts - long_ends >= NEAR) & (long_starts - ends >= NEAR)


def actions_of(speech: np.ndarray, vocal: np.ndarray) -> np.ndarray:
    """[T] int32: what a participant does, of the frames [T] bool in which he speaks and makes vocal sounds."""
    actions = np.full(len(speech), REST, np.int32)
    starts, ends = runs(speech)
    kinds = np.where(are_backchannels(starts, ends), BACKCHANNEL, TURN)
    vocal = vocal & ~speech
    vocal_starts, _ = runs(vocal)
    actions[speech] = TURN_HOLD + 2 * np.repeat(kinds, ends - starts)
    actions[starts] = TURN_ONSET + 2 * kinds
    actions[vocal] = VOCAL_HOLD
    actions[vocal_starts] = VOCAL_ONSET
    return actions


def _context(count: np.ndarray, begun: np.ndarray, ended: np.ndarray) -> np.ndarray:
    return (CONTEXT + 4 * np.minimum(count, MANY) + BEGUN * begun + ENDED * ended).astype(np.int32)


def _changes(speech: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[..., T] bool: who has begun and who has ended since the frame before; before the first all are silent."""
    before = np.concatenate([np.zeros_like(speech[..., :1]), speech[..., :-1]], axis=-1)
    return speech & ~before, before & ~speech


def context_of(others: np.ndarray) -> np.ndarray:
    """[T] int32: what is heard of the others, whose speech is [S, T] bool."""
    begun, ended = _changes(others)
    return _context(others.sum(axis=0), begun.sum(axis=0) > 0, ended.sum(axis=0) > 0)


def encode(speech: np.ndarray, vocal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(context, actions), both [S, T] int32: each participant of a conversation [S, T] bool in turn as the agent."""
    begun, ended = _changes(speech)
    others = (parts.sum(axis=0) - parts for parts in (speech, begun, ended))
    count, others_begun, others_ended = others
    actions = [actions_of(own, sounds) for own, sounds in zip(speech, vocal, strict=True)]
    return _context(count, others_begun > 0, others_ended > 0), np.stack(actions)


def kind_of(actions: np.ndarray) -> np.ndarray:
    """[...] int: the kind of each action, -1 where it is none (`REST`, or no action)."""
    is_kind = (actions >= TURN_ONSET) & (actions < CONTEXT)
    return np.where(is_kind, (actions - TURN_ONSET) // 2, -1)


def is_onset(actions: Array) -> Array:
    """[...] bool: whether something begins."""
    return (actions >= TURN_ONSET) & (actions < CONTEXT) & ((actions - TURN_ONSET) % 2 == 0)


def is_hold(actions: Array) -> Array:
    """[...] bool: whether something goes on."""
    return (actions >= TURN_ONSET) & (actions < CONTEXT) & ((actions - TURN_ONSET) % 2 == 1)


def speaks(actions: Array) -> Array:
    """[...] bool: whether an action is speech."""
    return (actions >= TURN_ONSET) & (actions < VOCAL_ONSET)


def decode(actions: np.ndarray) -> list[Stretch]:
    """The stretches of [T] actions. One begins at an onset, and at a hold that holds nothing of its kind."""
    kinds = kind_of(actions)
    before = np.concatenate([[-1], kinds[:-1]])
    is_onset = (kinds >= 0) & ((kinds != before) | ((actions - TURN_ONSET) % 2 == 0))
    starts = np.flatnonzero(is_onset)
    breaks = np.append(np.flatnonzero(is_onset | (kinds < 0)), len(actions))
    ends = breaks[np.searchsorted(breaks, starts, side="right")]
    return [Stretch(*found) for found in zip(starts.tolist(), ends.tolist(), kinds[starts].tolist(), strict=True)]


def decode_context(context: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(how many others speak, whether one has begun, whether one has ended), each [...]; 0 where it is no context."""
    value = np.where(context >= CONTEXT, context - CONTEXT, 0)
    return value // 4, (value & BEGUN) > 0, (value & ENDED) > 0
