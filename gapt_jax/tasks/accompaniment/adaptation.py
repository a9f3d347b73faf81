"""How fast do the chords follow a change of key? N songs, T frames, 4 frames a beat (docs/method.md §12.7)."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from gapt_jax.errors import UserError
from gapt_jax.task import Change
from gapt_jax.tasks.accompaniment import harmony
from gapt_jax.vocabulary import FRAMES_PER_BEAT, NOTE_HOLD, NUM_PITCHES, PAD, TokenTables

SEMITONES, BEAT = 6, 16  # of the released code's single transposition (docs/method.md §12.7)
SMOOTHING_BEATS = 4  # harmony must be back over so many beats together
RECOVERED = 0.9  # of the mean before the shift


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shift(Change):
    """From `beat` on the melody is `semitones` higher."""

    semitones: int
    beat: int

    def __str__(self) -> str:
        return f"{self.semitones:+d}@{self.beat}"


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Note-in-chord by beat, mean over the songs that sound in it; NaN where none does."""

    shift: Shift
    unperturbed: np.ndarray  # [T / 4] float64
    perturbed: np.ndarray  # [T / 4] float64

    @property
    def recovery_beats(self) -> float:
        """Beats from the shift until note-in-chord is back to 90 % of its mean before the shift.

        Smoothed by the mean over the 4 beats that begin there, so that a single lucky beat does not count. Where it
        does not come back, all beats after the shift (a lower bound); NaN without beats to judge by."""
        before, after = self.perturbed[: self.shift.beat], self.perturbed[self.shift.beat :]
        if not np.isfinite(before).any() or not np.isfinite(after).any():
            return float("nan")
        target = RECOVERED * np.nanmean(before)
        for beat in range(len(after) - SMOOTHING_BEATS + 1):
            window = after[beat : beat + SMOOTHING_BEATS]
            if np.isfinite(window).any() and np.nanmean(window) >= target:
                return float(beat)
        return float(np.isfinite(after).nonzero()[0][-1] + 1)

    def curves(self) -> dict[str, Any]:
        """As results keep it."""
        return {
            "beats": list(range(len(self.unperturbed))),
            "unperturbed": self.unperturbed,
            "perturbed": self.perturbed,
            "shift_beat": self.shift.beat,
            "semitones": self.shift.semitones,
        }

    @property
    def area_lost(self) -> float:
        """Note-in-chord that the shift cost: unperturbed minus perturbed, summed over the beats from the shift on."""
        lost = (self.unperturbed - self.perturbed)[self.shift.beat :]
        return float(np.nansum(lost)) if np.isfinite(lost).any() else float("nan")


def default_shift(frames: int) -> Shift:
    """+6 at beat 16; at the middle beat of crops of less than 32 beats."""
    return Shift(semitones=SEMITONES, beat=min(BEAT, frames // FRAMES_PER_BEAT // 2))


def parse_shift(text: str, frames: int) -> Shift:
    """``"+6@16"``: 6 semitones up from beat 16 of T = `frames` on. Raises UserError."""
    match, last = re.fullmatch(r"([+-]?\d{1,2})@(\d{1,4})", text), frames // FRAMES_PER_BEAT - 1
    shift = Shift(semitones=int(match[1]), beat=int(match[2])) if match else Shift(semitones=0, beat=0)
    if not 1 <= abs(shift.semitones) <= 12 or not 1 <= shift.beat <= last:
        raise UserError(
            f"'{text}' is no shift of the melody: write semitones@beat, as in +6@{max(1, (last + 1) // 2)}, "
            f"with 1 to 12 semitones up or down and a beat from 1 to {last}"
        )
    is_usual = shift == default_shift(frames)
    return shift if is_usual else dataclasses.replace(shift, suffix=f"-perturb{shift}")


def shifted(melody: np.ndarray, shift: Shift, tables: TokenTables) -> np.ndarray:
    """[N, T]: the melody moved from `shift.beat` on; a pitch beyond 0..127 comes back by an octave.

    A note that is held over the shift begins anew (the released code holds a pitch that never began)."""
    first = shift.beat * FRAMES_PER_BEAT
    pitch = tables.event[melody] + shift.semitones
    pitch = pitch + 12 * (pitch < 0) - 12 * (pitch >= NUM_PITCHES)
    is_onset = tables.is_onset[melody] | (np.arange(melody.shape[1]) == first)
    moved = NOTE_HOLD + NUM_PITCHES * is_onset + pitch
    moves = tables.is_note[melody] & (np.arange(melody.shape[1]) >= first)
    return np.where(moves, moved, melody).astype(melody.dtype)


def long_enough(melody: np.ndarray, shift: Shift) -> np.ndarray:
    """[N] bool: songs that go on for the 4 beats over which recovery is judged."""
    return (melody != PAD).sum(1) >= FRAMES_PER_BEAT * (shift.beat + SMOOTHING_BEATS)


def curve(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> np.ndarray:
    """[T / 4] float64: note-in-chord of each beat (`harmony.per_beat`), mean over songs; NaN where none sounds."""
    beats = harmony.per_beat(melody, chords, tables)
    counted = np.isfinite(beats)
    number = counted.sum(0)
    return np.where(number > 0, np.where(counted, beats, 0.0).sum(0) / np.maximum(number, 1), np.nan)
