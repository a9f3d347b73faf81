"""MIDI in and out: a melody to accompany, and the accompaniment to listen to."""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np

from gapt_jax.errors import UserError
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

TICKS_PER_BEAT = 480
TICKS_PER_FRAME = TICKS_PER_BEAT // FRAMES_PER_BEAT
MELODY_VELOCITY, CHORD_VELOCITY, BASS_VELOCITY = 76, 50, 56
CHORD_OCTAVE, BASS_OCTAVE = 48, 36  # lowest pitch of the chord tones and of the roots
MAX_FILE_BYTES = 4 << 20
MAX_BEATS = 20_000
DRUM_CHANNEL = 9


class Note(NamedTuple):
    """A melody note: onset and offset in beats, MIDI pitch."""

    onset: float
    offset: float
    pitch: int


class _Sound(NamedTuple):
    start: int  # frames
    end: int
    token: int


def write_accompaniment(
    path: Path, melody_tokens: np.ndarray, chord_tokens: np.ndarray, vocabulary: Vocabulary, bpm: float = 100
) -> None:
    """Writes the two tracks ``melody`` and ``chords``. Tokens [T] int; the first PAD ends a part."""
    tables = vocabulary.tables
    melody = [
        (sound, [(int(tables.event[sound.token]), MELODY_VELOCITY)])
        for sound in _sounds(melody_tokens, tables.is_note, vocabulary)
    ]
    chords = [
        (sound, _chord_keys(sound.token, vocabulary)) for sound in _sounds(chord_tokens, tables.is_chord, vocabulary)
    ]
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT)
    file.tracks = [_track("melody", 0, melody), _track("chords", 1, chords)]
    file.tracks[0].insert(0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm)))
    content = io.BytesIO()
    file.save(file=content)
    write_atomic(path, content.getvalue())


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


def _chord_keys(token: int, vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """(pitch, velocity) of each key of a chord: its notes, and its root in the bass."""
    tables = vocabulary.tables
    tones = [(CHORD_OCTAVE + int(pc), CHORD_VELOCITY) for pc in np.flatnonzero(tables.pitch_classes[token])]
    return [(BASS_OCTAVE + int(tables.root[token]), BASS_VELOCITY), *tones]


def _track(name: str, channel: int, sounds: list[tuple[_Sound, list[tuple[int, int]]]]) -> mido.MidiTrack:
    messages = [mido.Message("program_change", channel=channel, program=0)]
    for sound, keys in sounds:
        for pitch, velocity in keys:
            on, off = sound.start * TICKS_PER_FRAME, sound.end * TICKS_PER_FRAME
            messages.append(mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=on))
            messages.append(mido.Message("note_off", channel=channel, note=pitch, time=off))
    messages.sort(key=lambda message: (message.time, message.type == "note_on"))
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
    now = 0
    for message in messages:
        track.append(message.copy(time=message.time - now))
        now = message.time
    return track


def read_melody(path: Path) -> list[Note]:
    """The melody of a MIDI file, one note at a time.

    It is the track named ``melody``, or else the track and channel with the highest mean pitch (drums aside).
    A later note cuts the one before; of notes struck together the highest stays.
    """
    file = _open(path)
    named = [track for track in file.tracks if track.name.strip().lower() == "melody"]
    parts: list[list[Note]] = []
    for track in named or file.tracks:
        channels = _notes_by_channel(track, file.ticks_per_beat)
        parts += [list(itertools.chain(*channels.values()))] if named else channels.values()
    parts = [notes for notes in parts if notes]
    if not parts:
        raise UserError(f"{path} has no notes{' in its melody track' if named else ''}: give a file with a melody")
    notes = max(parts, key=lambda part: float(np.mean([note.pitch for note in part])))
    if max(note.offset for note in notes) > MAX_BEATS:
        raise UserError(f"{path} is longer than {MAX_BEATS} beats: cut it")
    return _one_at_a_time(notes)


def _open(path: Path) -> mido.MidiFile:
    if not path.is_file():
        raise UserError(f"{path} is not there: give the path of a MIDI file")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise UserError(f"{path} has {size >> 20} MB, more than the {MAX_FILE_BYTES >> 20} MB of a MIDI file we read")
    try:
        file = mido.MidiFile(path, clip=True)
    except PermissionError:
        raise
    except Exception as error:  # mido raises many kinds on malformed bytes
        raise UserError(f"{path} is not a readable MIDI file ({error or type(error).__name__})") from None
    if file.ticks_per_beat <= 0:
        raise UserError(f"{path} counts time in film frames, not in beats: save it with ticks per beat")
    return file


def _notes_by_channel(track: mido.MidiTrack, ticks_per_beat: int) -> dict[int, list[Note]]:
    notes: dict[int, list[Note]] = defaultdict(list)
    started: dict[tuple[int, int], int] = {}
    now = 0

    def stop(channel: int, pitch: int) -> None:
        onset = started.pop((channel, pitch), now)
        if now > onset:
            notes[channel].append(Note(onset / ticks_per_beat, now / ticks_per_beat, pitch))

    for message in track:
        now += message.time
        if message.type in ("note_on", "note_off") and message.channel != DRUM_CHANNEL:
            stop(message.channel, message.note)
            if message.type == "note_on" and message.velocity > 0:
                started[message.channel, message.note] = now
    for channel, pitch in list(started):
        stop(channel, pitch)
    return notes


def _one_at_a_time(notes: list[Note]) -> list[Note]:
    highest = {note.onset: note for note in sorted(notes, key=lambda note: note.pitch)}
    ordered = [highest[onset] for onset in sorted(highest)]
    nexts = [note.onset for note in ordered[1:]] + [float("inf")]
    return [note._replace(offset=min(note.offset, cut)) for note, cut in zip(ordered, nexts, strict=True)]


def melody_tokens(notes: list[Note], max_frames: int) -> np.ndarray:
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
