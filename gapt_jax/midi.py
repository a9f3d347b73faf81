"""MIDI bytes and what they sound like: tracks of notes in beats, one melody, and two-part songs. Pure: no files."""

from __future__ import annotations

import io
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import mido
import numpy as np

from gapt_jax import chords
from gapt_jax.chords import Chord

TICKS_PER_BEAT = 480
MELODY_VELOCITY, CHORD_VELOCITY, BASS_VELOCITY = 76, 50, 56
CHORD_OCTAVE, BASS_OCTAVE = 48, 36  # lowest pitch of the chord tones and of the bass
MAX_BYTES = 4 << 20
MAX_BEATS = 20_000
DRUM_CHANNEL = 9
_MAX_TEXT = 200


class Note(NamedTuple):
    """A melody note: onset and offset in beats, MIDI pitch."""

    onset: float
    offset: float
    pitch: int


class Harmony(NamedTuple):
    """A chord that sounds from onset to offset, in beats."""

    onset: float
    offset: float
    chord: Chord


@dataclass
class Track:
    """A track as it was read; `texts` are texts, lyrics and markers with their beats."""

    name: str
    channels: dict[int, list[Note]] = field(default_factory=lambda: defaultdict(list))
    texts: list[tuple[float, str]] = field(default_factory=list)

    @property
    def notes(self) -> list[Note]:
        """Of all channels."""
        return list(itertools.chain(*self.channels.values()))


@dataclass
class File:
    """A MIDI file as it was read, drums left out."""

    tracks: list[Track]
    tempos: list[tuple[float, float]]  # beat, seconds a beat from there on; begins with beat 0
    meter: tuple[int, int]
    beats: float  # until the last track ends

    def seconds(self, beats: np.ndarray) -> np.ndarray:
        """Time of positions in beats, both [N] float64."""
        starts, paces = np.array(self.tempos, np.float64).T
        began = np.concatenate([[0.0], np.cumsum(np.diff(starts) * paces[:-1])])
        at = np.searchsorted(starts, beats, side="right") - 1
        return began[at] + (beats - starts[at]) * paces[at]


def parse(content: bytes) -> File:
    """Reads MIDI bytes. Raises ValueError with the reason where they are none, or none we can use."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has {len(content) >> 20} MB, more than the {MAX_BYTES >> 20} MB of a MIDI file we read")
    try:
        file = mido.MidiFile(file=io.BytesIO(content), clip=True)
    except Exception as error:  # mido raises many kinds on malformed bytes
        raise ValueError(f"it is not a readable MIDI file ({error or type(error).__name__})") from None
    if file.ticks_per_beat <= 0:
        raise ValueError("it counts time in film frames, not in beats: save it with ticks per beat")
    tempos, meter, end = {0.0: 0.5}, (4, 4), 0
    for track in reversed(file.tracks):  # of what several tracks say at one time, the first track counts
        now = 0
        for message in track:
            now += message.time
            if now > MAX_BEATS * file.ticks_per_beat:
                raise ValueError(f"it is longer than {MAX_BEATS} beats: cut it")
            if message.type == "set_tempo":
                tempos[now / file.ticks_per_beat] = message.tempo / 1e6
            elif message.type == "time_signature" and now == 0:
                meter = (message.numerator, message.denominator)
        end = max(end, now)
    tracks = [_read_track(track, file.ticks_per_beat) for track in file.tracks]
    return File(tracks, sorted(tempos.items()), meter, end / file.ticks_per_beat)


def _read_track(messages: mido.MidiTrack, ticks_per_beat: int) -> Track:
    track = Track(messages.name.strip()[:_MAX_TEXT])
    started: dict[tuple[int, int], int] = {}
    now = 0

    def stop(channel: int, pitch: int) -> None:
        onset = started.pop((channel, pitch), now)
        if now > onset:
            track.channels[channel].append(Note(onset / ticks_per_beat, now / ticks_per_beat, pitch))

    for message in messages:
        now += message.time
        if message.type in ("note_on", "note_off") and message.channel != DRUM_CHANNEL:
            stop(message.channel, message.note)
            if message.type == "note_on" and message.velocity > 0:
                started[message.channel, message.note] = now
        elif message.type in ("text", "lyrics", "marker"):
            track.texts.append((now / ticks_per_beat, message.text[:_MAX_TEXT]))
    for channel, pitch in list(started):
        stop(channel, pitch)
    return track


def melody_of(file: File) -> list[Note]:
    """The melody of a file, one note at a time. Raises ValueError where it has no notes.

    It is the track named ``melody``, or else, of the tracks and channels that play a note at a time, or of all where
    none does, the one with the highest mean pitch.
    """
    named = [track for track in file.tracks if track.name.lower() == "melody"]
    parts = [track.notes for track in named] or [p for track in file.tracks for p in track.channels.values()]
    parts = [notes for notes in parts if notes]
    parts = [notes for notes in parts if _mean_voices(notes) < 2] or parts
    if not parts:
        raise ValueError(f"it has no notes{' in its melody track' if named else ''}: give a file with a melody")
    return one_at_a_time(max(parts, key=lambda part: float(np.mean([note.pitch for note in part]))))


def one_at_a_time(notes: Sequence[Note]) -> list[Note]:
    """A later note cuts the one before; of notes struck together the highest stays."""
    highest = {note.onset: note for note in sorted(notes, key=lambda note: note.pitch)}
    ordered = [highest[onset] for onset in sorted(highest)]
    nexts = [note.onset for note in ordered[1:]] + [float("inf")]
    return [note._replace(offset=min(note.offset, cut)) for note, cut in zip(ordered, nexts, strict=True)]


def chords_of(file: File) -> list[Harmony]:
    """The chords of a file in order of time: of its track named ``chords``, or else of the track with the most notes
    at a time, at least two; none where there is no such track.

    Where the track holds texts that are chord symbols, each names the notes struck with it; otherwise chords are
    recognised from the notes that sound, and the lowest is the bass.
    """
    named = [track for track in file.tracks if track.name.lower() in ("chords", "chord", "harmony")]
    melodies = [track for track in file.tracks if track.name.lower() == "melody"]
    others = [track for track in file.tracks if track not in melodies and _mean_voices(track.notes) >= 2]
    found = [track for track in named if track.notes] or others
    if not found:
        return []
    track = max(found, key=lambda track: _mean_voices(track.notes))
    return _named_chords(track) or _recognised_chords(track.notes)


def _mean_voices(notes: Sequence[Note]) -> float:
    """Notes for each distinct onset."""
    return len(notes) / len({note.onset for note in notes}) if notes else 0.0


def _named_chords(track: Track) -> list[Harmony]:
    symbols: dict[float, Chord | None] = {}
    for beat, text in track.texts:
        try:
            symbols[beat] = None if chords.is_no_chord(text) else chords.parse(text)
        except ValueError:
            return []
    ends: dict[float, float] = defaultdict(float)
    for note in track.notes:
        ends[note.onset] = max(ends[note.onset], note.offset)
    if set(symbols) != set(ends):
        return []
    return [Harmony(beat, ends[beat], chord) for beat, chord in sorted(symbols.items()) if chord is not None]


def _recognised_chords(notes: Sequence[Note]) -> list[Harmony]:
    ordered = sorted(notes)
    onsets = sorted({note.onset for note in ordered})
    found: list[Harmony] = []
    sounding: list[Note] = []
    for onset, (_, struck) in zip(onsets, itertools.groupby(ordered, key=lambda note: note.onset), strict=True):
        sounding = [note for note in sounding if note.offset > onset] + list(struck)
        chord = recognise([note.pitch for note in sounding])
        if found and found[-1].offset > onset:
            found[-1] = found[-1]._replace(offset=onset)
        found.append(Harmony(onset, max(note.offset for note in sounding), chord))
    return found


def recognise(pitches: Sequence[int]) -> Chord:
    """The chord of some pitches, at least one. Its root is the lowest of them from which the rest has a name;
    where none has, the lowest pitch, and the chord is what its intervals are."""
    classes = [pitch % 12 for pitch in sorted(pitches)]
    for root in dict.fromkeys(classes):
        intervals = chords.fold(pc - root for pc in classes)
        if chords.is_named(intervals):
            return Chord(root, intervals, classes[0])
    return Chord(classes[0], chords.fold(pc - classes[0] for pc in classes), classes[0])


def build(
    melody: Iterable[Note],
    harmony: Iterable[Harmony],
    bpm: float = 100,
    beats: float = 0,
    meter: tuple[int, int] = (4, 4),
) -> bytes:
    """A MIDI file of two tracks, ``melody`` and ``chords``; each chord is struck with its symbol as a text.

    The tracks end after `beats`, or with their last note where that is later.
    """
    tune = [(note.onset, note.offset, [(note.pitch, MELODY_VELOCITY)], None) for note in melody]
    accompaniment = [
        (onset, offset, _keys(chord), mido.MetaMessage("text", text=chords.symbol(chord)))
        for onset, offset, chord in harmony
    ]
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT)
    file.tracks = [_track("melody", 0, tune, beats), _track("chords", 1, accompaniment, beats)]
    signature = mido.MetaMessage("time_signature", numerator=meter[0], denominator=meter[1])
    file.tracks[0][:0] = [mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm)), signature]
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def _keys(chord: Chord) -> list[tuple[int, int]]:
    """(pitch, velocity) of each key of a chord: its bass, and its notes."""
    tones = sorted((chord.root + step) % 12 for step in chord.intervals)
    return [(BASS_OCTAVE + chord.bass, BASS_VELOCITY), *((CHORD_OCTAVE + tone, CHORD_VELOCITY) for tone in tones)]


_Sound = tuple[float, float, list[tuple[int, int]], mido.MetaMessage | None]


def _track(name: str, channel: int, sounds: Sequence[_Sound], beats: float) -> mido.MidiTrack:
    messages = [mido.Message("program_change", channel=channel, program=0)]
    for onset, offset, keys, text in sounds:
        on, off = round(onset * TICKS_PER_BEAT), round(offset * TICKS_PER_BEAT)
        messages += [text.copy(time=on)] if text else []
        for pitch, velocity in keys:
            messages.append(mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=on))
            messages.append(mido.Message("note_off", channel=channel, note=pitch, time=off))
    messages.sort(key=lambda message: (message.time, message.type == "note_on"))
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=name)])
    now = 0
    for message in messages:
        track.append(message.copy(time=message.time - now))
        now = message.time
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(beats * TICKS_PER_BEAT) - now)))
    return track
