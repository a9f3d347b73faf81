"""One session of live play, without network and sound: `Engine.tick` takes what was played and gives a plan.

Each tick first commits the frames that have passed, the chord that was decided and the note that was heard, to the
network's cache; then it plans chords, and the melody it imagines under them, for the frames ahead. The first of these
are decided for good. Planning writes nothing into the cache, so there is nothing to take back.

A network remembers a bounded number of frames. Two caches, half a window apart, take every frame; when the older is
full the younger takes over, so play goes on for ever without a pause, with half a window of context at least.

A frame's random numbers depend on the seed and the frame alone: the same events give the same chords, and a plan
changes only where what was heard changes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gapt_jax.live.model import LiveModel
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, NUM_PITCHES, SILENCE, Vocabulary

CHORD_BASE, BASS_BASE = 48, 36  # MIDI pitch of pitch class 0
FUTURE = 64  # frames ahead of the last tick that an event may lie


@dataclasses.dataclass(frozen=True)
class Controls:
    """What a player may set; units in the names, ranges in `RANGES`."""

    bpm: float = 120
    beats_per_bar: int = 4
    temperature: float = 1.0
    seed: int = 0
    lookahead_frames: int = 16
    commit_frames: int = 4
    intro_frames: int = 16
    masked: bool = True


RANGES: dict[str, tuple[float, float]] = {
    "bpm": (30, 240),
    "beats_per_bar": (1, 16),
    "temperature": (0, 2),
    "seed": (0, 2**31 - 1),
    "lookahead_frames": (1, 32),
    "commit_frames": (0, 32),
    "intro_frames": (0, 64),
}


class Event(NamedTuple):
    """A key goes down or up in a frame."""

    frame: int
    on: bool
    pitch: int
    velocity: int = 80


class Planned(NamedTuple):
    """Chord tokens from `base` on, those before `commit_until` decided for good; imagined note tokens beside them."""

    base: int
    commit_until: int
    chords: tuple[int, ...]
    melody: tuple[int, ...]


class _Cache(NamedTuple):
    """The network's memory from frame `base` on."""

    base: int
    logits: Any
    state: dict[str, Any]


class Engine:
    """A session with one player."""

    def __init__(self, model: LiveModel, controls: Controls) -> None:
        self.controls = controls
        self.late = 0  # events that came after their frame
        self._model = model
        self._begin()

    def _begin(self) -> None:
        self.notes: list[int] = []  # tokens that were heard, frame by frame
        self.decided: list[int] = []  # chord tokens that will not change any more
        self._events: dict[int, list[Event]] = {}
        self._sounding: int | None = None  # pitch of the player's note
        self._older = _Cache(0, *self._model.empty())
        self._younger: _Cache | None = None

    @property
    def model(self) -> LiveModel:
        return self._model

    @property
    def now(self) -> int:
        """Frames that have passed."""
        return len(self.notes)

    def reset(self) -> None:
        """Begins again at frame 0."""
        self._begin()

    def use(self, model: LiveModel) -> None:
        """Goes on with another policy of the same vocabulary; what is decided stays."""
        assert model.vocabulary.hash == self._model.vocabulary.hash and model.frames == self._model.frames
        self._model = model
        self._older = self._remembered(self._older.base)
        self._younger = self._younger and self._remembered(self._younger.base)

    def _remembered(self, base: int) -> _Cache:
        return _Cache(base, *self._model.prefilled(self.decided[base : self.now], self.notes[base : self.now]))

    def hear(self, events: Iterable[Event]) -> None:
        """Takes events in; those of frames that have passed are counted as late and dropped."""
        for event in events:
            if event.frame < self.now:
                self.late += 1
            else:
                self._events.setdefault(event.frame, []).append(event)

    def tick(self, now: int) -> Planned:
        """Frames before `now` have passed: commits them and plans from `now` on."""
        while self.now < now:
            self._commit()
        return self._plan()

    def _commit(self) -> None:
        frame = self.now
        if frame == len(self.decided):  # no plan covered it: what sounds goes on
            self.decided.append(_held(self.decided[-1] if self.decided else SILENCE, self._model.vocabulary))
        chord, note = self.decided[frame], self._heard(frame)
        window, half = self._model.window, self._model.window // 2
        older = _Cache(self._older.base, *self._model.committed(chord, note, self._older.state))
        younger = self._younger
        if younger is not None:
            younger = _Cache(younger.base, *self._model.committed(chord, note, younger.state))
        self.notes.append(note)
        if younger is not None and self.now - older.base >= window:
            older, younger = younger, None
        if younger is None and self.now - older.base >= half:
            younger = _Cache(self.now, *self._model.empty())
        self._older, self._younger = older, younger

    def _heard(self, frame: int) -> int:
        """The note token of a frame: its newest onset, else what goes on sounding."""
        token = None
        released = False
        for event in self._events.pop(frame, ()):
            if event.on:
                self._sounding, token, released = event.pitch, NOTE_ONSET + event.pitch, False
            elif event.pitch == self._sounding:
                released = True
        if token is None:
            token = SILENCE if released or self._sounding is None else NOTE_HOLD + self._sounding
        if released:  # a note shorter than a frame still gets one
            self._sounding = None
        return token

    def _plan(self) -> Planned:
        controls, model, now = self.controls, self._model, self.now
        ahead = min(controls.lookahead_frames, model.most_ahead)
        ahead = max(ahead, min(len(self.decided) - now, model.most_ahead))  # what is decided is always in the plan
        given = np.full(ahead, -1, np.int32)
        known = self.decided[now : now + ahead]
        given[: len(known)] = known
        chords, melody = model.planned(
            self._older.logits,
            self.decided[now - 1] if now else SILENCE,
            self.notes[-1] if now else SILENCE,
            given,
            _uniforms(controls.seed, now, ahead),
            controls.temperature,
            controls.masked,
            self._older.state,
        )
        until = min(now + controls.commit_frames, now + ahead)
        self.decided += chords[len(self.decided) - now : until - now].tolist() if until > len(self.decided) else []
        return Planned(now, max(len(self.decided), now), tuple(chords.tolist()), tuple(melody.tolist()))

    def planned_from_scratch(self) -> Planned:
        """The plan again, from a cache that is made anew from the frames that the older one holds."""
        kept = self._older
        self._older = self._remembered(kept.base)
        found = self._plan()
        self._older = kept
        return found


def _uniforms(seed: int, first: int, count: int) -> np.ndarray:
    """[count, 2] float32 in [0, 1) of the frames from `first` on: of each frame the same, whatever is asked beside."""
    frames = [np.random.default_rng((seed, frame)).random(2, np.float32) for frame in range(first, first + count)]
    return np.stack(frames)


def _held(token: int, vocabulary: Vocabulary) -> int:
    """A chord token as it goes on in the next frame."""
    return token - vocabulary.num_chords if token >= vocabulary.chord_onset else token


def chord_entries(first: int, tokens: Iterable[int], before: int, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Chords as they are shown and sounded, from frame `first` on; `before` is the token of the frame before."""
    entries = []
    for frame, token in enumerate(tokens, start=first):
        if token < CHORD_HOLD:
            entries.append({"f": frame, "sym": "", "pitches": [], "on": False})
        else:
            chord = (token - CHORD_HOLD) % vocabulary.num_chords
            is_onset = token >= vocabulary.chord_onset or _held(before, vocabulary) != token
            classes = np.flatnonzero(vocabulary.chord_pitch_classes[chord]).tolist()
            pitches = [BASS_BASE + vocabulary.roots[chord], *(CHORD_BASE + pitch for pitch in classes)]
            entries.append({"f": frame, "sym": vocabulary.names[chord], "pitches": pitches, "on": is_onset})
        before = token
    return entries


def note_entries(first: int, tokens: Iterable[int]) -> list[dict[str, Any]]:
    """Notes of note tokens from frame `first` on; silent frames are left out."""
    return [
        {"f": frame, "p": (token - NOTE_HOLD) % NUM_PITCHES, "on": token >= NOTE_ONSET}
        for frame, token in enumerate(tokens, start=first)
        if NOTE_HOLD <= token < CHORD_HOLD
    ]
