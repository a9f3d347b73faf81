"""One session of live play, without network and sound: `Engine.tick` takes what was played and gives a plan.

Each tick first commits the frames that have passed, the chord that was decided and the note that was heard, to the
network's cache; then it plans chords, and the melody it imagines under them, for the frames ahead. The first of these
are decided for good. Plans are made in a branch, a copy of the cache, so there is nothing to take back. While the
player plays what was imagined the branch is only made longer; else it is begun anew. Where a machine can plan few
frames in a frame's time (`plan_per_tick`), a plan is made in up to `SPREAD` ticks, and the frames that it has not
reached yet are those of the plan before.

While the player is alone at the begin (`intro_frames`) nothing is sounded. Before the last of these frames the anchor,
where there is one, reads the whole melody so far and its chords take the place of the policy's, as context.

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

from gapt_jax.live.model import LEAST_PLANNED, MOST_AHEAD, LiveModel, State, copied
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, NUM_PITCHES, SILENCE, Vocabulary

INTRO_LEAD = 4  # frames before the end of the silent beats at which the anchor is asked
SPREAD = 3  # ticks that a plan may take, whatever is played meanwhile
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
    plan_per_tick: int = MOST_AHEAD
    masked: bool = True


RANGES: dict[str, tuple[float, float]] = {
    "bpm": (30, 240),
    "beats_per_bar": (1, 16),
    "temperature": (0, 2),
    "seed": (0, 2**31 - 1),
    "lookahead_frames": (1, 32),
    "commit_frames": (0, 32),
    "intro_frames": (0, 64),
    "plan_per_tick": (LEAST_PLANNED, MOST_AHEAD),
}


class Event(NamedTuple):
    """A key goes down or up in a frame."""

    frame: int
    on: bool
    pitch: int
    velocity: int = 80


class Planned(NamedTuple):
    """Chord tokens from `base` on, those before `commit_until` decided for good; note tokens imagined under
    all but the last of them."""

    base: int
    commit_until: int
    chords: tuple[int, ...]
    melody: tuple[int, ...]


class _Cache(NamedTuple):
    """The network's memory from frame `base` on."""

    base: int
    logits: Any
    state: State


@dataclasses.dataclass
class _Branch:
    """What is imagined from frame `start` on, after what was played before it."""

    start: int
    drawing: tuple[Any, ...]  # the controls that it was drawn with
    state: State
    chords: list[int] = dataclasses.field(default_factory=list)
    melody: list[int] = dataclasses.field(default_factory=list)
    given: int = 0  # first chords that had been decided before
    ticks: int = 0
    is_whole: bool = False  # it reaches as far as was asked
    is_stale: bool = False  # since `start` something else was played

    @property
    def end(self) -> int:
        return self.start + len(self.chords)

    def passed(self, chord: int, note: int) -> None:
        """A frame has passed."""
        if not self.is_stale and self.chords[:1] == [chord] and self.melody[:1] == [note]:
            del self.chords[0], self.melody[0]
            self.start, self.given = self.start + 1, max(self.given - 1, 0)
        else:
            self.is_stale = True


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
        self.is_introduced = False  # the chords of the silent beats are settled
        self._events: dict[int, list[Event]] = {}
        self._sounding: int | None = None  # pitch of the player's note
        self._older = _Cache(0, *self._model.empty())
        self._younger: _Cache | None = None
        self._younger_now = 0  # frames that the younger cache has taken
        self._branch: _Branch | None = None
        self._last_plan = Planned(0, 0, (), ())

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
        """Goes on with another policy of the same vocabulary; what is decided stays. One with another memory begins
        with half a window."""
        assert model.vocabulary.hash == self._model.vocabulary.hash
        if model.frames != self._model.frames:
            base = max(self._older.base, self.now - model.window // 2)
            self._older, self._younger = self._older._replace(base=base), None
        self._model = model
        self._remember()

    def _remember(self) -> None:
        """Makes the caches anew from what was played."""
        self._older = self._remembered(self._older.base, self.now)
        if self._younger:
            self._younger, self._younger_now = self._remembered(self._younger.base, self.now), self.now
        self._branch = None

    def _remembered(self, base: int, now: int) -> _Cache:
        return _Cache(base, *self._model.prefilled(self.decided[base:now], self.notes[base:now]))

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
        if now == len(self.decided) and (begun := self._last_planned(now)) is not None:
            self.decided.append(begun)  # frame `now` begins, or has begun: nothing later can change it
        if not self.is_introduced:
            self._introduce()
        self._last_plan = self._plan()
        return self._last_plan

    def commit(self, now: int) -> None:
        """Commits the frames before `now`, which have passed, and plans nothing: a part of what `tick` does, for those
        who let others compute in between."""
        while self.now < now:
            self._commit()
        self.catch_up()

    def catch_up(self) -> None:
        """Work that no plan waits for: the younger cache takes the frames that it has not. Whether and when this is
        called changes nothing but time."""
        while self._younger is not None and self._younger_now < self.now:
            frame, state = self._younger_now, self._younger.state
            taken = self._model.committed(self.decided[frame], self.notes[frame], state)
            self._younger, self._younger_now = _Cache(self._younger.base, *taken), frame + 1

    def _introduce(self) -> None:
        """Puts the anchor's chords in the place of what was played to the silent beats."""
        controls = self.controls
        first = max(controls.intro_frames - max(controls.commit_frames, INTRO_LEAD), 1)
        if self._model.intro is None or self.now > controls.intro_frames:
            self.is_introduced = True
        elif self.now >= first:
            self.decided[:] = self._model.intro(self.notes, controls.seed)  # the recording holds this list
            self.is_introduced = True
            self._remember()

    def _commit(self) -> None:
        frame = self.now
        if frame == len(self.decided):  # never settled: as the last plan said, else what sounds goes on
            planned, before = self._last_planned(frame), self.decided[-1] if self.decided else SILENCE
            self.decided.append(_held(before, self._model.vocabulary) if planned is None else planned)
        chord, note = self.decided[frame], self._heard(frame)
        window = self._model.window
        self._older = _Cache(self._older.base, *self._model.committed(chord, note, self._older.state))
        self.notes.append(note)
        if self._branch:
            self._branch.passed(chord, note)
        if self._younger is not None and self.now - self._older.base >= window:
            self.catch_up()
            self._older, self._younger, self._branch = self._younger, None, None
        if self._younger is None and self.now - self._older.base >= window // 2:
            self._younger, self._younger_now = _Cache(self.now, *self._model.empty()), self.now

    def _last_planned(self, frame: int) -> int | None:
        """The chord of a frame by the last plan, which is what the player sounds."""
        base, chords = self._last_plan.base, self._last_plan.chords
        return chords[frame - base] if base <= frame < base + len(chords) else None

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
        controls, now = self.controls, self.now
        drawing = controls.seed, controls.temperature, controls.masked
        most = now + self._model.most_ahead
        end = min(max(now + controls.lookahead_frames, len(self.decided)), most)  # with all that is decided
        branch = self._branch
        if (
            branch is None
            or branch.end <= now
            or branch.drawing != drawing
            or (branch.is_stale and (branch.is_whole or branch.ticks >= SPREAD))
        ):
            branch = _Branch(now, drawing, copied(self._older.state))
        reach = max(max(branch.end, now) + controls.plan_per_tick, len(self.decided) + 1, now + 1)
        self._extend(branch, min(reach, end))
        branch.ticks, branch.is_whole = branch.ticks + 1, branch.end >= end
        self._branch = branch
        until = min(now + controls.commit_frames, branch.end)
        self.decided += branch.chords[len(self.decided) - branch.start : until - branch.start]
        return self._planned(branch, end)

    def _extend(self, branch: _Branch, end: int) -> None:
        """Plans frames until `end`; those that are decided stay. A branch goes on from its last frame, whose note is
        still to be imagined."""
        if end <= branch.end:
            return
        kept = branch.chords[-1:]
        first = branch.end - len(kept)
        if first > branch.start:
            before = branch.chords[-2], branch.melody[-1]
        else:
            before = (self.decided[first - 1], self.notes[first - 1]) if first else (SILENCE, SILENCE)
        known = self.decided[branch.end : end]
        branch.given = len(branch.chords) + len(known) if known else branch.given
        given = np.array([*kept, *known, *[-1] * (end - branch.end - len(known))], np.int32)
        uniforms = _uniforms(self.controls.seed, first, end - first)
        options = self.controls.temperature, self.controls.masked
        logits = self._older.logits  # of the first frame of a new branch: the last one of an older one is given
        planned, melody, branch.state = self._model.planned(logits, *before, given, uniforms, *options, branch.state)
        branch.chords += planned[len(kept) :].tolist()
        branch.melody += melody.tolist()

    def _planned(self, branch: _Branch, end: int) -> Planned:
        """The plan of a branch; beyond its end what the last plan said."""
        now, last = self.now, self._last_plan
        skipped, rest, until = now - branch.start, max(branch.end - last.base, 0), max(end - last.base, 0)
        chords = [*branch.chords[skipped : end - branch.start], *last.chords[rest:until]]
        melody = [*branch.melody[skipped:], *last.melody[max(rest - 1, 0) :]]
        return Planned(now, max(len(self.decided), now), tuple(chords), tuple(melody[: len(chords) - 1]))


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
