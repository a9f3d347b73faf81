"""A lead sheet in MusicXML (score-partwise), plain or compressed (.mxl), at sounding pitch.

The melody is the first part with notes: its first voice, and another one of that staff in measures where the first has
nothing to play. The chords are that part's symbols, else the first other part's: ``<harmony>``, or typed as text.
Repeats and endings are played out, measures with a repeat sign too; jumps (D.C., D.S., coda) are not. Left out are
grace and cue notes, and slashes, which mark a rhythm.
"""

from __future__ import annotations

import re
from fractions import Fraction
from xml.etree.ElementTree import Element

from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.importers import musicxml_file
from gapt_jax.data_pipeline.importers.musicxml_harmony import (
    lone_letter,
    number,
    read_chord,
    shown,
    typed_chords,
    whole,
)
from gapt_jax.data_pipeline.importers.musicxml_measures import (
    Sound,
    WrittenMeasure,
    inferred_meter,
    join_ties,
    lengthen_endings,
    repeat_measures,
    staff_of,
    take_chords,
    write_melody,
)
from gapt_jax.data_pipeline.importers.played import MAX_PASSES, performed, play_order
from gapt_jax.data_pipeline.importers.score import MAX_EVENTS, Score, held
from gapt_jax.data_pipeline.songs import MAX_BEATS, BadSong

_MAX_DIVISIONS = 1_000_000  # a quarter note
_MAX_CHANGES_OF_DIVISIONS = 16  # distinct values: positions keep a small common denominator
_ENDING = re.compile(r"[0-9]{1,3}\.?(?:[ ,]+[0-9]{1,3}\.?){0,15}")


def read(content: bytes, stem: str) -> Score:
    """The score of one file; `stem`, its name without the ending, becomes the name.

    Raises BadSong with the reason where it is no MusicXML that can be played.
    """
    root = musicxml_file.tree(content)
    if root.tag == "score-timewise":
        raise BadSong("it is score-timewise: convert it to score-partwise")
    if root.tag != "score-partwise":
        raise BadSong(f"its root element is {shown(root.tag)}, not 'score-partwise'")
    part, reader = _melody_part(root)
    measures = reader.measures
    write_melody(measures, reader.voices)
    repeat_measures(measures)
    join_ties(measures)
    with_chords = next((other for other in (part, *root.iterfind("part")) if _has_chords(other)), part)
    if with_chords is not part:
        take_chords(measures, _Reader(with_chords).measures)
    lengthen_endings(measures)
    first, bar = measures[0], _bar(reader.first_meter)
    notes, changes, end = performed(play_order(measures))
    is_pickup = first.length < bar or (first.implicit and first.length == bar)
    return Score(
        name=stem,
        title=_title(root),
        meter=reader.first_meter,
        pickup=float(first.length) if is_pickup else 0.0,
        beats_total=end,
        notes=notes,
        chords=held(changes, end),
    )


def _title(root: Element) -> str | None:
    titles = (" ".join((root.findtext(path) or "").split()) for path in ("work/work-title", "movement-title"))
    return next(filter(None, titles), None)


def _voice(note: Element) -> str:
    return (note.findtext("voice") or "1").strip()


def _is_pitched(note: Element) -> bool:
    """Whether a note is played with a pitch: no rest, no drum, no grace or cue note."""
    return note.find("pitch") is not None and note.find("grace") is None and note.find("cue") is None


def _melody_part(root: Element) -> tuple[Element, _Reader]:
    """The first part with notes."""
    pitched = False
    for part in root.iterfind("part"):
        if any(map(_is_pitched, part.iterfind("measure/note"))):
            pitched = True
            reader = _Reader(part)
            if any(measure.sounds for measure in reader.measures):
                return part, reader
    raise BadSong("its notes are all slashes, which mark a rhythm: it has no melody" if pitched else "it has no notes")


def _texts(direction: Element) -> list[str]:
    """What is written above the staff at one place, but for what is boxed: all of it as one text, then each."""
    words = direction.iterfind("direction-type/words")
    texts = [word.text or "" for word in words if word.get("enclosure", "none") == "none"]
    return ["".join(texts), *texts]


def _has_symbols(part: Element) -> bool:
    return any(harmony.get("type") != "alternate" for harmony in part.iterfind("measure/harmony"))


def _has_typed(part: Element) -> bool:
    texts = (text for direction in part.iterfind("measure/direction") for text in _texts(direction))
    return any(any(typed_chords(text)) for text in texts)


def _letters_are_chords(part: Element) -> bool:
    """Whether lone letters above the staff (A, F) are chords. They are where all chords are typed, one beyond doubt;
    elsewhere not while they may name sections: these are lettered in order."""
    texts = (_texts(direction)[0] for direction in part.iterfind("measure/direction"))
    letters = "".join(dict.fromkeys(map(lone_letter, texts)))
    typed = _has_typed(part)
    if typed and not _has_symbols(part):
        return True
    return not "ABCDEFG".startswith(letters) and (typed or len(letters) > 1)


def _has_chords(part: Element) -> bool:
    return _has_symbols(part) or _has_typed(part) or _letters_are_chords(part)


class _Reader:
    """Measures of a part as they are written; holds what lasts from one measure to the next."""

    def __init__(self, part: Element) -> None:
        self.voices: dict[str, None] = {}  # in the order of their first notes or rests
        self._letters = _letters_are_chords(part)
        self._slashed: frozenset[str] = frozenset()  # staves where notes mark a rhythm now; "" is all of them
        self._repeated = 0
        self._divisions: Fraction | None = None
        self._seen_divisions: set[Fraction] = set()
        self._meters: list[tuple[int, int]] = []
        self._transpose = 0  # semitones from written to sounding pitch
        self._endings: frozenset[int] = frozenset()
        measures = part.findall("measure")
        if len(measures) > MAX_EVENTS:
            raise BadSong(f"it has more than {MAX_EVENTS} notes or measures")
        self.measures = [self._measure(measure) for measure in measures]
        filled = [measure.length for measure in self.measures if measure.length]
        self.first_meter = self._meters[0] if self._meters else inferred_meter(filled)
        for measure in self.measures:
            measure.length = measure.length or _bar(self.first_meter)

    def _measure(self, element: Element) -> WrittenMeasure:
        measure = WrittenMeasure(implicit=element.get("implicit") == "yes", repeated=self._repeated)
        typed: list[tuple[Fraction, Chord | None]] = []
        onset = position = Fraction(0)
        ends = False  # an ending ends with this measure
        for child in element:
            match child.tag:
                case "attributes":
                    self._attributes(child, measure)
                case "note" if child.find("grace") is None:
                    length = self._beats(child)
                    if child.find("chord") is None:
                        onset, position = position, position + length
                    measure.length = max(measure.length, onset + length)
                    self.voices.setdefault(_voice(child))
                    if _is_pitched(child) and length > 0 and not self._is_slash(child):
                        sound = Sound(onset, onset + length, child, self._transpose)
                        measure.sounds.setdefault(_voice(child), []).append(sound)
                case "backup":  # rounded lengths may lead to before the bar line
                    position = max(position - self._beats(child), Fraction(0))
                case "forward":  # no more than a metre's worth, so that a rounded length moves no bar line
                    position += self._beats(child)
                    reached = min(position, _bar(self._meters[-1])) if self._meters else position
                    measure.length = max(measure.length, reached)
                case "harmony" if child.get("type") != "alternate":
                    measure.changes.append((position + self._offset(child), read_chord(child, self._transpose)))
                case "direction":
                    for chord in self._typed_chords(child):
                        typed.append((position + self._offset(child), chord))
                case "barline":
                    ends |= self._barline(child, measure)
        # Of a symbol and a text at the same place the symbol, which comes last, counts.
        measure.changes = sorted([*typed, *measure.changes], key=lambda change: change[0])
        measure.endings = self._endings
        if ends or measure.passes:
            self._endings = frozenset()
        if not measure.length and self._meters:
            measure.length = _bar(self._meters[-1])
        if measure.length > MAX_BEATS:
            raise BadSong(f"it has a measure of more than {MAX_BEATS} beats")
        return measure

    def _attributes(self, element: Element, measure: WrittenMeasure) -> None:
        if (divisions := element.findtext("divisions")) is not None:
            self._divisions = number(divisions, "number of divisions")
            if not 0 < self._divisions <= _MAX_DIVISIONS:
                raise BadSong(f"its number of divisions is {shown(divisions)}, not in 1..{_MAX_DIVISIONS}")
            self._seen_divisions.add(self._divisions)
            if len(self._seen_divisions) > _MAX_CHANGES_OF_DIVISIONS:
                raise BadSong(f"it has more than {_MAX_CHANGES_OF_DIVISIONS} different numbers of divisions")
        if (time := element.find("time")) is not None and time.find("beats") is not None:
            self._meters.append(_read_meter(time))
        if (transpose := element.find("transpose")) is not None:
            octaves = whole(transpose.findtext("octave-change") or "0", "octave change", -8, 8)
            self._transpose = whole(transpose.findtext("chromatic"), "transposition", -48, 48) + 12 * octaves
        for style in element.iterfind("measure-style"):
            self._style(style, measure)

    def _style(self, style: Element, measure: WrittenMeasure) -> None:
        """Where slashes stand for notes, and measures for earlier ones."""
        staff = style.get("number", "")
        for sign in style:
            starts = sign.get("type") == "start"
            if sign.tag == "slash":
                self._slashed = self._slashed | {staff} if starts else self._slashed - {staff}
            elif sign.tag == "measure-repeat" and staff in ("", "1"):
                self._repeated = whole(sign.text or "1", "number of repeated measures", 1, 64) if starts else 0
                if starts or not measure.length:  # one that stops after the notes holds for this measure
                    measure.repeated = self._repeated

    def _is_slash(self, note: Element) -> bool:
        slashed = (note.findtext("notehead") or "").strip() == "slash"
        return slashed or not self._slashed.isdisjoint(("", staff_of(note)))

    def _offset(self, element: Element) -> Fraction:
        """Beats from where a symbol or a text stands to where it counts."""
        offset = number(element.findtext("offset") or "0", "harmony offset")
        return offset / self._per_beat() if offset else offset

    def _typed_chords(self, direction: Element) -> list[Chord | None]:
        found = (typed_chords(text, self._transpose, self._letters) for text in _texts(direction))
        return next(filter(None, found), [])

    def _per_beat(self) -> Fraction:
        if self._divisions is None:
            raise BadSong("it gives no divisions of a quarter note before its first note or chord")
        return self._divisions

    def _beats(self, element: Element) -> Fraction:
        duration = number(element.findtext("duration"), "duration")
        if duration < 0:
            raise BadSong(f"its duration is {shown(element.findtext('duration'))}, less than nothing")
        return duration / self._per_beat()

    def _barline(self, barline: Element, measure: WrittenMeasure) -> bool:
        """Notes the repeat and the ending of a bar line; whether an ending ends with this measure."""
        ends = False
        if (repeat := barline.find("repeat")) is not None and repeat.get("direction") == "forward":
            measure.forward, self._endings = True, frozenset()
        elif repeat is not None:
            measure.passes = whole(repeat.get("times", "2"), "number of repeats", 1, MAX_PASSES)
        if (ending := barline.find("ending")) is not None:
            if ending.get("type") == "start":
                self._endings = _read_endings(ending.get("number", ""))
            elif barline.get("location") == "left":
                self._endings = frozenset()
            else:
                ends = True
        return ends


def _bar(meter: tuple[int, int]) -> Fraction:
    return Fraction(4 * meter[0], meter[1])


def _read_meter(time: Element) -> tuple[int, int]:
    """Metre of a ``<time>``; sums (3+2 over 8, or 3/8 and 2/4) are one long bar."""
    parts = [
        (sum(whole(beat, "metre", 1, 64) for beat in (beats.text or "").split("+")), whole(unit.text, "metre", 1, 32))
        for beats, unit in zip(time.findall("beats"), time.findall("beat-type"), strict=False)
    ]
    finest = max((unit for _, unit in parts), default=0)
    total = sum(beats * finest // unit for beats, unit in parts)
    if not 1 <= total <= 64 or any(unit & (unit - 1) for _, unit in parts):
        raise BadSong("its metre is none of 1 to 64 beats over 1, 2, 4, 8, 16 or 32")
    return total, finest


def _read_endings(text: str) -> frozenset[int]:
    """Passes of an ending, ``"1, 2" -> {1, 2}``; an ending without a number belongs to all."""
    stripped = text.strip()
    if not stripped:
        return frozenset()
    passes = frozenset(map(int, re.findall("[0-9]+", stripped))) if _ENDING.fullmatch(stripped) else frozenset()
    if not passes or not all(1 <= pass_ <= MAX_PASSES for pass_ in passes):
        raise BadSong(f"it has an ending of the number {shown(text)}, not of passes in 1..{MAX_PASSES}")
    return passes
