"""Songs to look at and to hear on the page: notes as JSON, sound by WebAudio, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gapt_jax import chords as chord_names
from gapt_jax.evaluation.results import Study
from gapt_jax.report.html import render
from gapt_jax.report.samples import Sample, samples
from gapt_jax.tasks.accompaniment.events import chord_events
from gapt_jax.vocabulary import FRAMES_PER_BEAT, Vocabulary

if TYPE_CHECKING:
    from gapt_jax.report.drawing import Drawn

BEATS_PER_MINUTE = 100
TEMPLATES = Path(__file__).parent / "templates"


def script() -> str:
    """What plays the songs that `section` shows."""
    return (TEMPLATES / "player.js").read_text(encoding="utf-8")


def section(study: Study, rolls: Sequence[Drawn]) -> str:
    """The piano rolls, each with a button per system and a slider for the place, and their notes for `script`."""
    from gapt_jax.tasks.accompaniment.piano_roll import LEFT, RIGHT, vocabulary_of

    vocabulary, found = vocabulary_of(study), samples(study)
    notes = [
        {
            "beats": _beats(song),
            "melody": melody_notes(song.context[: 4 * _beats(song)], vocabulary),
            "systems": {s: chord_notes(c[: 4 * _beats(song)], vocabulary) for s, c in song.actions.items()},
        }
        for song in found
    ]
    shown = [
        {"roll": roll, "beats": _beats(song), "systems": {system: study.name(system) for system in song.actions}}
        for song, roll in zip(found, rolls, strict=True)
    ]
    data = {"songs": notes, "bpm": BEATS_PER_MINUTE, "left": LEFT, "right": RIGHT}
    return render("listen.html", TEMPLATES, songs=shown, bpm=BEATS_PER_MINUTE, data=data) if shown else ""


def melody_notes(melody: np.ndarray, vocabulary: Vocabulary) -> list[list[float]]:
    """[first beat, beats, MIDI pitch] of the notes of melody [T]."""
    tables = vocabulary.tables
    pitch = np.where(tables.is_note[melody], tables.event[melody], -1)
    begins = np.flatnonzero(np.append(True, (pitch[1:] != pitch[:-1]) | tables.is_onset[melody][1:]))
    ends = np.append(begins[1:], len(melody))
    return [
        [b / FRAMES_PER_BEAT, (e - b) / FRAMES_PER_BEAT, int(pitch[b])]
        for b, e in zip(begins.tolist(), ends.tolist(), strict=True)
        if len(melody) and pitch[b] >= 0
    ]


def chord_notes(chords: np.ndarray, vocabulary: Vocabulary) -> list[list[Any]]:
    """[first beat, beats, MIDI pitches] of the chords of chords [T]."""
    events = chord_events(chords[None], vocabulary.tables)
    found = []
    for frame, length, chord in zip(events.frame.tolist(), events.length.tolist(), events.chord.tolist(), strict=True):
        classes = np.flatnonzero(vocabulary.chord_pitch_classes[chord]).tolist()
        sounding = chord_names.pitches(vocabulary.roots[chord], classes)
        found.append([frame / FRAMES_PER_BEAT, length / FRAMES_PER_BEAT, sounding])
    return found


def _beats(song: Sample) -> int:
    from gapt_jax.tasks.accompaniment.piano_roll import frames_of

    return frames_of(song) // FRAMES_PER_BEAT
