"""MIDI files in and out: a melody to accompany, and the accompaniment to listen to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from gapt_jax import chords, midi
from gapt_jax.chords import Chord
from gapt_jax.errors import UserError
from gapt_jax.midi import File, Harmony, Meters, Note, Tempos
from gapt_jax.runtime.files import write_atomic
from gapt_jax.vocabulary import (
    FRAMES_PER_BEAT,
    NO_EVENT,
    NOTE_HOLD,
    NOTE_ONSET,
    NUM_PITCHES,
    PAD,
    SILENCE,
    Vocabulary,
)

_T = TypeVar("_T")


class _Sound(NamedTuple):
    start: int  # frames
    end: int
    token: int


class Tune(NamedTuple):
    """A melody to accompany. Positions in beats from the bar line before its first note."""

    notes: list[Note]
    source: str  # the part of the file that it was taken from, as the user is told of it
    skipped: int  # bars without a note that stand before it in the file
    tempos: Tempos
    meters: Meters


def write_accompaniment(
    path: Path,
    melody_tokens: np.ndarray,
    chord_tokens: np.ndarray,
    vocabulary: Vocabulary,
    bpm: float = 100,
    tempos: Tempos = (),
    meters: Meters = (),
) -> None:
    """Writes what `accompaniment` makes."""
    write_atomic(path, accompaniment(melody_tokens, chord_tokens, vocabulary, bpm, tempos, meters))


def accompaniment(
    melody_tokens: np.ndarray,
    chord_tokens: np.ndarray,
    vocabulary: Vocabulary,
    bpm: float = 100,
    tempos: Tempos = (),
    meters: Meters = (),
    velocities: Mapping[int, int] | None = None,
) -> bytes:
    """A MIDI file of the two tracks ``melody`` and ``chords``. Tokens [T] int; the first PAD ends a part. `tempos`,
    where there are any, count in the place of `bpm`; `velocities` are those of notes, by the frame of the onset."""
    tables = vocabulary.tables
    sounds = _sounds(melody_tokens, tables.is_note, vocabulary)
    melody = [Note(*_beats(sound), int(tables.event[sound.token])) for sound in sounds]
    strengths = [(velocities or {}).get(sound.start, midi.MELODY_VELOCITY) for sound in sounds]
    harmony = [
        Harmony(*_beats(sound), _chord(sound.token, vocabulary))
        for sound in _sounds(chord_tokens, tables.is_chord, vocabulary)
    ]
    return midi.build(melody, harmony, bpm, tempos=tempos, meters=meters, velocities=strengths)


def _beats(sound: _Sound) -> tuple[float, float]:
    return sound.start / FRAMES_PER_BEAT, sound.end / FRAMES_PER_BEAT


def _sounds(tokens: np.ndarray, belongs: np.ndarray, vocabulary: Vocabulary) -> list[_Sound]:
    """What sounds from which frame to which.

    A HOLD of something that does not sound yet starts it (a crop may begin inside a note); a token of the
    other part is silence.
    """
    tables = vocabulary.tables
    sounds: list[_Sound] = []
    sounding = NO_EVENT
    for frame, token in enumerate(np.asarray(tokens).tolist()):
        if token == PAD:
            break
        event = int(tables.event[token]) if belongs[token] else NO_EVENT
        if event != NO_EVENT and event == sounding and tables.is_hold[token]:
            sounds[-1] = sounds[-1]._replace(end=frame + 1)
        elif event != NO_EVENT:
            sounds.append(_Sound(frame, frame + 1, token))
        sounding = event
    return sounds


def _chord(token: int, vocabulary: Vocabulary) -> Chord:
    """The chord of a token, its root in the bass."""
    root = int(vocabulary.tables.root[token])
    classes = np.flatnonzero(vocabulary.tables.pitch_classes[token])
    return Chord(root, chords.fold(int(pc) - root for pc in classes), root)


def read_melody(path: Path) -> list[Note]:
    """The melody of a MIDI file, one note at a time (`midi.melody_of`)."""
    return _read(path, midi.melody_of)


def read_tune(path: Path) -> Tune:
    """The melody of a MIDI file from the first bar with a note of it on, with the file's tempos and metres."""
    return _read(path, _tune)


def _read(path: Path, read: Callable[[File], _T]) -> _T:
    if not path.is_file():
        raise UserError(f"{path} is not there: give the path of a MIDI file")
    with path.open("rb") as stream:
        content = stream.read(midi.MAX_BYTES + 1)
    try:
        return read(midi.parse(content))
    except ValueError as error:
        raise UserError(f"{path} cannot be used: {error}") from None


def _tune(file: File) -> Tune:
    part = midi.melody_part(file)
    notes = midi.one_at_a_time(part.notes)
    file.meter(notes[0].onset)  # refuses what song records cannot hold
    skipped, start = file.bar(notes[0].onset)
    moved = [Note(max(note.onset - start, 0.0), note.offset - start, note.pitch) for note in notes]
    return Tune(moved, part.label, skipped, _from(file.tempos, start), _from(file.meters, start))


def _from(changes: Sequence[tuple[float, _T]], start: float) -> list[tuple[float, _T]]:
    """What holds at `start`, which becomes beat 0, and what changes after it."""
    before = [value for beat, value in changes if beat <= start]
    return [(0.0, before[-1]), *((beat - start, value) for beat, value in changes if beat > start)]


def melody_tokens(notes: Sequence[Note], max_frames: int) -> np.ndarray:
    """[T] int32 note tokens, T <= max_frames: positions rounded to the nearest frame, halves up.

    A note has at least one frame; of notes that start in one frame the last stays.
    """
    spans = [(_frame(note.onset), max(_frame(note.offset), _frame(note.onset) + 1), note.pitch) for note in notes]
    tokens = np.full(min(max(end for _, end, _ in spans), max_frames), SILENCE, np.int32)
    for start, end, pitch in spans:
        assert 0 <= pitch < NUM_PITCHES
        tokens[start:] = SILENCE
        tokens[start:end] = NOTE_HOLD + pitch
        tokens[start : start + 1] = NOTE_ONSET + pitch
    if (tokens == SILENCE).all():
        raise UserError(f"the melody has no note in its first {max_frames} frames (sixteenths): cut the rest before it")
    return tokens


def _frame(beats: float) -> int:
    return int(np.floor(beats * FRAMES_PER_BEAT + 0.5))
