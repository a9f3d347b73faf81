"""Tunes in ABC notation (the standard's version 2.1): the first voice, and its quoted chord symbols.

Repeats, endings and the order of parts (``P:AABA`` before the key, in the Nottingham collection ``Y:``) are played
out; jumps (D.C., D.S.) are not. A repeat without a beginning goes back to the last repeat, named part or the start.
Left out are grace notes, decorations and chords in parentheses, which are optional. An accidental holds for its
letter in every octave until the bar line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from data_pipeline.importers.played import MAX_PASSES, Measure, Written, performed, play_order
from data_pipeline.importers.score import MAX_EVENTS, Score, held
from data_pipeline.songs import MAX_BEATS, BadSong, Rejected
from gapt_jax import chords
from gapt_jax.chords import Chord

_FIELD = re.compile(r"([A-Za-z+]):(?![|:])\s*(.*)")
_LENGTH = r"(?P<{0}up>[0-9]{{0,6}})(?P<{0}over>/*)(?P<{0}down>[0-9]{{0,6}})"
_TOKEN = re.compile(
    r'"(?P<text>[^"]*)"'
    r"|![^!\s]*!|\+[^+\s]*\+|\{[^}]*\}|y[0-9]*"  # decorations, grace notes, space
    r"|\[(?P<field>[A-Za-z]):\s*(?P<value>[^\]]*)\]"
    r"|(?P<bar>(?:\[(?=\|))?[:|]*\|[:|]*\]?|::+)\s*(?:\[?(?P<after>[0-9][0-9,\-]*))?"
    r"|\[(?P<ending>[0-9][0-9,\-]*)"
    r"|\((?P<tuplet>[2-9])(?::(?P<time>[1-9]?))?(?::(?P<among>[1-9]?))?"
    rf"|(?P<rest>[zxZX]){_LENGTH.format('r')}"
    rf"|(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-g])(?P<octave>[,']*){_LENGTH.format('n')}"
    rf"|\[(?P<chord>[^\]\[|]*)\]{_LENGTH.format('c')}"
    r"|(?P<broken>>{1,3}|<{1,3})"
    r"|(?P<tie>-)"
    r"|(?P<overlay>&)"
)
_CHORD_NOTE = re.compile(
    rf"(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-g])(?P<octave>[,']*){_LENGTH.format('n')}(?P<tie>-?)"
)
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SHIFT = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
_FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1}  # sharps of the major key
_MODES = {"maj": 0, "ion": 0, "mix": -1, "dor": -2, "m": -3, "min": -3, "aeo": -3, "phr": -4, "loc": -5, "lyd": 1}
_KEY = re.compile(r"([A-G])([#b]?)\s*([A-Za-z]*)")
_KEY_ACCIDENTAL = re.compile(r"(\^\^?|__?|=)([A-Ga-g])")
_TUPLET_TIME = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # the others: 2, or 3 in compound metres
_GRID = 2**12 * 3**4 * 5**2 * 7 * 11 * 13  # a beat is divided no finer, so that positions stay short fractions


def read(text: str, stem: str) -> Iterator[Score | Rejected]:
    """The tunes of one file in order, named by `stem`, in a tune book by `stem` and the number after ``X:``.

    A tune that cannot be played is a `Rejected` with the line of its first fault.
    """
    tunes = list(_tunes(text))
    if not tunes:
        raise BadSong("it has no tune: none of its lines begins with X:")
    for first_line, lines in tunes:
        tune = _Tune()
        number = first_line
        try:
            for line in lines:
                tune.read_line(line)
                number += 1
            yield tune.score(stem if len(tunes) == 1 else stem + tune.number, first_line)
        except BadSong as error:
            yield Rejected("", min(number, first_line + len(lines) - 1), str(error))


def _tunes(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and lines of each tune: from ``X:`` to a blank line after its key, or the next ``X:``."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("X:")]
    for start, following in itertools.pairwise([*starts, len(lines)]):
        keyed = False
        end = following
        for number in range(start, following):
            keyed |= lines[number].startswith("K:")
            if keyed and not lines[number].strip():
                end = number
                break
        yield start + 1, lines[start:end]


class _Item(NamedTuple):
    """What takes up time: a note, a chord of notes, a rest. In whole notes."""

    length: Fraction
    notes: tuple[tuple[int, bool], ...]  # MIDI pitch, whether tied to the next


@dataclass
class _Bar:
    items: list[_Item] = field(default_factory=list)
    changes: list[tuple[int, Chord | None]] = field(default_factory=list)  # item before which, chord


class _Tune:
    """A tune while it is read; holds what lasts from one token to the next."""

    def __init__(self) -> None:
        self.number = ""
        self._title: str | None = None
        self._meters: list[tuple[int, int]] = []
        self._unit: Fraction | None = None  # whole notes
        self._key: dict[str, int] = {}
        self._in_body = False
        self._voice: str | None = None  # that is being written
        self._melody_voice: list[str | None] = []  # the first with music
        self._measures: list[Measure] = []
        self._bar = _Bar()
        self._accidentals: dict[str, int] = {}
        self._sounding: dict[str, int] = {}  # spelt pitch -> pitch, of the last item
        self._tied: dict[str, int] = {}  # the same of an item with a tie
        self._broken = Fraction(1)  # factor of the next item
        self._tuplet = (0, Fraction(1))  # items left, factor
        self._overlay = False
        self._forward = False
        self._order = ""  # of the parts
        self._parts: list[tuple[str, int]] = []  # name, number of its first measure
        self._endings: frozenset[int] = frozenset()

    def read_line(self, line: str) -> None:
        if line.startswith("%"):
            return
        content = re.split(r"(?<!\\)%", line, maxsplit=1)[0].rstrip().removesuffix("\\").replace("\\%", "%")
        if match := _FIELD.fullmatch(content):
            self._read_field(*match.groups())
        elif self._in_body:
            self._read_music(content)

    def score(self, name: str, line: int) -> Score:
        """The tune, played out."""
        self._close_bar()
        if not self._measures:
            raise BadSong("it has no notes")
        meter = self._meters[0] if self._meters else (4, 4)
        first = self._measures[0].length
        notes, changes, end = performed(self._played())
        return Score(
            name=name,
            title=self._title,
            meter=meter,
            pickup=float(first) if first < Fraction(4 * meter[0], meter[1]) else 0.0,
            beats_total=end,
            notes=notes,
            chords=held(changes, end),
            line=line,
        )

    def _played(self) -> Iterator[Measure]:
        """The measures as they are heard; parts in their order, if every part of it is in the tune."""
        bounds = [number for _, number in self._parts] + [len(self._measures)]
        parts = {name: self._measures[start:end] for (name, start), end in zip(self._parts, bounds[1:], strict=True)}
        if not self._order or not set(self._order) <= set(parts):
            yield from play_order(self._measures)
            return
        for measures in (self._measures[: bounds[0]], *(parts[name] for name in self._order)):
            yield from play_order(measures)

    def _read_field(self, letter: str, value: str) -> None:
        if self._is_other_voice() and letter != "V":
            return
        match letter:
            case "X":
                self.number = value.strip()[:20]
            case "T":
                self._title = self._title or value.strip()
            case "M":
                if not self._measures and not self._bar.items:
                    self._meters = []
                self._meters.append(_read_meter(value.strip()))
            case "L":
                self._unit = _read_unit(value.strip())
            case "K":
                self._key = _read_key(value.strip())
                self._in_body = True
            case "V" if self._in_body:
                self._voice = value.split()[0] if value.strip() else None
            case "P" if self._in_body:
                self._close_bar()
                self._endings, self._forward = frozenset(), True
                self._parts.append((value.strip(), len(self._measures)))
            case "P" | "Y":
                self._order = _read_order(value)

    def _is_other_voice(self) -> bool:
        return self._melody_voice not in ([], [self._voice])

    def _read_music(self, text: str) -> None:
        for match in _TOKEN.finditer(text):
            if match["field"]:
                self._read_field(match["field"], match["value"])
            elif self._is_other_voice():
                continue
            elif match["bar"]:
                self._read_bar(match["bar"], match["after"])
            elif match["ending"]:
                self._close_bar()
                self._endings = _read_endings(match["ending"])
            elif self._overlay:
                continue
            elif match["text"] is not None:
                self._read_symbol(match["text"])
            elif match["tuplet"]:
                self._read_tuplet(match)
            elif match["rest"]:
                whole_bars = match["rest"] in "ZX"
                self._add(_length(match, "r") * (self._bar_length() if whole_bars else self._default()), {})
            elif match["letter"]:
                self._add(_length(match, "n") * self._default(), {_spelt(match): self._pitch(match)})
            elif match["chord"] is not None:
                self._read_chord(match)
            elif match["broken"]:
                self._read_broken(match["broken"])
            elif match["tie"] and self._bar.items:
                self._tie(range(len(self._bar.items[-1].notes)))
            elif match["overlay"]:
                self._overlay = True

    def _read_bar(self, sign: str, endings: str | None) -> None:
        self._close_bar()
        before, _, after = sign.partition("|")  # "::" is short for ":||:"
        ends, begins = (before.count(":"), after.count(":")) if "|" in sign else (len(sign) // 2, len(sign) // 2)
        if ends and self._measures:
            self._measures[-1].passes = ends + 1
            if ends >= MAX_PASSES:
                raise BadSong(f"it has a section that is played more than {MAX_PASSES} times")
        if ends or begins:
            self._forward, self._endings = True, frozenset()
        elif sign.count("|") > 1 or "]" in sign or "[" in sign:
            self._endings = frozenset()
        if endings:
            self._endings, self._forward = _read_endings(endings), False

    def _close_bar(self) -> None:
        """Turns what was read since the last bar line into a measure; chords without a note wait for the next."""
        self._accidentals, self._overlay = {}, False
        if not self._bar.items:
            return
        measure = Measure(forward=self._forward, endings=self._endings)
        starts = []
        for item in self._bar.items:
            starts.append(measure.length)
            end = measure.length + 4 * item.length
            measure.notes += [Written(measure.length, end, pitch, True, tied) for pitch, tied in item.notes]
            measure.length = end
        starts.append(measure.length)
        measure.changes = [(starts[index], chord) for index, chord in self._bar.changes]
        self._measures.append(measure)
        self._bar, self._forward = _Bar(), False

    def _default(self) -> Fraction:
        """Length of a note without a number: by ``L:``, or by the first metre as the standard has it."""
        if self._unit is None:
            meter = self._meters[0] if self._meters else (4, 4)
            self._unit = Fraction(1, 16 if 4 * meter[0] < 3 * meter[1] else 8)
        return self._unit

    def _bar_length(self) -> Fraction:
        return Fraction(*self._meters[-1]) if self._meters else Fraction(1)

    def _add(self, length: Fraction, notes: dict[str, int]) -> None:
        left, factor = self._tuplet
        length *= self._broken * (factor if left else 1)
        self._tuplet, self._broken = (max(left - 1, 0), factor), Fraction(1)
        _check_length(length)
        if len(self._bar.items) + len(self._measures) > MAX_EVENTS:
            raise BadSong(f"it has more than {MAX_EVENTS} notes or bars")
        self._melody_voice = [self._voice]
        self._bar.items.append(_Item(length, tuple((pitch, False) for pitch in notes.values())))
        self._sounding, self._tied = notes, {}

    def _tie(self, which: Iterable[int]) -> None:
        """Ties notes of the last item, by their order in it, to the next."""
        (length, notes), chosen = self._bar.items[-1], set(which)
        tied = tuple((pitch, tie or index in chosen) for index, (pitch, tie) in enumerate(notes))
        self._bar.items[-1] = _Item(length, tied)
        self._tied = dict(self._sounding)

    def _pitch(self, match: re.Match[str]) -> int:
        letter, accidental = match["letter"].upper(), match["accidental"]
        natural = 60 + _SEMITONES[letter] + 12 * match["letter"].islower()
        natural += 12 * (match["octave"].count("'") - match["octave"].count(","))
        if accidental:
            self._accidentals[letter] = _SHIFT[accidental]
        elif (spelt := _spelt(match)) in self._tied:
            return self._tied[spelt]
        pitch = natural + self._accidentals.get(letter, self._key.get(letter, 0))
        if not 0 <= pitch <= 127:
            raise BadSong("it has a note outside the MIDI pitches 0..127")
        return pitch

    def _read_chord(self, match: re.Match[str]) -> None:
        written = list(_CHORD_NOTE.finditer(re.sub(r'"[^"]*"|![^!]*!', "", match["chord"])))
        if written:
            length = _length(match, "c") * _length(written[0], "n") * self._default()
            notes = {_spelt(note): self._pitch(note) for note in written}
            self._add(length, notes)
            if ties := [list(notes).index(_spelt(note)) for note in written if note["tie"]]:
                self._tie(ties)

    def _read_symbol(self, text: str) -> None:
        """A chord symbol before a note; text that is placed (``"^slowly"``) is for the eye."""
        symbol = text.strip()
        if not symbol or symbol[0] in "^_<>@" or (symbol[0] == "(" and symbol[-1] == ")"):
            return
        if chords.is_no_chord(symbol):
            chord = None
        else:
            try:
                chord = chords.parse(symbol)
            except ValueError as error:
                raise BadSong(str(error)) from None
        self._bar.changes.append((len(self._bar.items), chord))

    def _read_tuplet(self, match: re.Match[str]) -> None:
        count = int(match["tuplet"])
        meter = self._meters[-1] if self._meters else (4, 4)
        compound = meter[1] == 8 and meter[0] % 3 == 0 and meter[0] > 3
        time = int(match["time"] or _TUPLET_TIME.get(count, 3 if compound else 2))
        self._tuplet = (int(match["among"] or count), Fraction(time, count))

    def _read_broken(self, signs: str) -> None:
        """``A>B``: the first is lengthened by half, the second takes what is left; ``<`` the other way round."""
        if not self._bar.items:
            return
        short = Fraction(1, 2 ** len(signs))
        before, self._broken = (2 - short, short) if signs[0] == ">" else (short, 2 - short)
        last = self._bar.items[-1]
        _check_length(last.length * before)
        self._bar.items[-1] = last._replace(length=last.length * before)


def _spelt(match: re.Match[str]) -> str:
    return match["letter"] + match["octave"]


def _length(match: re.Match[str], part: str) -> Fraction:
    """Factor after a note: ``3``, ``/``, ``3/2``, ``//``."""
    up, over, down = match[f"{part}up"], match[f"{part}over"], match[f"{part}down"]
    if over and down:
        below = int(down)
    else:
        below = 2 ** min(len(over), 12)
        up += "" if over else down
    if below == 0:
        raise BadSong("it has a note whose length is divided by 0")
    return Fraction(int(up or 1), below)


def _check_length(length: Fraction) -> None:
    if length <= 0 or 4 * length > MAX_BEATS or _GRID % length.denominator:
        raise BadSong("it has a note that is longer or shorter than can be played")


def _read_endings(text: str) -> frozenset[int]:
    """Passes of an ending: ``"1,3" -> {1, 3}``, ``"1-3" -> {1, 2, 3}``."""
    passes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = (number[:3] for number in part.partition("-"))
        passes |= set(range(int(first or 0), int(last or first or 0) + 1))
    if not passes or not all(1 <= pass_ <= MAX_PASSES for pass_ in passes):
        raise BadSong(f"it has an ending that is not of passes in 1..{MAX_PASSES}")
    return frozenset(passes)


def _read_order(text: str) -> str:
    """Parts in the order of playing: ``"A2.(BC)2" -> "AABCBC"``; "" for what is no such order."""
    order = re.sub(r"[\s.]", "", text)[:40]
    for pattern in (r"\(([A-Z]+)\)([0-9]?)", r"([A-Z])([1-9])"):
        order = re.sub(pattern, lambda found: found[1] * int(found[2] or 1), order)
    return order if order.isalpha() else ""


def _read_meter(text: str) -> tuple[int, int]:
    named = {"C": (4, 4), "C|": (2, 2), "none": (4, 4), "": (4, 4)}
    if text in named:
        return named[text]
    match = re.fullmatch(r"\(?([0-9]{1,2}(?:\s*\+\s*[0-9]{1,2}){0,7})\)?\s*/\s*(1|2|4|8|16|32)", text)
    beats = sum(map(int, match[1].split("+"))) if match else 0
    if match is None or not 1 <= beats <= 64:
        raise BadSong("its metre is none of 1 to 64 beats over 1, 2, 4, 8, 16 or 32")
    return beats, int(match[2])


def _read_unit(text: str) -> Fraction:
    match = re.fullmatch(r"1(?:\s*/\s*([0-9]{1,3}))?", text)
    below = int(match[1] or 1) if match else 0
    if below not in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        raise BadSong("its L: is no unit of note length such as 1/8")
    return Fraction(1, below)


def _read_key(text: str) -> dict[str, int]:
    """Accidentals of a key, by letter: ``"ADor" -> {"F": 1}``."""
    if text[:2] in ("HP", "Hp"):  # Highland pipes
        return {"F": 1, "C": 1}
    match = _KEY.match(text)
    mode, rest = (match[3].lower(), text[match.end() :]) if match else ("", text)
    explicit = {letter.upper(): _SHIFT[sign] for sign, letter in _KEY_ACCIDENTAL.findall(rest)}
    if match is None or mode == "exp":
        if match is None and text.split("=")[0].split(" ")[0] not in ("", "none", "clef", "treble", "bass"):
            raise BadSong("its key is not understood")
        return explicit
    shift = _MODES.get(mode if mode == "m" else mode[:3])
    if shift is None:
        if mode not in ("", "clef", "treble", "bass", "alto", "tenor", "octave", "transpose", "stafflines", "middle"):
            raise BadSong("the mode of its key is not understood")
        shift = 0
    fifths = _FIFTHS[match[1]] + 7 * ((match[2] == "#") - (match[2] == "b")) + shift
    order = "FCGDAEB" if fifths > 0 else "BEADGCF"
    signature: dict[str, int] = {}
    for index in range(abs(fifths)):
        letter = order[index % 7]
        signature[letter] = signature.get(letter, 0) + (1 if fifths > 0 else -1)
    return signature | explicit
