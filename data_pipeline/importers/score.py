"""A tune as a file tells it, before it is a song record, and the way to the record. Pure: no files.

Positions are quarter-note beats from the start of the tune.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gapt_jax import chords
from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.examples import split_of
from gapt_jax.data_pipeline.hygiene import melody_key
from gapt_jax.data_pipeline.songs import (
    MAX_BEATS,
    MAX_TEXT,
    BadSong,
    ChordEvent,
    Note,
    Song,
    parse_song,
    to_record,
)

_Event = TypeVar("_Event", Note, ChordEvent)
MAX_EVENTS = 50_000  # notes, or chords, of one tune


@dataclass(frozen=True)
class Score:
    """One tune: `notes` may overlap and come in any order, so may `chords`; `to_song` makes them one at a time."""

    name: str  # unique in its dataset: the file stem, and the number of the tune in a tune book
    title: str | None
    meter: tuple[int, int]
    pickup: float  # beats before the first bar line
    beats_total: float
    notes: Sequence[Note]
    chords: Sequence[ChordEvent]
    line: int = 1  # of the file, where the tune begins
    group: str | None = None  # tunes of one group stay in one split; None: that of its melody
    source: str | None = None  # which parts of the file were taken, where there was a choice


def held(changes: Iterable[tuple[float, Chord | None]], end: float) -> list[ChordEvent]:
    """Chords that last until the next change, the last one until `end`; None ends a chord. In order of time;
    of changes at the same time the last counts."""
    latest = dict(sorted(changes, key=lambda change: change[0]))
    starts = [*latest, end]
    return [
        chord_event(onset, offset, chord)
        for (onset, chord), offset in zip(latest.items(), starts[1:], strict=True)
        if chord is not None and offset > onset
    ]


def chord_event(onset: float, offset: float, chord: Chord) -> ChordEvent:
    """A chord in time, named by our own spelling."""
    return ChordEvent(onset, offset, chord.root, chord.intervals, chord.bass, chords.symbol(chord))


def _position(value: float) -> float:
    if not 0 <= value <= MAX_BEATS:
        raise BadSong(f"it is longer than {MAX_BEATS} beats, or begins before its start")
    return round(float(value), 6)


def _one_at_a_time(events: Sequence[_Event], last_wins: Callable[[_Event], float]) -> list[_Event]:
    """Events in order, each cut by the next. Of those that start together the greatest by `last_wins` stays."""
    if len(events) > MAX_EVENTS:
        raise BadSong(f"it has more than {MAX_EVENTS} notes or chords")
    placed = [event._replace(onset=_position(event.onset), offset=_position(event.offset)) for event in events]
    at = {event.onset: event for event in sorted(placed, key=last_wins) if event.offset > event.onset}
    if not at:
        raise BadSong("no note, or no chord, ends after it starts")
    ordered = [at[onset] for onset in sorted(at)]
    nexts = [event.onset for event in ordered[1:]] + [float(MAX_BEATS)]
    return [event._replace(offset=min(event.offset, cut)) for event, cut in zip(ordered, nexts, strict=True)]


def to_song(score: Score, dataset: str) -> Song:
    """The record of a tune. Of notes struck together the highest stays, a later one cuts the one before.

    Raises BadSong with the reason where it cannot be one (no notes, no chords, positions that make no sense).
    """
    if not score.notes:
        raise BadSong("it has no notes")
    if not score.chords:
        raise BadSong("it has no chord symbols")
    melody = _one_at_a_time(score.notes, lambda note: note.pitch)
    harmony = _one_at_a_time(score.chords, lambda chord: chord.onset)
    identity = f"{dataset}/{score.name}"[:MAX_TEXT]
    key = melody_key(melody)
    group = score.group or (f"melody:{key}" if key else identity)
    title = (score.title or "").replace("\0", "").strip()[:MAX_TEXT]
    song = Song(
        id=identity,
        dataset=dataset,
        title=title or None,
        split=split_of(group),
        group=group,
        meter=score.meter,
        pickup=_position(score.pickup),
        beats_total=_position(score.beats_total),
        melody=tuple(melody),
        chords=tuple(harmony),
    )
    return parse_song(to_record(song))
