"""Which conversations break a rule that post-training penalises (`rules`). N conversations, T frames."""

from __future__ import annotations

import numpy as np

from gapt_jax.task import PAD
from gapt_jax.tasks.turn_taking import tokens
from gapt_jax.tasks.turn_taking.rules import ONSET_LIMIT, TURN_LIMIT, WINDOW
from gapt_jax.tasks.turn_taking.stretches import Heard, spans


def invalid(context: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """[N] bool: something is no action (stopping early counts), or a hold holds nothing."""
    previous = np.pad(actions, ((0, 0), (1, 0)), constant_values=tokens.REST)[:, :-1]
    broken = tokens.is_hold(actions) & (previous != actions) & (previous != actions - 1)
    foreign = (actions < tokens.REST) | (actions >= tokens.CONTEXT)
    return np.asarray(((broken | foreign) & (context != PAD)).any(1))


def mute(heard: Heard) -> np.ndarray:
    """[N] bool: nothing is said."""
    return np.asarray(~heard.speech.any(1))


def monologue(context: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """[N] bool: turns without a pause of more than 22.4 s."""
    is_turn = (tokens.kind_of(actions) == tokens.TURN) & (context != PAD)
    found = spans(is_turn)
    return np.bincount(found.row[found.end - found.start > TURN_LIMIT], minlength=len(actions)) > 0


def chatter(heard: Heard) -> np.ndarray:
    """[N] bool: more than 4 stretches begin within some 10 s."""
    begins = np.zeros(heard.speech.shape, np.int64)
    begins[heard.stretches.row, heard.stretches.start] = 1
    known = np.cumsum(begins, axis=1)
    earlier = np.pad(known, ((0, 0), (WINDOW, 0)))[:, : known.shape[1]]
    return np.asarray((known - earlier > ONSET_LIMIT).any(1))
