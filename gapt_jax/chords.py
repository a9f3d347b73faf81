"""Chord symbols and their notes: (root, intervals, bass) to text and back.

Intervals are semitones above the root, folded into one octave, ascending and beginning with 0. A symbol is
made from these numbers alone, so naming commutes with transposition; a shape without a common name is spelt by
its intervals, e.g. ``C(0,3,8)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

ROOT_NAMES = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SYMBOL = re.compile(r"^([A-G])([#b]*)(.*?)(?:/([A-G])([#b]*))?$")
_SPELT_OUT = re.compile(r"^\((\d+(?:,\d+)*)\)$")

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
# Other spellings met in lead sheets and in published vocabularies.
_ALIASES = {
    "maj": "", "M": "", "min": "m", "-": "m", "o": "dim", "o7": "dim7", "+": "aug", "sus": "sus4", "sus7": "7sus4",
    "min7": "m7", "M7": "maj7", "6/9": "69", "+7": "7#5", "aug7": "7#5", "ped": "1", "(add2)": "add9", "add2": "add9",
    "m(add2)": "madd9", "(add9)": "add9", "h7": "m7b5", "hdim7": "m7b5", "minmaj7": "mmaj7", "maj6": "6", "min6": "m6",
}  # fmt: skip
_NAME_OF = {intervals: name for name, intervals in reversed(_QUALITIES)}
_INTERVALS_OF = dict(_QUALITIES) | {alias: dict(_QUALITIES)[name] for alias, name in _ALIASES.items()}


class Chord(NamedTuple):
    """A chord: root pitch class, interval set above it (see the module), bass pitch class."""

    root: int
    intervals: tuple[int, ...]
    bass: int


def fold(intervals: Iterable[int]) -> tuple[int, ...]:
    """Interval set within one octave: ``[0, 4, 7, 14] -> (0, 2, 4, 7)``."""
    return tuple(sorted({int(i) % 12 for i in intervals} | {0}))


def quality_name(intervals: tuple[int, ...]) -> str:
    """Suffix that names an interval set, e.g. ``(0, 3, 7, 10) -> "m7"``; spelt out when it has no name."""
    return _NAME_OF.get(intervals, "(" + ",".join(map(str, intervals)) + ")")


def symbol(chord: Chord) -> str:
    """Text of a chord, e.g. ``Chord(2, (0, 3, 7), 5) -> "Dm/F"``."""
    text = ROOT_NAMES[chord.root] + quality_name(chord.intervals)
    return text if chord.bass == chord.root else f"{text}/{ROOT_NAMES[chord.bass]}"


def _pitch_class(letter: str, accidentals: str) -> int:
    return (_LETTERS[letter] + accidentals.count("#") - accidentals.count("b")) % 12


def parse(text: str) -> Chord:
    """Reads a chord symbol. Raises ValueError on a symbol that is not understood: nothing is guessed."""
    match = _SYMBOL.match(text.strip())
    if match is None:
        raise ValueError(f"not a chord symbol: {text!r}")
    letter, accidentals, quality, bass_letter, bass_accidentals = match.groups()
    if text.strip().endswith("6/9"):
        quality, bass_letter = "69", None
    root = _pitch_class(letter, accidentals)
    if spelt := _SPELT_OUT.match(quality):
        intervals = fold(int(i) for i in spelt.group(1).split(","))
    elif quality in _INTERVALS_OF:
        intervals = _INTERVALS_OF[quality]
    else:
        raise ValueError(f"unknown chord quality {quality!r} in {text!r}")
    return Chord(root, intervals, _pitch_class(bass_letter, bass_accidentals) if bass_letter else root)
