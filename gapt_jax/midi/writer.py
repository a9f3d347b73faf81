"""Two-part songs as the bytes of MIDI files. Pure: no files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import mido

from gapt_jax import chords
from gapt_jax.chords import Chord
from gapt_jax.midi.file import Harmony, Meters, Note, Tempos

TICKS_PER_BEAT = 480
MELODY_VELOCITY, CHORD_VELOCITY, BASS_VELOCITY = 76, 50, 56
_LEAST_UNIT = 32  # of a time signature
_Sound = tuple[float, float, list[tuple[int, int]], mido.MetaMessage | None]  # onset, offset, (pitch, velocity), text


def build(
    melody: Iterable[Note],
    harmony: Iterable[Harmony],
    bpm: float = 100,
    beats: float = 0,
    meter: tuple[int, int] = (4, 4),
    *,
    pickup: float = 0,
    tempos: Tempos = (),
    meters: Meters = (),
    velocities: Sequence[int] = (),
) -> bytes:
    """A MIDI file of two tracks, ``melody`` and ``chords``; each chord is struck with its symbol as a text.

    The tracks end after `beats`, or with their last note where that is later. A pickup of so many beats is a first bar
    with a time signature of its own. `tempos` and `meters`, where there are any, count in the place of `bpm` and
    `meter`; `velocities`, where there are any, those of the melody's notes.
    """
    notes = list(melody)
    strengths = velocities or [MELODY_VELOCITY] * len(notes)
    tune: list[_Sound] = [
        (note.onset, note.offset, [(note.pitch, strength)], None)
        for note, strength in zip(notes, strengths, strict=True)
    ]
    accompaniment = [
        (onset, offset, _keys(chord), mido.MetaMessage("text", text=chords.symbol(chord)))
        for onset, offset, chord in harmony
    ]
    time = [
        mido.MetaMessage("set_tempo", tempo=round(pace * 1e6), time=round(beat * TICKS_PER_BEAT))
        for beat, pace in tempos or [(0, 60 / bpm)]
    ]
    time += [
        mido.MetaMessage("time_signature", numerator=count, denominator=unit, time=round(beat * TICKS_PER_BEAT))
        for beat, (count, unit) in meters or _with_pickup(meter, pickup)
    ]
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT)
    file.tracks = [_track("melody", 0, tune, beats, time), _track("chords", 1, accompaniment, beats)]
    content = io.BytesIO()
    file.save(file=content)
    return content.getvalue()


def _with_pickup(meter: tuple[int, int], pickup: float) -> Meters:
    """A first bar of the pickup's length, to the nearest 32nd note, before those of the metre."""
    parts = round(pickup % (4 * meter[0] / meter[1]) * _LEAST_UNIT / 4)
    if parts == 0:
        return [(0, meter)]
    count, unit = parts, _LEAST_UNIT
    while count % 2 == 0 and unit > 4:
        count, unit = count // 2, unit // 2
    return [(0, (count, unit)), (4 * parts / _LEAST_UNIT, meter)]


def _keys(chord: Chord) -> list[tuple[int, int]]:
    """(pitch, velocity) of each key of a chord: its bass, and its notes."""
    bass, *tones = chords.pitches(chord.bass, ((chord.root + step) % 12 for step in chord.intervals))
    return [(bass, BASS_VELOCITY), *((tone, CHORD_VELOCITY) for tone in tones)]


def _track(
    name: str, channel: int, sounds: Sequence[_Sound], beats: float, time: Sequence[mido.MetaMessage] = ()
) -> mido.MidiTrack:
    messages = [*time, mido.Message("program_change", channel=channel, program=0)]
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
