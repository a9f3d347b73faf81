"""One conversation: who speaks when, in seconds, and the same on a grid of frames."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

_PART = re.compile(r"(.*\d)[a-z]", re.DOTALL)
_SLACK = 1e-6  # frames; times are decimal numbers rounded by whoever wrote them


@dataclasses.dataclass(frozen=True, eq=False)
class Conversation:
    """S participants, K segments in order of their start. Nobody has two segments at a time; a vocal sound is laughter,
    a cough or the like, outside his speech."""

    id: str
    group: str  # conversations of one group stay in one split
    split: str
    seconds: float  # how long it is
    speakers: tuple[str, ...]
    starts: np.ndarray  # [K] float64, seconds
    ends: np.ndarray  # [K] float64, seconds
    who: np.ndarray  # [K] int32: number of the speaker
    is_vocal: np.ndarray  # [K] bool: a vocal sound, not speech

    def num_frames(self, frame_seconds: float) -> int:
        """T, the last one perhaps cut short."""
        return max(1, int(np.ceil(self.seconds / frame_seconds - _SLACK)))

    def frames(self, frame_seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """(speech, vocal sounds), both [S, T] bool: the frames of which any is in a segment of a participant. A frame
        with speech has no vocal sound of the same participant."""
        length = self.num_frames(frame_seconds)
        first = np.minimum(np.floor(self.starts / frame_seconds + _SLACK).astype(np.int64), length - 1)
        end = np.ceil(self.ends / frame_seconds - _SLACK).astype(np.int64)
        end = np.clip(end, first + 1, length)
        steps = np.zeros((2, len(self.speakers), length + 1), np.int32)
        kind = self.is_vocal.astype(np.int64)
        np.add.at(steps, (kind, self.who, first), 1)
        np.add.at(steps, (kind, self.who, end), -1)
        speech, vocal = np.cumsum(steps, axis=2)[:, :, :-1] > 0
        return speech, vocal & ~speech


def group_of(recording: str) -> str:
    """The series that a recording belongs to: its name without a last small letter after a digit, as of ES2002a to
    ES2002d."""
    part = _PART.fullmatch(recording)
    return part[1] if part else recording


def without(
    starts: np.ndarray, ends: np.ndarray, cut_starts: np.ndarray, cut_ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(starts, ends) of the pieces, in order, that the first intervals cover together and the others do not."""
    times = np.concatenate([starts, ends, cut_starts, cut_ends])
    order = np.argsort(times, kind="stable")
    times = times[order]
    sizes = (len(starts), len(ends), len(cut_starts), len(cut_ends))
    covered = np.cumsum(np.repeat([1, -1, 0, 0], sizes)[order])
    cut = np.cumsum(np.repeat([0, 0, 1, -1], sizes)[order])
    wanted = ((covered > 0) & (cut == 0))[:-1]
    is_real = times[1:] > times[:-1]
    wanted, left, right = wanted[is_real], times[:-1][is_real], times[1:][is_real]
    steps = np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]]))
    return left[np.flatnonzero(steps == 1)], right[np.flatnonzero(steps == -1) - 1]
