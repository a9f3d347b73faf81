"""Tunes in ABC notation (the standard's version 2.1): the first voice, and its quoted chord symbols.

Repeats, endings and the order of parts (``P:AABA`` before the key, in the Nottingham collection ``Y:``) are played
out; jumps (D.C., D.S.) are not. A repeat without a beginning goes back to the last repeat, double bar line, named part
or the start. Of chord symbols at one note the first is played the first time, the second from the second time on.
Left out are grace notes, decorations, words for the player and chords in parentheses, which are optional. An accidental
holds for its letter in every octave until the bar line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from gapt_jax import chords
from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.examples import Rejected
from gapt_jax.data_pipeline.importers import abc_fields as fields
from gapt_jax.data_pipeline.importers import abc_tokens as tokens
from gapt_jax.data_pipeline.importers.abc_words import is_words
from gapt_jax.data_pipeline.importers.played import MAX_PASSES, Change, Measure, Written, performed, play_order
from gapt_jax.data_pipeline.importers.score import MAX_EVENTS, Score, held
from gapt_jax.data_pipeline.songs import BadSong

_FIELD = re.compile(r"([A-Za-z+]):(?![|:])\s*(.*)")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_TUPLET_TIME = {2: 3, 3: 2, 4: 3, 6: 2, 8: 3}  # the others: 2, or 3 in compound metres


def read(text: str, stem: str) -> Iterator[Score | Rejected]:
    """The tunes of one file in order, named by `stem`, in a tune book by `stem` and the number after ``X:``.

    A tune that cannot be played is a `Rejected` with the line of its first fault.
    """
    tunes, header = list(_tunes(text)), _file_header(text)
    if not tunes:
        raise BadSong("it has no tune: none of its lines begins with X:")
    for first_line, lines in tunes:
        tune = _Tune(header)
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


def _file_header(text: str) -> dict[str, str]:
    """Metre and unit that hold for every tune which has none: fields above the first ``X:``, by letter."""
    above = itertools.takewhile(lambda line: not line.startswith("X:"), text.splitlines())
    found = (_FIELD.fullmatch(line.partition("%")[0].rstrip()) for line in above)
    return {match[1]: match[2] for match in found if match and match[1] in "ML" and _is_readable(*match.groups())}


def _is_readable(letter: str, value: str) -> bool:
    try:
        fields.read_meter(value) if letter == "M" else fields.read_unit(value)
    except BadSong:  # prose
        return False
    return True


class _Item(NamedTuple):
    """What takes up time: a note, a chord of notes, a rest. In whole notes."""

    length: Fraction
    notes: tuple[tuple[int, bool], ...]  # MIDI pitch, whether tied to the next


class _Symbol(NamedTuple):
    """A chord symbol; one that is blank (``" "``) leaves the chord before as it is."""

    chord: Chord | None
    is_blank: bool = False


@dataclass
class _Bar:
    items: list[_Item] = field(default_factory=list)
    symbols: dict[int, list[_Symbol]] = field(default_factory=dict)  # item before which -> those of each time
    is_waiting: bool = False  # its symbols stand before a bar line, and a symbol after that takes their place


class _Tune:
    """A tune while it is read; holds what lasts from one token to the next."""

    def __init__(self, header: dict[str, str]) -> None:
        self.number = ""
        self._title: str | None = None
        self._meters = [fields.read_meter(header["M"])] if "M" in header else []
        self._unit = fields.read_unit(header["L"]) if "L" in header else None  # whole notes
        self._shifts: dict[str | None, dict[str, int]] = {}  # semitones, of K: (None) and of each voice
        self._for_all: list[tuple[str, str]] = []  # fields that hold for all voices where another V: follows
        self._is_text = False  # between %%begintext and %%endtext
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
        self._is_open = False  # a repeat has begun that has not ended
        self._order = ""  # of the parts
        self._parts: list[tuple[str, int]] = []  # name, number of its first measure
        self._endings: frozenset[int] = frozenset()

    def read_line(self, line: str) -> None:
        if line.startswith("%%") and (match := re.match(r"%%\s*(begin|end)(text|ps|svg)", line)):
            self._is_text = match[1] == "begin"
        if line.startswith("%") or self._is_text:
            return
        content = re.split(r"(?<!\\)%", line, maxsplit=1)[0].rstrip().removesuffix("\\").replace("\\%", "%")
        if match := _FIELD.fullmatch(content):
            self._read_field(match[1], match[2], is_line=True)
        elif self._in_body:
            self._read_music(content)

    def score(self, name: str, line: int) -> Score:
        """The tune, played out."""
        if not self._in_body:
            raise BadSong("it has no K: line, which ends the header: add one, such as K:C, above the music")
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
        yield from play_order(self._measures[: bounds[0]])
        for index, name in enumerate(self._order):
            yield from play_order(parts[name], self._order[:index].count(name) + 1)

    def _read_field(self, letter: str, value: str, is_line: bool = False) -> None:
        if self._is_other_voice() and letter != "V":
            if is_line and (letter in "MLK" or (letter == "P" and value.strip() not in dict(self._parts))):
                self._for_all.append((letter, value))
            return
        match letter:
            case "X":
                self.number = value.strip()[:20]
            case "T":
                self._title = self._title or value.strip()
            case "M":
                if not self._measures and not self._bar.items:
                    self._meters = []
                self._meters.append(fields.read_meter(value.strip()))
            case "L":
                self._unit = fields.read_unit(value.strip())
            case "K":
                self._key = fields.read_key(value.strip())
                self._shift(None, value)
                self._in_body = True
            case "V":
                name, *properties = value.split(maxsplit=1) or [""]
                self._shift(name, " ".join(["V", *properties]))
                if self._in_body:
                    self._turn_to_voice(name or None)
            case "P" if self._in_body:
                self._close_bar()
                self._endings, self._forward, self._is_open = frozenset(), True, False
                self._parts.append((value.strip(), len(self._measures)))
            case "P" | "Y":
                self._order = fields.read_order(value)

    def _shift(self, voice: str | None, text: str) -> None:
        self._shifts.setdefault(voice, {}).update(fields.read_shifts(text))

    def _semitones(self) -> dict[str, int]:
        """By which the notes of this voice sound higher than written: octave, clef, transpose."""
        return self._shifts.get(None, {}) | (self._shifts.get(self._voice, {}) if self._voice else {})

    def _turn_to_voice(self, name: str | None) -> None:
        """Another voice goes on. Fields that stand between the lines of two voices hold for all."""
        waiting, self._for_all = self._for_all, []
        self._voice, here = (*self._melody_voice, name)[0], name
        for letter, value in waiting:
            self._read_field(letter, value)
        self._voice = here

    def _is_other_voice(self) -> bool:
        return self._melody_voice not in ([], [self._voice])

    def _read_music(self, text: str) -> None:
        if self._is_other_voice() and not re.match(r"\s*(\[V:|$)", text):
            self._for_all = []  # they were of this voice alone
        for match in tokens.TOKEN.finditer(text):
            if match["field"]:
                self._read_field(match["field"], match["value"])
            elif self._is_other_voice():
                continue
            elif match["bar"]:
                self._read_bar(match["bar"], match["after"])
            elif match["ending"]:
                self._close_bar()
                self._endings = fields.read_endings(match["ending"])
            elif self._overlay:
                continue
            elif match["text"] is not None:
                self._read_symbol(match["text"])
            elif match["tuplet"]:
                self._read_tuplet(match)
            elif match["rest"]:
                whole_bars = match["rest"] in "ZX"
                self._add(tokens.length(match, "r") * (self._bar_length() if whole_bars else self._default()), {})
            elif match["letter"]:
                self._add(tokens.length(match, "n") * self._default(), {tokens.spelt(match): self._pitch(match)})
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
            self._forward, self._endings, self._is_open = True, frozenset(), begins > 0
        elif sign.count("|") > 1 or "]" in sign or "[" in sign:
            self._forward, self._endings = self._forward or not self._is_open, frozenset()
        if endings:
            self._endings, self._forward = fields.read_endings(endings), False

    def _close_bar(self) -> None:
        """Turns what was read since the last bar line into a measure; chords without a note wait for the next."""
        self._accidentals, self._overlay = {}, False
        if not self._bar.items:
            self._bar.is_waiting = True
            return
        measure = Measure(forward=self._forward, endings=self._endings)
        starts = []
        for item in self._bar.items:
            starts.append(measure.length)
            end = measure.length + 4 * item.length
            measure.notes += [Written(measure.length, end, pitch, True, tied) for pitch, tied in item.notes]
            measure.length = end
        starts.append(measure.length)
        times = max(map(len, self._bar.symbols.values()), default=1)
        measure.changes, *measure.later_changes = (self._changes(starts, time) for time in range(times))
        self._measures.append(measure)
        self._bar, self._forward = _Bar(), False

    def _changes(self, starts: list[Fraction], time: int) -> list[Change]:
        """Changes of chord of this bar when it is heard for the first time (0), the second (1) ..."""
        heard = ((starts[index], symbols[min(time, len(symbols) - 1)]) for index, symbols in self._bar.symbols.items())
        return [(start, symbol.chord) for start, symbol in heard if not symbol.is_blank]

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
        tokens.check_length(length)
        if len(self._bar.items) + len(self._measures) > MAX_EVENTS:
            raise BadSong(f"it has more than {MAX_EVENTS} notes or bars")
        self._melody_voice = [self._voice]
        shift = sum(self._semitones().values())
        if not all(0 <= pitch + shift <= 127 for pitch in notes.values()):
            raise BadSong("it has a note outside the MIDI pitches 0..127")
        self._bar.items.append(_Item(length, tuple((pitch + shift, False) for pitch in notes.values())))
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
            self._accidentals[letter] = fields.SHIFT[accidental]
        elif (spelt := tokens.spelt(match)) in self._tied:
            return self._tied[spelt]
        return natural + self._accidentals.get(letter, self._key.get(letter, 0))

    def _read_chord(self, match: re.Match[str]) -> None:
        written = list(tokens.CHORD_NOTE.finditer(re.sub(r'"[^"]*"|![^!]*!', "", match["chord"])))
        if written:
            length = tokens.length(match, "c") * tokens.length(written[0], "n") * self._default()
            notes = {tokens.spelt(note): self._pitch(note) for note in written}
            self._add(length, notes)
            if ties := [list(notes).index(tokens.spelt(note)) for note in written if note["tie"]]:
                self._tie(ties)

    def _read_symbol(self, text: str) -> None:
        """A chord symbol before a note; text that is placed (``"^slowly"``) is for the eye."""
        symbol = text.strip()
        if symbol and (symbol[0] in "^_<>@" or (symbol[0] == "(" and symbol[-1] == ")") or symbol == "f"):
            return
        chord = None
        if not chords.is_no_chord(symbol):
            try:
                chord = chords.parse(symbol)
            except ValueError as error:
                if is_words(symbol):
                    return
                raise BadSong(f'{error}: write words that are for the eye as "^slowly", with a ^') from None
            shift = self._semitones().get("transpose", 0)
            chord = chord._replace(root=(chord.root + shift) % 12, bass=(chord.bass + shift) % 12)
        if self._bar.is_waiting and not self._bar.items:
            self._bar.symbols.clear()
        self._bar.is_waiting = False
        self._bar.symbols.setdefault(len(self._bar.items), []).append(_Symbol(chord, not symbol))

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
        tokens.check_length(last.length * before)
        self._bar.items[-1] = last._replace(length=last.length * before)
