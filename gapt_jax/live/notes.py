"""What the engine hears of a player of notes, and how notes and chords are shown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gapt_jax import chords
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, NUM_PITCHES, SILENCE, Vocabulary

VELOCITY = 80  # of a key where nothing is said of it


class Event(NamedTuple):
    """A key goes down or up in a frame."""

    frame: int
    on: bool
    pitch: int
    velocity: int = VELOCITY


class NoteEar:
    """Makes note tokens of keys that go down and up: `live.engine.Ear`."""

    def __init__(self) -> None:
        self.sounding: int | None = None  # pitch of the player's note

    def token(self, events: Iterable[Event]) -> int:
        """The note token of a frame: its newest onset, else what goes on sounding."""
        token = None
        released = False
        for event in events:
            if event.on:
                self.sounding, token, released = event.pitch, NOTE_ONSET + event.pitch, False
            elif event.pitch == self.sounding:
                released = True
        if token is None:
            token = SILENCE if released or self.sounding is None else NOTE_HOLD + self.sounding
        if released:  # a note shorter than a frame still gets one
            self.sounding = None
        return token


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
            pitches = chords.pitches(vocabulary.roots[chord], classes)
            entries.append({"f": frame, "sym": vocabulary.names[chord], "pitches": pitches, "on": is_onset})
        before = token
    return entries


def _held(token: int, vocabulary: Vocabulary) -> int:
    """A chord token as it goes on in the next frame."""
    return token - vocabulary.num_chords if token >= vocabulary.chord_onset else token


def note_entries(first: int, tokens: Iterable[int]) -> list[dict[str, Any]]:
    """Notes of note tokens from frame `first` on; silent frames are left out."""
    return [
        {"f": frame, "p": (token - NOTE_HOLD) % NUM_PITCHES, "on": token >= NOTE_ONSET}
        for frame, token in enumerate(tokens, start=first)
        if NOTE_HOLD <= token < CHORD_HOLD
    ]


class ChordRun(NamedTuple):
    """A chord from its strike to the frame after its last."""

    start: int
    end: int
    sym: str
    pitches: list[int]


def chord_runs(entries: Iterable[dict[str, Any]]) -> list[ChordRun]:
    """Chords from strike to end, of `chord_entries`; silence is left out."""
    runs: list[ChordRun] = []
    for entry in entries:
        frame, pitches = entry["f"], entry["pitches"]
        if pitches and not entry["on"] and runs and runs[-1].end == frame:
            runs[-1] = runs[-1]._replace(end=frame + 1)
        elif pitches:
            runs.append(ChordRun(frame, frame + 1, entry["sym"], pitches))
    return runs


class NoteRun(NamedTuple):
    """A note from its onset to the frame after its last."""

    start: int
    end: int
    pitch: int


def note_runs(tokens: Iterable[int]) -> list[NoteRun]:
    """Notes of note tokens, from frame 0 on."""
    runs: list[NoteRun] = []
    for entry in note_entries(0, tokens):
        frame, pitch = entry["f"], entry["p"]
        if not entry["on"] and runs and runs[-1].end == frame and runs[-1].pitch == pitch:
            runs[-1] = runs[-1]._replace(end=frame + 1)
        else:
            runs.append(NoteRun(frame, frame + 1, pitch))
    return runs
