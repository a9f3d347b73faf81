"""Measures of a MusicXML part as they are written, and what several of them tell together: the melody, repeat signs,
ties, endings, the metre. Pure."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple
from xml.etree.ElementTree import Element

from gapt_jax.data_pipeline.importers.musicxml_harmony import semitones, whole
from gapt_jax.data_pipeline.importers.played import Measure, Written
from gapt_jax.data_pipeline.songs import BadSong

_MAX_VOICES = 8  # of a measure that may go on with the melody


class Sound(NamedTuple):
    """A note on paper, before it is known whether its voice is the melody."""

    onset: Fraction  # beats from its bar line
    offset: Fraction
    element: Element
    transpose: int


@dataclass
class WrittenMeasure(Measure):
    """A measure that knows more than what is played in it."""

    implicit: bool = False
    repeated: int = 0  # measures back to the one that a repeat sign stands for; 0: there is no such sign
    sounds: dict[str, list[Sound]] = field(default_factory=dict)  # by voice


def staff_of(element: Element) -> str:
    return (element.findtext("staff") or "1").strip()


def write_melody(measures: Sequence[WrittenMeasure], voices: Iterable[str]) -> None:
    """Fills in the notes: those of the first of the `voices` that has any, and in each measure those of the voices of
    the same staff that sound only while it is silent."""
    heard = {voice for measure in measures for voice in measure.sounds}
    main = next(voice for voice in voices if voice in heard)
    staff = next(staff_of(measure.sounds[main][0].element) for measure in measures if main in measure.sounds)
    for measure in measures:
        chosen = measure.sounds.pop(main, [])
        for sounds in itertools.islice(measure.sounds.values(), _MAX_VOICES):
            offered = [sound for sound in sounds if staff_of(sound.element) == staff]
            if not _overlap(chosen, offered):
                chosen = chosen + offered
        measure.notes = [_note(sound) for sound in sorted(chosen, key=lambda sound: sound.onset)]
        measure.sounds = {}


def _overlap(first: Iterable[Sound], second: Iterable[Sound]) -> bool:
    """Whether a note of the first sounds together with one of the second."""
    ends = [Fraction(0), Fraction(0)]
    spans = [(sound.onset, sound.offset, side) for side, sounds in enumerate((first, second)) for sound in sounds]
    for onset, offset, side in sorted(spans):
        if onset < ends[1 - side]:
            return True
        ends[side] = max(ends[side], offset)
    return False


def _note(sound: Sound) -> Written:
    written = sound.element.find("pitch")
    assert written is not None
    octave = whole(written.findtext("octave"), "octave of a note", -1, 10)
    pitch = 12 * (octave + 1) + semitones(written, "step", "alter", "note") + sound.transpose
    if not 0 <= pitch <= 127:
        raise BadSong("it has a note outside the MIDI pitches 0..127")
    ties = {tie.get("type") for tie in (*sound.element.findall("tie"), *sound.element.findall("notations/tied"))}
    return Written(sound.onset, sound.offset, pitch, "stop" in ties, "start" in ties)


def repeat_measures(measures: Sequence[WrittenMeasure]) -> None:
    """Fills in what stands for an earlier measure: its notes and its chords, but for one that sounds already."""
    sounding = None
    for place, measure in enumerate(measures):
        if 0 < measure.repeated <= place:
            source = measures[place - measure.repeated]
            measure.notes = measure.notes or list(source.notes)
            if not measure.changes:
                measure.changes = list(source.changes)
                if measure.changes and measure.changes[0][1] == sounding:
                    del measure.changes[0]
        if measure.changes:
            sounding = measure.changes[-1][1]


def join_ties(measures: Sequence[WrittenMeasure]) -> None:
    """States at both ends a tie that the file states at one only, where two notes of a pitch touch on paper."""
    ending: dict[tuple[Fraction, int], tuple[list[Written], int]] = {}  # (end, pitch) -> where that note is
    start = Fraction(0)
    for measure in measures:
        for place, note in enumerate(measure.notes):
            before = ending.get((start + note.onset, note.pitch))
            if before is not None:
                notes, index = before
                if notes[index].tied_on or note.tied_back:
                    notes[index] = notes[index]._replace(tied_on=True)
                    measure.notes[place] = note._replace(tied_back=True)
            ending[start + note.offset, note.pitch] = (measure.notes, place)
        start += measure.length


def take_chords(measures: Sequence[WrittenMeasure], others: Sequence[WrittenMeasure]) -> None:
    """The chords of another part, measure by measure."""
    for measure, other in zip(measures, others, strict=False):
        measure.changes = other.changes


def lengthen_endings(measures: Sequence[WrittenMeasure]) -> None:
    """Takes an ending on to its repeat sign where the bracket is drawn shorter, as it often is."""
    ended: frozenset[int] = frozenset()
    since = 0  # first measure after the last bracket
    for number_, measure in enumerate(measures):
        if measure.endings or measure.forward:
            ended, since = measure.endings, number_ + 1
        elif measure.passes and ended:
            following = measures[number_ + 1].endings if number_ + 1 < len(measures) else frozenset()
            if 1 in ended or min(following, default=0) > max(ended):
                for within in measures[since : number_ + 1]:
                    within.endings = ended
        if measure.passes:
            ended = frozenset()


def inferred_meter(lengths: Sequence[Fraction]) -> tuple[int, int]:
    """The metre that most measures fill, where a file gives none; of several that of about four beats. The first and
    the last, which may be parts of one, do not count where there are more than three."""
    counts = collections.Counter(lengths[1:-1] if len(lengths) > 3 else lengths)
    most = max(counts.values(), default=0)
    often = [length for length, count in counts.items() if count == most]
    length = min(often, key=lambda length: abs(length - 4), default=Fraction(4))
    units = (unit for unit in (4, 8, 16, 32) if (length * unit / 4).denominator == 1 and length * unit / 4 <= 64)
    unit = next(units, None)
    return (int(length * unit / 4), unit) if unit else (4, 4)
