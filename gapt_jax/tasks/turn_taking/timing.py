"""When does a participant speak, beside what others do? Counts and intervals of `stretches.Heard`."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon

from gapt_jax.tasks.turn_taking.stretches import Heard, Stretches, spans
from gapt_jax.tasks.turn_taking.tokens import BACKCHANNEL, FRAME_SECONDS, TURN

PROMPT = 2  # frames within which an answer is prompt: 400 ms
MOST_OFFSET = 25  # frames: 5 s; offsets beyond count as this
_NEVER = 1 << 30
LENGTHS = np.unique(np.rint(np.geomspace(1, 512, 25)).astype(np.int64))  # frames: edges of the bins of lengths


def prompt_answers(heard: Heard) -> tuple[np.ndarray, np.ndarray]:
    """(ends that were answered, ends), each [N]. The others have ended where all of them fall silent while the agent
    is silent; it has answered where it begins to speak in this frame or the next one."""
    begins = heard.speech & ~_earlier(heard.speech)
    ends = heard.ended & ~_earlier(heard.speech)
    ends[:, -1:] = False
    answered = begins | np.concatenate([begins[:, 1:], begins[:, :1] & False], axis=1)
    return (ends & answered).sum(1), ends.sum(1)


def transfer_offsets(heard: Heard) -> np.ndarray:
    """[E] int, frames: of the turns by which the agent takes the floor from others, the time from their end to its
    beginning; below 0 where it begins before they end. Turns after its own speech, with nobody in between, and those
    over which somebody speaks to their end are left out."""
    turns = heard.stretches.of(TURN)
    turns = turns.where(turns.start > 0)
    frame = np.arange(heard.speech.shape[1])
    at = turns.row, turns.start
    others_ended = np.maximum.accumulate(np.where(heard.ended, frame, -1), axis=1)[at]
    own = np.maximum.accumulate(np.where(heard.speech, frame, -1), axis=1)[turns.row, turns.start - 1]
    silent = np.where(heard.is_in & (heard.others == 0), frame, _NEVER)
    next_silent = np.minimum.accumulate(silent[:, ::-1], axis=1)[:, ::-1][at]
    after = (heard.others[at] == 0) & (others_ended > own)
    over = (heard.others[at] > 0) & (next_silent <= turns.end)
    offset = np.where(after, turns.start - others_ended, turns.start - next_silent)
    return np.clip(offset[after | over], -MOST_OFFSET, MOST_OFFSET)


def offset_counts(heard: Heard) -> np.ndarray:
    """[2 * MOST_OFFSET + 1] int: `transfer_offsets` from -5 s to 5 s."""
    return np.bincount(transfer_offsets(heard) + MOST_OFFSET, minlength=2 * MOST_OFFSET + 1)


def turn_lengths(heard: Heard) -> np.ndarray:
    """[E] int, frames: of the turns that begin and end inside the conversation."""
    return _whole(heard.stretches.of(TURN), heard)


def pauses(heard: Heard) -> np.ndarray:
    """[E] int, frames: from one stretch of a participant's speech to his next."""
    return _whole(spans(heard.is_in & ~heard.speech), heard)


def interruptions(heard: Heard) -> int:
    """Turns that begin while somebody else has been speaking, and does so still."""
    turns = heard.stretches.of(TURN)
    turns = turns.where(turns.start > 0)
    return int(((heard.others[turns.row, turns.start] > 0) & (heard.others[turns.row, turns.start - 1] > 0)).sum())


def backchannels(heard: Heard) -> tuple[int, int]:
    """(those that begin while somebody else speaks, all)."""
    found = heard.stretches.of(BACKCHANNEL)
    return int((heard.others[found.row, found.start] > 0).sum()), len(found.row)


def length_counts(lengths: np.ndarray) -> np.ndarray:
    """How many lengths [E] lie in each bin of `LENGTHS`; the last one has no end."""
    return np.bincount(np.searchsorted(LENGTHS, lengths, side="right") - 1, minlength=len(LENGTHS))


def distance(ours: np.ndarray, data: np.ndarray) -> float:
    """Jensen-Shannon distance (base 2) of two histograms; NaN where one is empty."""
    return float(jensenshannon(ours, data, base=2)) if ours.sum() and data.sum() else float("nan")


def seconds(frames: np.ndarray) -> float:
    """Mean length of some frames [E]; NaN where there is none."""
    return float(frames.mean()) * FRAME_SECONDS if len(frames) else float("nan")


def _whole(found: Stretches, heard: Heard) -> np.ndarray:
    """Lengths of the stretches that a conversation does not cut."""
    is_whole = (found.start > 0) & (found.end < heard.lengths[found.row])
    return np.asarray((found.end - found.start)[is_whole])


def _earlier(active: np.ndarray) -> np.ndarray:
    """[N, T]: the frame before; false before the first."""
    return np.pad(active, ((0, 0), (1, 0)))[:, :-1]
