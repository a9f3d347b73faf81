"""What the metrics share: conversations as speech and stretches. N conversations, T frames, E stretches."""

from __future__ import annotations

import dataclasses

import numpy as np

from gapt_jax.task import PAD
from gapt_jax.tasks.turn_taking import tokens


@dataclasses.dataclass(frozen=True)
class Stretches:
    """Stretches of one kind of activity, ordered by conversation, then time."""

    row: np.ndarray  # [E] int: the conversation
    start: np.ndarray  # [E] int: first frame
    end: np.ndarray  # [E] int: the frame after the last
    kind: np.ndarray  # [E] int: `tokens.kind_of`

    def of(self, kind: int) -> Stretches:
        return self.where(self.kind == kind)

    def where(self, chosen: np.ndarray) -> Stretches:
        """Those that are `chosen` [E] bool."""
        return Stretches(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Heard:
    """What a participant does and hears, frame by frame; nothing after the end of a conversation."""

    is_in: np.ndarray  # [N, T] bool: before the end
    speech: np.ndarray  # [N, T] bool: the agent speaks
    others: np.ndarray  # [N, T] int: how many others do
    ended: np.ndarray  # [N, T] bool: the others have just fallen silent, all of them
    stretches: Stretches

    @property
    def lengths(self) -> np.ndarray:
        """[N] int: frames."""
        return np.asarray(self.is_in.sum(1))

    @property
    def minutes(self) -> float:
        """All conversations together."""
        return float(self.is_in.sum()) * tokens.FRAME_SECONDS / 60


def heard(context: np.ndarray, actions: np.ndarray) -> Heard:
    """Of tokens [N, T] each."""
    is_in = context != PAD
    played = np.where(is_in, actions, PAD)
    others, _, _ = tokens.decode_context(context)
    others_before = np.pad(others, ((0, 0), (1, 0)))[:, :-1]
    return Heard(
        is_in=is_in,
        speech=tokens.speaks(played),
        others=others,
        ended=is_in & (others == 0) & (others_before > 0),
        stretches=stretches(played),
    )


def stretches(actions: np.ndarray) -> Stretches:
    """The stretches of actions [N, T]. One begins at an onset, and at a hold that holds nothing of its kind."""
    kind = tokens.kind_of(actions)
    edge = np.full((len(kind), 1), -1)
    before = np.concatenate([edge, kind[:, :-1]], axis=1)
    starts = (kind >= 0) & ((kind != before) | tokens.is_onset(actions))
    goes_on = np.concatenate([(kind[:, 1:] == kind[:, :-1]) & ~starts[:, 1:], edge >= 0], axis=1)
    row, start = np.nonzero(starts)
    return Stretches(row, start, np.nonzero((kind >= 0) & ~goes_on)[1] + 1, kind[row, start])


def spans(active: np.ndarray) -> Stretches:
    """The maximal runs of true in [N, T] bool, of kind 0."""
    steps = np.diff(np.pad(active.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, start = np.nonzero(steps == 1)
    return Stretches(row, start, np.nonzero(steps == -1)[1], np.zeros(len(row), np.int64))


def shifted(actions: np.ndarray, lengths: np.ndarray, share: float) -> np.ndarray:
    """Actions [N, T] moved later by a share of each conversation's length [N], in a circle."""
    frame, length = np.arange(actions.shape[1]), np.maximum(lengths, 1)[:, None]
    source = (frame - np.rint(share * length).astype(np.int64)) % length
    return np.where(frame < length, np.take_along_axis(actions, source, axis=1), actions)
