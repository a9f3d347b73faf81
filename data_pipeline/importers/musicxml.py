"""A lead sheet in MusicXML (score-partwise), plain or compressed (.mxl): the first voice of its first part with
notes, and that part's chord symbols, at sounding pitch.

Repeats and endings are played out; jumps (D.C., D.S., coda) are not. Grace and cue notes are left out.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from data_pipeline.importers.musicxml_harmony import number, read_chord, semitones, shown, whole
from data_pipeline.importers.played import MAX_PASSES, Measure, Written, performed, play_order
from data_pipeline.importers.score import Score, held
from data_pipeline.songs import MAX_BEATS, BadSong

_MAX_BYTES = 16 << 20
_MAX_TAGS = 1_000_000
_MAX_MEMBERS = 64
_MAX_DIVISIONS = 1_000_000  # a quarter note
_MAX_CHANGES_OF_DIVISIONS = 16  # distinct values: positions keep a small common denominator
_CONTAINER = "META-INF/container.xml"
_ENDING = re.compile(r"[0-9]{1,3}\.?(?:[ ,]+[0-9]{1,3}\.?){0,15}")
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, LookupError)


@dataclass
class _Measure(Measure):
    implicit: bool = False


def read(content: bytes, stem: str) -> Score:
    """The score of one file; `stem`, its name without the ending, becomes the name.

    Raises BadSong with the reason where it is no MusicXML that can be played.
    """
    if len(content) > _MAX_BYTES:
        raise BadSong(f"it is larger than {_MAX_BYTES >> 20} MiB")
    root = _tree(_unzipped(content) if content.startswith(b"PK") else content)
    if root.tag == "score-timewise":
        raise BadSong("it is score-timewise: convert it to score-partwise")
    if root.tag != "score-partwise":
        raise BadSong(f"its root element is {shown(root.tag)}, not 'score-partwise'")
    reader = _Reader(*_melody_part(root))
    _lengthen_endings(reader.measures)
    first = reader.measures[0]
    notes, changes, end = performed(play_order(reader.measures))
    short = first.implicit or first.length < reader.first_bar
    return Score(
        name=stem,
        title=_title(root),
        meter=reader.first_meter,
        pickup=float(first.length) if short else 0.0,
        beats_total=end,
        notes=notes,
        chords=held(changes, end),
    )


def _unzipped(content: bytes) -> bytes:
    """The MusicXML file in a .mxl archive; nothing is written to disk."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _member(archive, _root_file(archive))
    except BadSong:
        raise
    except _DAMAGED as error:
        raise BadSong("its archive is damaged or truncated") from error


def _root_file(archive: zipfile.ZipFile) -> str:
    names = archive.namelist()
    if len(names) > _MAX_MEMBERS:
        raise BadSong(f"its archive has more than {_MAX_MEMBERS} files")
    if _CONTAINER in names and (named := _named_root(_member(archive, _CONTAINER))) in names:
        return str(named)
    scores = [
        name for name in names if name.lower().endswith((".xml", ".musicxml")) and not name.startswith("META-INF/")
    ]
    if not scores:
        raise BadSong("its archive has no MusicXML file")
    return scores[0]


def _named_root(container: bytes) -> str | None:
    """Path of the first root file; None where there is none or the container cannot be read: OpenEWLD writes file
    names with apostrophes into it unescaped."""
    try:
        first = _tree(container).find("rootfiles/rootfile")
    except BadSong:
        return None
    return None if first is None else first.get("full-path")


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise BadSong("its archive is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others cannot be read in bounds
        raise BadSong("its archive is not compressed by Deflate")
    with archive.open(info) as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise BadSong(f"its archive holds a file of more than {_MAX_BYTES >> 20} MiB")
    return content


def _tree(content: bytes) -> Element:
    if content.count(b"<") > _MAX_TAGS:
        raise BadSong(f"it has more than {_MAX_TAGS} tags")
    try:
        return defusedxml.ElementTree.fromstring(content)
    except DefusedXmlException as error:
        raise BadSong("its XML declares entities, which are refused") from error
    except (ParseError, ValueError, LookupError) as error:
        raise BadSong(f"it is no well-formed XML ({error})") from error


def _title(root: Element) -> str | None:
    titles = (" ".join((root.findtext(path) or "").split()) for path in ("work/work-title", "movement-title"))
    return next(filter(None, titles), None)


def _voice(note: Element) -> str:
    return (note.findtext("voice") or "1").strip()


def _sounds(note: Element) -> bool:
    """Whether a note is played with a pitch: no rest, no drum, no grace or cue note."""
    return note.find("pitch") is not None and note.find("grace") is None and note.find("cue") is None


def _melody_part(root: Element) -> tuple[Element, str]:
    """The first part with notes, and its voice that has notes and comes first, be it with a rest."""
    for part in root.iterfind("part"):
        voices = {_voice(note) for note in part.iterfind("measure/note") if _sounds(note)}
        for note in part.iterfind("measure/note"):
            if _voice(note) in voices:
                return part, _voice(note)
    raise BadSong("it has no notes")


class _Reader:
    """Measures of a part as they are written; holds what lasts from one measure to the next."""

    def __init__(self, part: Element, voice: str) -> None:
        self._voice = voice
        self._divisions: Fraction | None = None
        self._seen_divisions: set[Fraction] = set()
        self._meters: list[tuple[int, int]] = []
        self._transpose = 0  # semitones from written to sounding pitch
        self._endings: frozenset[int] = frozenset()
        self.measures = [self._measure(measure) for measure in part.iterfind("measure")]
        self.first_meter = self._meters[0] if self._meters else (4, 4)
        self.first_bar = _bar(self.first_meter)

    def _measure(self, element: Element) -> _Measure:
        measure = _Measure(implicit=element.get("implicit") == "yes")
        onset = position = Fraction(0)
        ends = False  # an ending ends with this measure
        for child in element:
            match child.tag:
                case "attributes":
                    self._attributes(child)
                case "note" if child.find("grace") is None:
                    length = self._beats(child)
                    if child.find("chord") is None:
                        onset, position = position, position + length
                    measure.length = max(measure.length, onset + length)
                    if _sounds(child) and _voice(child) == self._voice and length > 0:
                        measure.notes.append(self._note(child, onset, length))
                case "backup":
                    position -= self._beats(child)
                    if position < 0:
                        raise BadSong("it goes back to before a bar line")
                case "forward":
                    position += self._beats(child)
                    measure.length = max(measure.length, position)
                case "harmony" if child.get("type") != "alternate":
                    offset = number(child.findtext("offset") or "0", "harmony offset") / self._per_beat()
                    measure.changes.append((position + offset, read_chord(child, self._transpose)))
                case "barline":
                    ends |= self._barline(child, measure)
        measure.endings = self._endings
        if ends or measure.passes:
            self._endings = frozenset()
        measure.length = measure.length or _bar(self._meters[-1] if self._meters else (4, 4))
        if measure.length > MAX_BEATS:
            raise BadSong(f"it has a measure of more than {MAX_BEATS} beats")
        return measure

    def _attributes(self, element: Element) -> None:
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

    def _per_beat(self) -> Fraction:
        if self._divisions is None:
            raise BadSong("it gives no divisions of a quarter note before its first note or chord")
        return self._divisions

    def _beats(self, element: Element) -> Fraction:
        duration = number(element.findtext("duration"), "duration")
        if duration < 0:
            raise BadSong(f"its duration is {shown(element.findtext('duration'))}, less than nothing")
        return duration / self._per_beat()

    def _note(self, note: Element, onset: Fraction, length: Fraction) -> Written:
        written = note.find("pitch")
        assert written is not None
        octave = whole(written.findtext("octave"), "octave of a note", -1, 10)
        pitch = 12 * (octave + 1) + semitones(written, "step", "alter", "note") + self._transpose
        if not 0 <= pitch <= 127:
            raise BadSong("it has a note outside the MIDI pitches 0..127")
        ties = {tie.get("type") for tie in (*note.findall("tie"), *note.findall("notations/tied"))}
        return Written(onset, onset + length, pitch, "stop" in ties, "start" in ties)

    def _barline(self, barline: Element, measure: _Measure) -> bool:
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


def _lengthen_endings(measures: Sequence[_Measure]) -> None:
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
