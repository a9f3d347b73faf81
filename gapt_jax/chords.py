"""Chord symbols and their notes: (root, intervals, bass) to text and back.

Intervals are semitones above the root, folded into one octave, ascending and beginning with 0. A symbol is
made from these numbers alone, so naming commutes with transposition; a shape without a common name is spelt by
its intervals, e.g. ``C(0,3,8)``. Reading knows more spellings than writing: lead sheets agree on few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

ROOT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
MAX_SYMBOL = 64
BASS_OCTAVE, CHORD_OCTAVE = 36, 48  # MIDI pitches of their C
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SYMBOL = re.compile(r"([A-Ga-g])([#b♯♭]*)(.*?)(?:/([A-Ga-g])([#b♯♭+-]*))?")
_SPELT_OUT = re.compile(r"\((0(?:,\d+)*)\)")  # always begins with 0: (9) is a ninth
_PIECE = re.compile(
    r"maj|Maj|MAJ|ma|Ma|MA|min|Min|MIN|mi|Mi|MI|hdim|dim|aug|sus|add|no|omit|alt|[Mmj^Δo°øh]|[#b♯♭+-]?\d+|[+-]"
    r"|[\s(),/]"
)
_MAJOR = ("maj", "Maj", "MAJ", "ma", "Ma", "MA", "M", "j", "^", "Δ")
_LOOK_ALIKES = str.maketrans("º˚∆△▵−–—‐‑Øφϕ∅Φ⌀", "°°ΔΔΔ-----øøøøøø")
_DOT = re.compile(r"(?<=[a-zA-Z]{2})\.")  # dim., maj.7
_HALF_DIMINISHED = re.compile(r"0(?=$|[^0-9,]|[79]|11)")  # C0, C07
_ONE_LETTER = re.compile(r"([ad])([0-9]*)")  # of the Nottingham collection: Cd, Ca7
_NO_CHORD = {"", "N", "N.C.", "N.C", "NC", "n.c.", "NO CHORD", "none", "X"}

# Name of each interval set; the first spelling of a set is the one we write, all are read.
_QUALITIES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("", (0, 4, 7)),
    ("m", (0, 3, 7)),
    ("7", (0, 4, 7, 10)),
    ("m7", (0, 3, 7, 10)),
    ("maj7", (0, 4, 7, 11)),
    ("mmaj7", (0, 3, 7, 11)),
    ("6", (0, 4, 7, 9)),
    ("m6", (0, 3, 7, 9)),
    ("dim", (0, 3, 6)),
    ("dim7", (0, 3, 6, 9)),
    ("m7b5", (0, 3, 6, 10)),
    ("aug", (0, 4, 8)),
    ("sus2", (0, 2, 7)),
    ("sus4", (0, 5, 7)),
    ("sus24", (0, 2, 5, 7)),
    ("7sus2", (0, 2, 7, 10)),
    ("7sus4", (0, 5, 7, 10)),
    ("9sus4", (0, 2, 5, 7, 10)),
    ("13sus4", (0, 2, 5, 7, 9, 10)),
    ("maj7sus2", (0, 2, 7, 11)),
    ("maj7sus4", (0, 5, 7, 11)),
    ("add9", (0, 2, 4, 7)),
    ("madd9", (0, 2, 3, 7)),
    ("add11", (0, 4, 5, 7)),
    ("madd11", (0, 3, 5, 7)),
    ("69", (0, 2, 4, 7, 9)),
    ("9", (0, 2, 4, 7, 10)),
    ("m9", (0, 2, 3, 7, 10)),
    ("maj9", (0, 2, 4, 7, 11)),
    ("11", (0, 2, 4, 5, 7, 10)),
    ("m11", (0, 2, 3, 5, 7, 10)),
    ("maj11", (0, 2, 4, 5, 7, 11)),
    ("m7add11", (0, 3, 5, 7, 10)),
    ("13", (0, 2, 4, 7, 9, 10)),
    ("13full", (0, 2, 4, 5, 7, 9, 10)),
    ("7add13", (0, 4, 7, 9, 10)),
    ("7b9", (0, 1, 4, 7, 10)),
    ("7#9", (0, 3, 4, 7, 10)),
    ("7b5", (0, 4, 6, 10)),
    ("7#5", (0, 4, 8, 10)),
    ("9#5", (0, 2, 4, 8, 10)),
    ("7#11", (0, 4, 6, 7, 10)),
    ("9#11", (0, 2, 4, 6, 7, 10)),
    ("7b13", (0, 4, 7, 8, 10)),
    ("7b9b13", (0, 1, 4, 7, 8, 10)),
    ("maj7#5", (0, 4, 8, 11)),
    ("maj7#11", (0, 4, 6, 7, 11)),
    ("maj9#11", (0, 2, 4, 6, 7, 11)),
    ("5", (0, 7)),
    ("1", (0,)),
)
# Names of whole chords that do not follow from their pieces.
_SPECIAL = {
    "ped": (0,),
    "pedal": (0,),
    "7alt": (0, 1, 3, 4, 8, 10),
    "m13": (0, 2, 3, 5, 7, 9, 10),
    "m13x": (0, 2, 3, 7, 9, 10),
    "maj13full": (0, 2, 4, 5, 7, 9, 11),
}
_NAME_OF = {intervals: name for name, intervals in reversed(_QUALITIES)}
_INTERVALS_OF = dict(_QUALITIES) | _SPECIAL
_DEGREES = {1: 0, 2: 2, 3: 4, 4: 5, 5: 7, 6: 9, 7: 10, 8: 0, 9: 2, 10: 4, 11: 5, 12: 7, 13: 9}  # above the root, folded
_SHARPS, _FLATS = "#♯+", "b♭-"


class Chord(NamedTuple):
    """A chord: root pitch class, interval set above it (see the module), bass pitch class."""

    root: int
    intervals: tuple[int, ...]
    bass: int


def pitches(bass: int, classes: Iterable[int]) -> list[int]:
    """MIDI pitches by which a chord of these pitch classes sounds, bass first: in files, live and in reports."""
    return [BASS_OCTAVE + bass, *(CHORD_OCTAVE + pitch_class for pitch_class in sorted(classes))]


def fold(intervals: Iterable[int]) -> tuple[int, ...]:
    """Interval set within one octave: ``[0, 4, 7, 14] -> (0, 2, 4, 7)``."""
    return tuple(sorted({int(i) % 12 for i in intervals} | {0}))


def quality_name(intervals: tuple[int, ...]) -> str:
    """Suffix that names an interval set, e.g. ``(0, 3, 7, 10) -> "m7"``; spelt out when it has no name."""
    return _NAME_OF.get(intervals, "(" + ",".join(map(str, intervals)) + ")")


def is_named(intervals: tuple[int, ...]) -> bool:
    """Whether an interval set has a common name."""
    return intervals in _NAME_OF


def symbol(chord: Chord) -> str:
    """Text of a chord, e.g. ``Chord(2, (0, 3, 7), 5) -> "Dm/F"``."""
    text = ROOT_NAMES[chord.root] + quality_name(chord.intervals)
    return text if chord.bass == chord.root else f"{text}/{ROOT_NAMES[chord.bass]}"


def _pitch_class(letter: str, accidentals: str) -> int:
    shift = sum(sign in _SHARPS for sign in accidentals) - sum(sign in _FLATS for sign in accidentals)
    return (_LETTERS[letter.upper()] + shift) % 12


def degree(text: str) -> int:
    """Semitones above the root of a degree of the major scale, the seventh minor: ``"b9" -> 1``, ``"7" -> 10``.

    Raises ValueError where there is none.
    """
    number = text.lstrip(_SHARPS + _FLATS)
    if not number.isascii() or not number.isdigit() or int(number) not in _DEGREES:
        raise ValueError(f"no degree of a chord: {text!r}")
    return (_DEGREES[int(number)] + _pitch_class("C", text[: -len(number)])) % 12


class _Shape:
    """A chord while its quality is read, piece by piece."""

    def __init__(self) -> None:
        self.third: int | None = 4
        self.fifth: int | None = 7
        self.seventh = 10  # what a 7 will mean
        self.added: set[int] = set()
        self.numbered = False  # whether a number brought the seventh
        self.verb = ""  # add, no or sus, which the next number belongs to

    def intervals(self) -> tuple[int, ...]:
        return fold({step for step in (self.third, self.fifth) if step is not None} | self.added)

    def take(self, piece: str) -> None:
        if piece in _MAJOR:
            if self.numbered:  # C7M: the number came first
                self.added.discard(self.seventh)
            self.seventh = 11
            self.added |= {11} if self.numbered or piece in ("^", "Δ") else set()
        elif piece in ("min", "Min", "MIN", "mi", "Mi", "MI", "m", "-"):
            self.third = 3
        elif piece in ("dim", "o", "°"):
            self.third, self.fifth, self.seventh = 3, 6, 9
        elif piece in ("ø", "h", "hdim"):
            self.third, self.fifth = 3, 6
            self.added.add(10)
        elif piece in ("aug", "+"):
            self.fifth = 8
        elif piece == "sus":
            self.third, self.verb = None, "sus"
        elif piece in ("add", "no", "omit"):
            self.verb = piece
        elif piece == "alt":
            self.fifth = 8
            self.added |= {1, 3, 10}
        elif piece[-1].isdigit():
            self._number(piece)

    def _number(self, text: str) -> None:
        number = text.lstrip(_SHARPS + _FLATS)
        if self.verb == "sus" and text in ("2", "4", "24", "42"):
            self.added |= {2 if digit == "2" else 5 for digit in text}
            self.verb = "done"
        elif self.verb in ("no", "omit"):
            self._leave_out(text)
        elif text in ("69", "6") and self.verb != "add":
            self.added |= {9, 2} if text == "69" else {9}
        elif text == "5":
            self.third = None
        elif number == "5" and self.verb != "add":
            self.fifth = degree(text)
        elif number != text or self.verb == "add" or text in ("2", "4"):
            self.added -= {2} if number == "9" else set()  # 13b9 has no natural ninth
            self.added.add(self.seventh if text == "7" else degree(text))
        elif text == "9" and self.added & {9, 10, 11} == {9}:
            self.added.add(2)  # C6(9)
        elif text in ("7", "9", "11", "13"):
            self.numbered = True
            self.added |= {self.seventh} | {"9": {2}, "11": {2, 5}, "13": {2, 9}}.get(text, set())
        else:
            raise ValueError(text)

    def _leave_out(self, text: str) -> None:
        if text in ("1", "3"):
            self.third = None if text == "3" else self.third
        elif text == "5":
            self.fifth = None
        else:
            self.added.discard(degree(text))


def _read_quality(text: str) -> tuple[int, ...]:
    """Interval set of a quality by its pieces: third, fifth, number, alterations. Raises ValueError."""
    text = _HALF_DIMINISHED.sub("ø", text, count=1) if text.startswith("0") else text
    if letter := _ONE_LETTER.fullmatch(text):
        text = {"a": "aug", "d": "dim"}[letter[1]] + letter[2]
    shape, position = _Shape(), 0
    while position < len(text):
        match = _PIECE.match(text, position)
        if match is None:
            raise ValueError(text)
        piece, position = match.group(), match.end()
        if position == len(piece) and piece[0] in "+-" and piece[1:] in ("6", "7", "9", "11", "13"):
            shape.take(piece[0])  # C-7 and C+7 name the triad, C7-9 and C7+9 alter a degree
            piece = piece[1:]
        if shape.verb == "sus" and not (piece[0].isdigit() and piece in ("2", "4", "24", "42")):
            shape.added.add(5)
            shape.verb = "done"
        shape.take(piece)
    if shape.verb == "sus":
        shape.added.add(5)
    if text.endswith(("add", "no", "omit")):
        raise ValueError(text)
    return shape.intervals()


def is_no_chord(text: str) -> bool:
    """Whether a symbol says that nothing is played: ``N.C.`` and its spellings."""
    return text.strip() in _NO_CHORD


def parse(text: str) -> Chord:
    """Reads a chord symbol. Raises ValueError on a symbol that is not understood: nothing is guessed."""
    stripped = _DOT.sub("", text.strip().translate(_LOOK_ALIKES)).replace("6/9", "69")
    if stripped.startswith("(") and stripped.endswith(")"):  # an optional chord
        stripped = stripped[1:-1]
    match = _SYMBOL.fullmatch(stripped)
    if match is None or len(stripped) > MAX_SYMBOL:
        raise ValueError(f"not a chord symbol: {text[:MAX_SYMBOL]!r}")
    letter, accidentals, quality, bass_letter, bass_accidentals = match.groups()
    root = _pitch_class(letter, accidentals)
    if spelt := _SPELT_OUT.fullmatch(quality):
        intervals = fold(int(i) for i in spelt.group(1).split(","))
    else:
        try:
            intervals = _INTERVALS_OF.get(quality) or _read_quality(quality)
        except ValueError:
            raise ValueError(f"unknown chord quality {quality!r} in {text!r}") from None
    return Chord(root, intervals, _pitch_class(bass_letter, bass_accidentals) if bass_letter else root)
