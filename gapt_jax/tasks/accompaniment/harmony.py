"""Do the chords fit the melody? Counts over frames in which both sound. N songs, T frames."""

from __future__ import annotations

import dataclasses

import numpy as np

from gapt_jax.evaluation.statistics import share
from gapt_jax.tasks.accompaniment.events import before_end
from gapt_jax.vocabulary import FRAMES_PER_BEAT, TokenTables


@dataclasses.dataclass(frozen=True)
class NoteInChord:
    """Frames whose melody pitch class is in the chord, out of those where note and chord both sound."""

    hits: np.ndarray  # [N] int
    frames: np.ndarray  # [N] int

    @property
    def pooled(self) -> float:
        """Share over all frames of all songs, as GAPT reports it; NaN without a valid frame."""
        return share(int(self.hits.sum()), int(self.frames.sum()))

    @property
    def per_song(self) -> np.ndarray:
        """[N] float64: each song's share (ReaLchords reports its mean); NaN without a valid frame."""
        return _divide(self.hits, self.frames)


def note_in_chord(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> NoteInChord:
    """Note-in-chord counts of melody and chords [N, T] (docs/method.md §12.2).

    The pitch classes of a chord include its extensions; a held note counts in every frame; rests and chord
    silence are outside the denominator."""
    both, hit = _sounding(melody, chords, tables)
    return NoteInChord(hit.sum(1), both.sum(1))


def chance_level(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> float:
    """Note-in-chord of the melody moved by 1..11 semitones against these chords, pooled.

    A chord of k pitch classes is hit by k of the 12 moves, so the other 11 together hit it k - hit times."""
    both, hit = _sounding(melody, chords, tables)
    sizes = np.where(both, tables.pitch_classes[chords].sum(-1), 0)
    return share(int(sizes.sum() - hit.sum()), int(11 * both.sum()))


def per_beat(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> np.ndarray:
    """[N, T / 4] float64: note-in-chord of each beat, NaN where no frame is valid (docs/method.md §12.2)."""
    both, hit = _sounding(melody, chords, tables)
    shape = (len(melody), melody.shape[1] // FRAMES_PER_BEAT, FRAMES_PER_BEAT)
    return _divide(hit.reshape(shape).sum(-1), both.reshape(shape).sum(-1))


def silent_share(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> float:
    """Share of the frames with a melody note in which no chord sounds: what note-in-chord leaves out."""
    has_note = tables.is_note[melody]
    return share((has_note & ~tables.is_chord[chords]).sum(), has_note.sum())


def pitch_classes_per_chord(chords: np.ndarray, tables: TokenTables) -> float:
    """Mean number of pitch classes over chord frames: dense chords hit more notes by chance."""
    counted = before_end(chords) & tables.is_chord[chords]
    return share(tables.pitch_classes[chords][counted].sum(), counted.sum())


def _sounding(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> tuple[np.ndarray, np.ndarray]:
    both = tables.is_note[melody] & tables.is_chord[chords]
    return both, both & (tables.pitch_classes[melody] & tables.pitch_classes[chords]).any(-1)


def _divide(hits: np.ndarray, frames: np.ndarray) -> np.ndarray:
    return np.where(frames > 0, hits / np.maximum(frames, 1), np.nan)
