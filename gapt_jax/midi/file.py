"""A MIDI file as music: notes in beats by track and channel, tempos, metres and bars."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gapt_jax.chords import Chord
from gapt_jax.midi import events
from gapt_jax.midi.events import META, Event

MAX_BEATS = 20_000
DRUM_CHANNEL = 9
MAX_TEXT = 200
Tempos = Sequence[tuple[float, float]]  # (beat, seconds a beat from there on)
Meters = Sequence[tuple[float, tuple[int, int]]]  # (beat, (beats, unit) from there on)
_MOST_BEATS_A_BAR, _UNITS = 64, (1, 2, 4, 8, 16, 32)
_NAME, _INSTRUMENT, _TEMPO, _SIGNATURE = 0x03, 0x04, 0x51, 0x58
_TEXTS = (0x01, 0x05, 0x06, 0x07)  # text, lyric, marker, cue
_PEDAL = 64
_SLACK = 0.125  # beats that a played note may come before its bar line


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
    """A track as it was read. `texts` are those of each kind (text, lyric, marker, cue) with their beats; `held` has
    the beat up to which the pedal holds a note on, where that is after its offset."""

    name: str
    channels: dict[int, list[Note]] = field(default_factory=lambda: defaultdict(list))
    drums: int = 0  # notes of the drum channel, which are in no other field
    texts: dict[int, list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    held: dict[Note, float] = field(default_factory=dict)

    @property
    def notes(self) -> list[Note]:
        """Of all channels."""
        return list(itertools.chain(*self.channels.values()))


@dataclass
class File:
    """A MIDI file as it was read."""

    tracks: list[Track]
    tempos: Tempos  # begins with beat 0
    meters: Meters  # begins with beat 0
    beats: float  # until the last track ends

    def seconds(self, beats: np.ndarray) -> np.ndarray:
        """Time of positions in beats, both [N] float64."""
        starts, paces = np.array(self.tempos, np.float64).T
        began = np.concatenate([[0.0], np.cumsum(np.diff(starts) * paces[:-1])])
        at = np.searchsorted(starts, beats, side="right") - 1
        return began[at] + (beats - starts[at]) * paces[at]

    def meter(self, first: float) -> tuple[tuple[int, int], float]:
        """(metre, beats before the first bar line) of music whose first note stands at beat `first`; a signature that
        lasts for less than a bar of the next one is that of a pickup.

        Raises ValueError with the reason where no song can have this metre."""
        meters = list(self.meters)
        if len(meters) > 1 and meters[1][0] < bar_of(meters[1][1]):
            del meters[0]
        start, (count, unit) = ([m for m in meters if m[0] <= first + _SLACK] or meters[:1])[-1]
        if count > _MOST_BEATS_A_BAR or unit not in _UNITS:
            raise ValueError(
                f"its time signature is {count}/{unit}: write bars of at most {_MOST_BEATS_A_BAR} beats, whole notes "
                f"to {_UNITS[-1]}nds"
            )
        pickup, bar = start % bar_of((count, unit)), bar_of((count, unit))
        return (count, unit), round(pickup, 6) if _SLACK <= pickup <= bar - _SLACK else 0.0

    def bar(self, beat: float) -> tuple[int, float]:
        """(bars before the one that a note at `beat` belongs to, where that bar begins)."""
        number, ends = 0, [*(start for start, _ in self.meters[1:]), float("inf")]
        for (start, meter), end in zip(self.meters, ends, strict=True):
            length = bar_of(meter)
            if beat + _SLACK < end:
                bars = max(0, int((beat + _SLACK - start) // length))
                return number + bars, start + bars * length
            number += int(-(-(end - start) // length))
        raise AssertionError("a note stands nowhere")


def bar_of(meter: tuple[int, int]) -> float:
    """Beats of a bar."""
    return 4 * meter[0] / meter[1]


def music(content: bytes) -> File:
    """The music in MIDI bytes. Raises ValueError with the reason where they are none, or none we can use."""
    type_, division, tracks = events.read(content)
    if division >= 0x8000:
        raise ValueError("it counts time in film frames, not in beats: save it with ticks per beat")
    if division == 0:
        raise ValueError("it has no ticks per beat: save it anew")
    if type_ == 2 and sum(any(e.status >> 4 == 9 for e in found) for found, _ in tracks) > 1:
        raise ValueError(
            "it is type 2: its tracks are separate patterns, not parts of one song: save one of them alone"
        )
    if max(end for _, end in tracks) > MAX_BEATS * division:
        raise ValueError(f"it is longer than {MAX_BEATS} beats: cut it")
    tempos, meters = {0.0: 0.5}, {0.0: (4, 4)}
    for found, _ in reversed(tracks):  # of what several tracks say at one time, the first track counts
        tempos |= {e.tick / division: int.from_bytes(e.data[:3], "big") / 1e6 for e in found if _says(e, _TEMPO, 3)}
        meters |= {e.tick / division: (e.data[0], 1 << e.data[1]) for e in found if _says(e, _SIGNATURE, 2)}
    read = [_read_track(*track, division) for track in tracks]
    return File(read, sorted(tempos.items()), sorted(meters.items()), max(end for _, end in tracks) / division)


def _says(event: Event, kind: int, size: int) -> bool:
    """Whether it is a meta event of this kind that means something: a tempo of 0 or a metre of 0/4 does not."""
    if event.status != META or event.kind != kind or len(event.data) < size:
        return False
    return any(event.data[:3]) if kind == _TEMPO else event.data[0] > 0 and event.data[1] < 8


def _text(data: bytes) -> str:
    """UTF-8, or what older programs wrote: Latin-1."""
    try:
        text = data[: 4 * MAX_TEXT].decode("utf-8")
    except UnicodeDecodeError:
        text = data[:MAX_TEXT].decode("latin-1")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:MAX_TEXT]


def _first_text(found: Sequence[Event], kind: int) -> str:
    return next((_text(e.data) for e in found if e.status == META and e.kind == kind), "")


def _read_track(found: Sequence[Event], end: int, division: int) -> Track:
    track = Track(_first_text(found, _NAME) or _first_text(found, _INSTRUMENT))
    started: dict[tuple[int, int], int] = {}
    pedals: dict[int, dict[int, Note]] = {}  # channel -> pitch -> a note that has ended, while the pedal is down

    def stop(channel: int, pitch: int, tick: int) -> None:
        onset = started.pop((channel, pitch), tick)
        if tick == onset:
            return
        note = Note(onset / division, tick / division, pitch)
        track.channels[channel].append(note)
        if channel in pedals:
            pedals[channel][pitch] = note

    def hold(notes: Iterator[Note], tick: int) -> None:
        track.held.update((note, tick / division) for note in notes if tick / division > note.offset)

    for tick, status, kind, data in found:
        channel, message = status & 0x0F, status >> 4
        if status == META:
            if kind in _TEXTS and (text := _text(data)):
                track.texts[kind].append((tick / division, text))
        elif message in (8, 9):
            pitch, is_on = min(data[0], 127), message == 9 and data[1] > 0
            if channel == DRUM_CHANNEL:
                track.drums += is_on
                continue
            stop(channel, pitch, tick)
            if is_on:
                started[channel, pitch] = tick
                if channel in pedals and pitch in pedals[channel]:
                    hold(iter([pedals[channel].pop(pitch)]), tick)
        elif message == 0xB and data[0] == _PEDAL:
            if data[1] >= 64:
                pedals.setdefault(channel, {})
            else:
                hold(iter(pedals.pop(channel, {}).values()), tick)
    for channel, pitch in list(started):
        stop(channel, pitch, end)
    for channel in list(pedals):
        hold(iter(pedals.pop(channel).values()), end)
    return track
