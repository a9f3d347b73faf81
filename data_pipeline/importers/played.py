"""What is written in measures, played out: repeats, endings, ties across them. Pure; MusicXML and ABC read into it.

Jumps (D.C., D.S., coda) are not played.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.importers.score import MAX_EVENTS
from gapt_jax.data_pipeline.songs import MAX_BEATS, BadSong, Note

MAX_PASSES = 16  # times that a repeated section is played
Change = tuple[Fraction, Chord | None]


class Written(NamedTuple):
    """A note on paper: positions in beats from its bar line, and whether it is tied to notes around it."""

    onset: Fraction
    offset: Fraction
    pitch: int
    tied_back: bool
    tied_on: bool


@dataclass
class Measure:
    """What stands between two bar lines; `length` in beats."""

    length: Fraction = Fraction(0)
    notes: list[Written] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    later_changes: list[list[Change]] = field(default_factory=list)  # those of the second time, the third ...
    forward: bool = False  # a repeat begins here
    passes: int = 0  # times that the section is played which a repeat sign ends here; 0: none does
    endings: frozenset[int] = frozenset()  # passes that this measure belongs to; empty: all


def _sections(measures: Sequence[Measure]) -> Iterator[Sequence[Measure]]:
    """The measures in stretches that are repeated as a whole: up to a forward sign, a backward sign or the last of
    a row of endings. So a repeat within a repeat is played, and the outer one starts after it."""
    start = 0
    for end in range(1, len(measures) + 1):
        last, following = measures[end - 1], measures[end] if end < len(measures) else None
        finished = (last.passes or last.endings) and not (following and following.endings)
        if following is None or finished or following.forward:
            yield measures[start:end]
            start = end


def _heard(measure: Measure, time: int) -> Measure:
    """The measure with its chords of the `time`-th time, counted from 1; the last ones go on."""
    if time == 1 or not measure.later_changes:
        return measure
    return dataclasses.replace(measure, changes=measure.later_changes[min(time - 2, len(measure.later_changes) - 1)])


def play_order(measures: Sequence[Measure], time: int = 1) -> Iterator[Measure]:
    """The measures as they are heard; what no sign in them repeats has the chords of the `time`-th time."""
    for section in _sections(measures):
        numbered = frozenset[int]().union(*(measure.endings for measure in section))
        passes = max(measure.passes for measure in section)
        if passes == 0:  # endings that nothing repeats are played one after the other
            yield from (_heard(measure, time) for measure in section)
            continue
        passes = max(2, *numbered) if numbered else passes
        for pass_ in range(1, passes + 1):
            ending = _ending_of(pass_, numbered)
            for measure in section:
                if not measure.endings or ending in measure.endings:
                    yield _heard(measure, pass_)
                    if measure.passes and pass_ < passes:
                        break


def _ending_of(pass_: int, numbered: frozenset[int]) -> int:
    """The ending of a pass; one that is left out between others (1., 3.) has that of the pass before."""
    before = [ending for ending in numbered if ending <= pass_]
    return max(before, default=0) if any(ending >= pass_ for ending in numbered) else pass_


def performed(order: Iterable[Measure]) -> tuple[list[Note], list[tuple[float, Chord | None]], float]:
    """Notes with their ties joined, changes of chord, and the end in beats."""
    notes: list[tuple[Fraction, Fraction, int]] = []
    changes: list[tuple[Fraction, Chord | None]] = []
    tied: dict[int, int] = {}  # pitch -> index of the note that goes on
    start = Fraction(0)
    for count, measure in enumerate(order):
        changes += [(max(start + position, Fraction(0)), chord) for position, chord in measure.changes]
        for onset, offset, pitch, tied_back, tied_on in measure.notes:
            begun = tied.pop(pitch, None)
            if tied_back and begun is not None and notes[begun][1] == start + onset:
                notes[begun] = (notes[begun][0], start + offset, pitch)
            else:
                begun = len(notes)
                notes.append((start + onset, start + offset, pitch))
            if tied_on:
                tied[pitch] = begun
        start += measure.length
        if start > MAX_BEATS or max(count, len(notes), len(changes)) > MAX_EVENTS:
            raise BadSong(f"played out it has more than {MAX_BEATS} beats or {MAX_EVENTS} notes")
    played = [Note(float(onset), float(offset), pitch) for onset, offset, pitch in notes]
    return played, [(float(at), chord) for at, chord in changes if at < start], float(start)
