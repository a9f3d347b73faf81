"""A session without a browser: notes that come in become frames at a tempo, chords go out when their frame begins."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable

from mido import Message

from gapt_jax.live.engine import Engine
from gapt_jax.live.notes import Event, chord_entries
from gapt_jax.midi.writer import BASS_VELOCITY, CHORD_VELOCITY
from gapt_jax.vocabulary import SILENCE

CHANNEL = 1  # of the chords, the first being 0: that of MIDI files of accompaniments
_ALL_NOTES_OFF = 123  # a control
_NAP = 0.002  # seconds between two looks at what came in

Timed = tuple[float, Message]  # seconds, and what came then


@dataclasses.dataclass
class _Note:
    on: int  # frames
    pitch: int
    velocity: int
    off: int | None = None


class Melody:
    """The player's melody on the grid of frames, as the page makes it (``page/melody.js``): one note at a time, the
    newest onset wins. Onsets and releases snap to the nearest frame, a note lasts at least one."""

    def __init__(self) -> None:
        self._notes: list[_Note] = []
        self._taken = 0

    def press(self, pitch: int, velocity: int, position: float) -> None:
        """A key goes down at a position in frames."""
        frame = max(_nearest(position), self._taken)
        last = self._notes[-1] if self._notes else None
        if last and last.on == frame:
            self._notes.pop()
        elif last and (last.off is None or last.off > frame):
            last.off = frame
        self._notes.append(_Note(frame, pitch, velocity))

    def release(self, pitch: int, position: float) -> None:
        """A key goes up; that of a note which another one has ended does nothing."""
        last = self._notes[-1] if self._notes else None
        if last and last.pitch == pitch and last.off is None:
            last.off = max(_nearest(position), last.on + 1, self._taken)

    def take(self, now: int) -> list[Event]:
        """Events of the frames before `now` that were not taken yet, in their order; releases first."""
        first, self._taken = self._taken, now
        events = []
        for note in self._notes:
            if first <= note.on < now:
                events.append(Event(note.on, True, note.pitch, note.velocity))
            if note.off is not None and first <= note.off < now:
                events.append(Event(note.off, False, note.pitch, note.velocity))
        self._notes = [note for note in self._notes if note.off is None or note.off >= now]
        return sorted(events)


def _nearest(position: float) -> int:
    return math.floor(position + 0.5)


class Duet:
    """An engine beside a player at MIDI ports. It knows neither ports nor a clock: times are seconds of any one clock.
    Frame 0 begins with the first note."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.velocities: dict[int, int] = {}  # of the player's notes, by the frame of the onset
        self.late = 0  # frames that no plan reached before they began: what sounds goes on
        self._seconds = 15 / engine.controls.bpm
        self._melody, self._start, self._next = Melody(), math.inf, 0
        self._plan, self._token = engine.tick(0), SILENCE
        self._sounding: tuple[int, ...] = ()

    @property
    def due(self) -> float:
        """When the next frame begins; infinity before the first note."""
        return self._start + self._next * self._seconds

    def frame_at(self, at: float) -> int:
        """The frame that lasts at a time, the next one at least."""
        return max(self._next, math.floor(self._position(at)))

    def _position(self, at: float) -> float:
        return (at - self._start) / self._seconds

    def take(self, at: float, message: Message) -> None:
        """What came from the player at a time; only notes count, of any channel."""
        if message.type == "note_on" and message.velocity:
            self._start = min(self._start, at)
            self._melody.press(message.note, message.velocity, self._position(at))
        elif message.type in ("note_on", "note_off"):
            self._melody.release(message.note, self._position(at))

    def sound(self, now: int) -> list[Message]:
        """What is to be sent where frame `now` begins, by the last plan."""
        self._next, ahead = now + 1, now - self._plan.base
        if ahead >= len(self._plan.actions):
            self.late += 1
            return []
        token = self._plan.actions[ahead]
        (entry,) = chord_entries(now, [token], self._token, self.engine.model.vocabulary)
        self._token = token
        pitches = () if now < self.engine.controls.intro_frames else tuple(entry["pitches"])
        return [] if pitches == self._sounding and not (pitches and entry["on"]) else self._changed(pitches)

    def _changed(self, pitches: tuple[int, ...]) -> list[Message]:
        offs = [Message("note_off", channel=CHANNEL, note=pitch) for pitch in self._sounding]
        self._sounding = pitches
        strengths = [BASS_VELOCITY, *[CHORD_VELOCITY] * len(pitches)]
        struck = zip(pitches, strengths, strict=False)
        return offs + [Message("note_on", channel=CHANNEL, note=pitch, velocity=strength) for pitch, strength in struck]

    def plan(self, now: int) -> None:
        """Commits the frames before `now` and plans from it on."""
        events = self._melody.take(now)
        self.velocities |= {event.frame: event.velocity for event in events if event.on}
        self.engine.hear(events)
        self._plan = self.engine.tick(now)
        self.engine.catch_up()

    def silence(self) -> list[Message]:
        """What ends every note."""
        return [*self._changed(()), Message("control_change", channel=CHANNEL, control=_ALL_NOTES_OFF)]


def perform(
    duet: Duet,
    incoming: Callable[[], Iterable[Timed]],
    send: Callable[[Message], None],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[float]:
    """Plays until Ctrl-C, then ends every note: the milliseconds of each tick. `incoming` gives what came since it was
    last called, at times of `clock`."""
    milliseconds: list[float] = []
    try:
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                for at, message in incoming():
                    duet.take(at, message)
                now = clock()
                if now < duet.due:
                    sleep(min(duet.due - now, _NAP))
                    continue
                frame = duet.frame_at(now)
                for message in duet.sound(frame):
                    send(message)
                began = clock()
                duet.plan(frame)
                milliseconds.append(1000 * (clock() - began))
    finally:
        for message in duet.silence():
            send(message)
    return milliseconds
