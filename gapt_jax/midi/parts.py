"""Which part of a MIDI file is the melody, which one the chords, and what chords they are."""

from __future__ import annotations

import dataclasses
import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from gapt_jax import chords
from gapt_jax.chords import Chord
from gapt_jax.midi.file import File, Harmony, Note, Track

ROLL, LONGEST_ROLL = 1 / 8, 1 / 2  # beats: between two notes of a rolled chord, and between its first and its last
_MANY_VOICES = 1.75  # that sound at a time on average: from here on a part plays chords
_MOST_NOTES = 50_000  # of a track
_MOVING = 3  # pitches that a melody has at least
_ACTIVE = 1 / 4  # of the beats in which the busiest part strikes, a melody strikes in more than this
_CHORDS = {"chord", "chords"}
_MELODY = {"melody", "melodie", "melodia", "melodi"}
_SUNG = {
    "vocal", "vocals", "voca", "voc", "vox", "vocalist", "voice", "voices", "voix", "voz", "voce", "sing", "singer",
    "singing", "singstimme", "chant", "canto", "gesang",
}  # fmt: skip
_LEAD = {"lead"}
_SECOND = {
    "back", "backing", "backup", "background", "bg", "bgv", "bv", "choir", "chorus", "counter", "harmony", "harmonies",
    "ooh", "oohs", "aah", "aahs",
}  # fmt: skip  # their owners sing along


@dataclass(frozen=True)
class Part:
    """Notes that one player plays: those of a track, or of a channel of it."""

    place: tuple[int, int]  # of its track in the file, and its first channel
    label: str = field(compare=False)  # as the user is told of it
    name: str = field(compare=False)  # of its track; empty where the track has other parts too
    notes: list[Note] = field(compare=False)
    track: Track = field(compare=False)


class Found(NamedTuple):
    """Chords in order of time, where they were found, as the user is told of it, and the part that plays chords."""

    harmony: list[Harmony]
    label: str
    part: Part | None


def parts_of(file: File) -> list[Part]:
    """A part for each track and channel that has notes; all of a track whose name tells what it plays is one part.

    Raises ValueError where a track has more notes than music has."""
    sounding = [track for track in file.tracks if track.notes]
    parts = []
    for number, track in enumerate(file.tracks):
        label = f'its track "{track.name}"' if track.name else f"its track {number + 1}"
        if len(track.notes) > _MOST_NOTES:
            raise ValueError(f"{label} has more than {_MOST_NOTES} notes: cut it")
        by_channel = {channel: notes for channel, notes in sorted(track.channels.items()) if notes}
        is_named = _rank(track.name) is not None or _plays_chords(track.name)
        if len(by_channel) == 1 or (by_channel and is_named and len(sounding) > 1):
            parts.append(Part((number, min(by_channel)), label, track.name, track.notes, track))
            continue
        for channel, notes in by_channel.items():
            where = f"its channel {channel + 1}" if len(sounding) == 1 else f"{label}, channel {channel + 1}"
            parts.append(Part((number, channel), where, "", notes, track))
    return parts


def melody_of(file: File) -> list[Note]:
    """The melody of a file, one note at a time. Raises ValueError where it has no notes."""
    return one_at_a_time(melody_part(file).notes)


def melody_part(file: File) -> Part:
    """The part that has the melody. Raises ValueError with the reason where there is none.

    It is the one named ``melody``, or else one whose name says that it leads or sings. Where no name tells, it is, of
    the parts that play a note at a time, have three pitches and strike in more than a quarter of the beats of the
    busiest, the one with the highest mean pitch; a rule that none of them meets is left out.
    """
    parts = parts_of(file)
    for rank in range(4):
        found = [part for part in parts if _rank(part.name) == rank and (rank == 0 or not _is_chordal(part))]
        if found:
            return _highest(found)
    for track in file.tracks:
        if not track.notes and _rank(track.name) == 0:
            drums = f"the notes of its track {track.name} are drums (channel 10)"
            cause = drums if track.drums else "give a file with a melody"
            raise ValueError(f"it has no notes in its melody track: {cause}")
    if not parts:
        only_drums = any(track.drums for track in file.tracks)
        cause = "all its notes are drums (channel 10)" if only_drums else "give a file with a melody"
        raise ValueError(f"it has no notes: {cause}")
    return _highest([part for part in parts if not _plays_chords(part.name)] or parts)


def _highest(parts: list[Part]) -> Part:
    parts = [part for part in parts if not _is_chordal(part)] or parts
    parts = [part for part in parts if len({note.pitch for note in part.notes}) >= _MOVING] or parts
    beats = [len({int(note.onset) for note in part.notes}) for part in parts]
    parts = [part for part, count in zip(parts, beats, strict=True) if count > _ACTIVE * max(beats)]
    return max(parts, key=lambda part: float(np.mean([note.pitch for note in part.notes])))


def _words(name: str) -> set[str]:
    """Words of a track's name in small letters without accents; ``LeadVocal2`` has two."""
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name))
    letters = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return set(re.findall(r"[a-z]+", letters.lower()))


def _rank(name: str) -> int | None:
    """How surely a name is that of the melody, from 0; None: it says nothing of the kind."""
    words = _words(name)
    if words & _SECOND:
        return None
    signs = (words & _MELODY, words & _LEAD and words & _SUNG, words & _SUNG, words & _LEAD)
    return next((rank for rank, sign in enumerate(signs) if sign), None)


def _plays_chords(name: str) -> bool:
    words = _words(name)
    return words == {"harmony"} or (bool(words & _CHORDS) and not words & _SUNG)


def one_at_a_time(notes: Sequence[Note]) -> list[Note]:
    """A later note cuts the one before; of notes struck together the highest stays."""
    highest = {note.onset: note for note in sorted(notes, key=lambda note: note.pitch)}
    ordered = [highest[onset] for onset in sorted(highest)]
    nexts = [note.onset for note in ordered[1:]] + [float("inf")]
    return [note._replace(offset=min(note.offset, cut)) for note, cut in zip(ordered, nexts, strict=True)]


def _voices(notes: Sequence[Note]) -> float:
    """Notes that sound at a time, on average over the time in which any does."""
    played, covered, end = 0.0, 0.0, 0.0
    for onset, offset, _ in sorted(notes):
        played += offset - onset
        covered += max(0.0, offset - max(onset, end))
        end = max(end, offset)
    return played / covered if covered else 0.0


def _is_chordal(part: Part) -> bool:
    return _voices(part.notes) >= _MANY_VOICES


def chords_of(file: File) -> list[Harmony]:
    """The chords of a file in order of time (`find_chords`)."""
    try:
        melody = melody_part(file)
    except ValueError:
        melody = None
    return find_chords(file, melody).harmony


def find_chords(file: File, melody: Part | None) -> Found:
    """The chords of a file; none where it has none.

    They are looked for in the track named ``chords``, or else, the melody aside, in the part with the most notes at a
    time. Texts that are chord symbols name the chords: those that stand at each stroke of that part, or else those of
    any track, each until the next. Letters alone may be rehearsal marks and count only where no part plays chords.
    Otherwise chords are recognised from the notes that sound, and the lowest is the bass.
    """
    part = _chord_part(parts_of(file), melody)
    if part and (named := _named_strokes(part)):
        return Found(named, part.label, part)
    if symbols := _written(file, with_letters=part is None):
        return Found(_until_the_next(symbols, file.beats), "the names in its texts", part)
    return Found(_recognised(part), part.label, part) if part else Found([], "", None)


def _chord_part(parts: list[Part], melody: Part | None) -> Part | None:
    named = [part for part in parts if _plays_chords(part.name)]
    others = [part for part in parts if part != melody]
    together: list[Part] = []
    for _, group in itertools.groupby(others, key=lambda part: part.place[0]):
        first, *rest = group
        notes = [note for part in (first, *rest) for note in part.notes]
        together += [dataclasses.replace(first, label=f"{first.label} and others", notes=notes)] if rest else []
    alone = [melody] if melody and _rank(melody.name) is None else []
    for choice in (named, *([part for part in some if _is_chordal(part)] for some in (others, together, alone))):
        if choice:
            return max(choice, key=lambda part: _voices(part.notes))
    return None


def _symbol(text: str) -> Chord | None:
    """The chord that a text names, None for silence. Raises ValueError where it names neither."""
    if chords.is_no_chord(text):
        return None
    if text[:1] != text[:1].upper():
        raise ValueError(f"words begin with small letters: {text!r}")
    return chords.parse(text)


def _symbols(texts: Iterable[tuple[float, str]]) -> dict[float, Chord | None]:
    """The texts that are chord symbols, by their beats; of those at one beat the last."""
    found: dict[float, Chord | None] = {}
    for beat, text in texts:
        try:
            found[beat] = _symbol(text)
        except ValueError:
            continue
    return found


def _named_strokes(part: Part) -> list[Harmony]:
    """Where every stroke of a part has its symbol, and no symbol stands elsewhere: the chords by these names."""
    texts = list(itertools.chain(*part.track.texts.values()))
    symbols = _symbols(texts)
    ends: dict[float, float] = defaultdict(float)
    for note in part.notes:
        ends[note.onset] = max(ends[note.onset], part.track.held.get(note, note.offset))
    if set(symbols) != set(ends) or len({beat for beat, _ in texts}) > len(symbols):
        return []
    return [Harmony(beat, ends[beat], chord) for beat, chord in sorted(symbols.items()) if chord is not None]


def _written(file: File, *, with_letters: bool) -> dict[float, Chord | None]:
    """The symbols of the texts of one kind in one track: where half of them or more are symbols, the most of them."""
    best: dict[float, Chord | None] = {}
    for track in file.tracks:
        for texts in track.texts.values():
            symbols = _symbols(texts)
            names = [text for beat, text in texts if beat in symbols]
            letters = [name for name in names if re.fullmatch(r"[A-H][1-4]?", name)]
            are_chords = with_letters and not _count_up(names) if len(letters) == len(names) else True
            if are_chords and 2 * len(names) >= len(texts) and len(symbols) > len(best) and any(symbols.values()):
                best = symbols
    return best


def _count_up(names: Sequence[str]) -> bool:
    """Whether letters come up in the order of the alphabet, as rehearsal marks do: A, A, B, A, C."""
    first_seen = list(dict.fromkeys(name[:1] for name in names))
    return "ABCDEFGH".startswith("".join(first_seen))


def _until_the_next(symbols: dict[float, Chord | None], end: float) -> list[Harmony]:
    ordered = sorted(symbols)
    spans = zip(ordered, [*ordered[1:], end], strict=True)
    return [Harmony(beat, until, chord) for beat, until in spans if (chord := symbols[beat]) and until > beat]


def _strokes(notes: Iterable[Note]) -> list[list[Note]]:
    """Notes struck together or in a roll, in order of time: each shortly after the last, the others still sounding."""
    strokes: list[list[Note]] = []
    for note in sorted(notes):
        last = strokes[-1] if strokes else [note]
        is_near = note.onset - last[-1].onset <= ROLL and note.onset - last[0].onset <= LONGEST_ROLL
        if strokes and is_near and all(_goes_with(other, note) for other in last):
            last.append(note)
        else:
            strokes.append([note])
    return strokes


def _goes_with(note: Note, later: Note) -> bool:
    """Whether two notes sound together for half of the shorter one, at least."""
    shared = min(note.offset, later.offset) - later.onset
    return note.onset == later.onset or shared >= min(note.offset - note.onset, later.offset - later.onset) / 2


def _recognised(part: Part) -> list[Harmony]:
    found: list[Harmony] = []
    sounding: list[Note] = []
    held = part.track.held
    for stroke in _strokes(part.notes):
        onset = stroke[0].onset
        sounding = [note for note in sounding if note.offset > stroke[-1].onset + ROLL] + stroke
        if found and found[-1].offset > onset:
            found[-1] = found[-1]._replace(offset=onset)
        chord = recognise([note.pitch for note in sounding])
        found.append(Harmony(onset, max(held.get(note, note.offset) for note in sounding), chord))
    return found


def recognise(pitches: Sequence[int]) -> Chord:
    """The chord of some pitches, at least one. Its root is the lowest of them from which the rest has a name;
    where none has, the lowest pitch, and the chord is what its intervals are."""
    classes = [pitch % 12 for pitch in sorted(pitches)]
    for root in dict.fromkeys(classes):
        intervals = chords.fold(pc - root for pc in classes)
        if chords.is_named(intervals):
            return Chord(root, intervals, classes[0])
    return Chord(classes[0], chords.fold(pc - classes[0] for pc in classes), classes[0])
