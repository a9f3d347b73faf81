"""A song of POP909: a MIDI file with a MELODY track, and text files of beats and chords in seconds.

Seconds become beats by the beat file. Where the MIDI's beats are dotted quarters (triple metres), a beat is 1.5
quarter notes: that is told by the melody, whose onsets then lie on thirds of a beat.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass

import numpy as np

from gapt_jax import midi
from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.importers import harte
from gapt_jax.data_pipeline.importers.score import MAX_EVENTS, Score, chord_event
from gapt_jax.data_pipeline.songs import BadSong, Note

_SECONDS = 3_600.0 * 3
_LONGEST_BAR = 16  # beats
_SLIVER = 1 / 80  # of a beat


@dataclass(frozen=True)
class _Grid:
    """Beats of a song in seconds, and how many of them a bar has."""

    times: np.ndarray  # [N] float64, ascending
    first_bar: int  # beats before the first bar line
    bar: int  # beats

    def spans(self, seconds: np.ndarray) -> np.ndarray:
        """[N, 2] positions in beats from the bar line before the first beat. What comes before the first beat is
        placed by the length of that beat. The last one is as long as the one before it; what goes on after its end,
        where nothing is known, is cut: at its beginning, or at its end what begins within it."""
        steps = np.diff(self.times)
        numbers = np.arange(len(self.times), dtype=np.float64)
        inside = np.interp(seconds, self.times, numbers)
        before = np.minimum(seconds - self.times[0], 0) / steps[0]
        after = np.maximum(seconds - self.times[-1], 0) / steps[-1]
        begins, ends = (inside + before + after).T
        cut = np.where(begins < numbers[-1], numbers[-1], numbers[-1] + 1)
        ends = np.where(after[:, 1] > 1 + _SLIVER, cut, ends)
        return np.stack([begins, ends], axis=1) + -self.first_bar % self.bar


def read(midi_file: bytes, beat_text: str, chord_text: str, stem: str) -> Score:
    """The score of one song. Raises BadSong with the reason."""
    grid = _read_beats(beat_text)
    try:
        file = midi.parse(midi_file)
        tracks = [track for track in file.tracks if track.name.upper() == "MELODY" and track.notes]
        if not tracks:
            raise ValueError("it has no track MELODY with notes")
    except ValueError as error:
        raise BadSong(str(error)) from None
    notes = sorted(tracks[0].notes)
    ticks = np.array([note[:2] for note in notes], np.float64)
    positions = grid.spans(file.seconds(ticks.ravel()).reshape(-1, 2))
    heard = positions[:, 1] > positions[:, 0]
    notes, positions = list(itertools.compress(notes, heard)), positions[heard]
    if not notes:
        raise BadSong("no note of its MELODY lies within the beats of its file of beats")
    labels, chord_positions = _read_chords(chord_text, grid)
    first = min(positions[0, 0], chord_positions[0, 0] if labels else np.inf)
    empty = np.floor((first + _SLIVER) / grid.bar) * grid.bar
    quarters = 1.5 if _is_triple(positions[:, 0]) else 1.0
    melody = [Note(*span, note.pitch) for span, note in zip(_moved(positions, empty, quarters), notes, strict=True)]
    chords = [
        chord_event(*span, chord) for span, chord in zip(_moved(chord_positions, empty, quarters), labels, strict=True)
    ]
    last = max([note.offset for note in melody] + [chord.offset for chord in chords])
    meter = (grid.bar, 4) if quarters == 1 else (3 * grid.bar, 8)
    return Score(stem, None, meter, 0, last, melody, chords)


def _numbers(text: str, what: str, width: int) -> list[list[str]]:
    """Fields of each line that has any, `width` of them."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    if not rows or len(rows) > MAX_EVENTS or any(len(row) != width for row in rows):
        raise BadSong(f"its file of {what} must have lines of {width} fields")
    return rows


def _times(fields: list[str], what: str) -> np.ndarray:
    try:
        times = np.array([float(field) for field in fields])
    except ValueError:
        raise BadSong(f"its file of {what} has a time that is no number") from None
    if not np.all((times >= 0) & (times <= _SECONDS)):
        raise BadSong(f"its file of {what} has a time outside 0..{_SECONDS:g} seconds")
    return times


def _read_beats(text: str) -> _Grid:
    rows = _numbers(text, "beats", 3)
    times = _times([row[0] for row in rows], "beats")
    if len(times) < 4 or np.any(np.diff(times) <= 1e-3):
        raise BadSong("its file of beats needs four beats or more, in order of time")
    bars = [number for number, row in enumerate(rows) if row[2] in ("1", "1.0")]
    if len(bars) < 2:
        raise BadSong("its file of beats marks no bars")
    bar = statistics.mode(np.diff(bars).tolist())
    strong = [number for number, row in enumerate(rows) if row[1] in ("1", "1.0")]
    if bar == 6 and statistics.mode(np.diff(strong).tolist()) == 3:  # the file marks every other bar of three
        bar = 3
    return _Grid(times, bars[0] % bar, min(bar, _LONGEST_BAR))


def _snapped(positions: np.ndarray) -> np.ndarray:
    """Positions within a sliver of a sixteenth or a twelfth of a beat moved onto it: tempos and ticks are rounded."""
    for parts in (12, 16):
        near = np.round(positions * parts) / parts
        positions = np.where(np.abs(positions - near) <= _SLIVER, near, positions)
    return positions


def _is_triple(onsets: np.ndarray) -> bool:
    """Whether more onsets lie on thirds of a beat than on its half and quarters, whole beats aside."""
    part = onsets % 1

    def near(places: tuple[float, ...]) -> int:
        return int(np.sum([np.abs(part - place) < 1 / 48 for place in places]))

    return near((1 / 3, 2 / 3)) > near((1 / 4, 1 / 2, 3 / 4))


def _read_chords(text: str, grid: _Grid) -> tuple[list[Chord], np.ndarray]:
    """What sounds, and [N, 2] float64 from which beat to which."""
    rows = _numbers(text, "chords", 3)
    times = np.stack([_times([row[column] for row in rows], "chords") for column in (0, 1)], axis=1)
    try:
        chords = [harte.parse(label) for _, _, label in rows]
    except ValueError as error:
        raise BadSong(str(error)) from None
    positions = grid.spans(times)
    sounds = np.array([chord is not None for chord in chords]) & (positions[:, 1] > positions[:, 0])
    return [chord for chord, kept in zip(chords, sounds, strict=True) if chord and kept], positions[sounds]


def _moved(positions: np.ndarray, empty: float, quarters: float) -> list[tuple[float, float]]:
    """Positions in quarter notes, without the `empty` beats before the first event."""
    spans = np.maximum(_snapped(positions - empty), 0) * quarters
    return [(onset, offset) for onset, offset in spans.tolist()]
