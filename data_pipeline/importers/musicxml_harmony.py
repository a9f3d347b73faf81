"""Numbers, pitch classes, ``<harmony>`` elements and typed chords of MusicXML. Pure; every fault is a BadSong with its
reason."""

from __future__ import annotations

import re
from fractions import Fraction
from xml.etree.ElementTree import Element

from gapt_jax import chords
from gapt_jax.chords import Chord
from gapt_jax.data_pipeline.songs import BadSong

_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})")
_MAX_DEGREES = 16  # added to, altered in or taken from one chord
_SHOWN = 40  # characters of the file that a reason repeats
# Degrees of each kind above the root; 7 is the minor seventh (#7 the major, b7 the diminished one). The sixths
# and the Neapolitan are built on the root as written, the augmented sixth spelt above it.
_KINDS = {
    "major": "3 5",
    "minor": "b3 5",
    "augmented": "3 #5",
    "diminished": "b3 b5",
    "dominant": "3 5 7",
    "major-seventh": "3 5 #7",
    "minor-seventh": "b3 5 7",
    "diminished-seventh": "b3 b5 b7",
    "augmented-seventh": "3 #5 7",
    "half-diminished": "b3 b5 7",
    "major-minor": "b3 5 #7",
    "major-sixth": "3 5 6",
    "minor-sixth": "b3 5 6",
    "dominant-ninth": "3 5 7 9",
    "major-ninth": "3 5 #7 9",
    "minor-ninth": "b3 5 7 9",
    "dominant-11th": "3 5 7 9 11",
    "major-11th": "3 5 #7 9 11",
    "minor-11th": "b3 5 7 9 11",
    "dominant-13th": "3 5 7 9 13",
    "major-13th": "3 5 #7 9 13",
    "minor-13th": "b3 5 7 9 11 13",
    "suspended-second": "2 5",
    "suspended-fourth": "4 5",
    "Neapolitan": "3 5",
    "Italian": "3 #6",
    "French": "3 #4 #6",
    "German": "3 5 #6",
    "pedal": "",
    "power": "5",
    "Tristan": "#4 #6 #9",
}
# Accidentals by their numbers in the font of MuseScore 1, and in SMuFL.
_ACCIDENTALS = str.maketrans({"\ue10c": "#", "\ue10d": "b", "\ue260": "b", "\ue262": "#"})
_SILENCE = re.compile(r"\(?(?:n\.? ?c\.?|no chords?)\)?", re.IGNORECASE)
_LETTER = re.compile(r"\(?([A-G])[1-3]?\)?")  # a chord, or a section: A, A2
# Go, Ah, Ad, Bb7a, a fingering with its line: no chord, though it reads as one.
_WORD = re.compile(r"[^(A-G].*|[A-G][oh]|[A-G][b#]?7?[ad]7?|.*--.*")
_Tones = list[tuple[int, int]]  # number of the degree (0: not known), semitones above the root


def shown(text: str | None) -> str:
    """A text of the file as a reason quotes it: short, on one line."""
    return repr((text or "").strip()[:_SHOWN])


def number(text: str | None, what: str) -> Fraction:
    """A decimal number of at most 12 digits and 6 decimals. Raises BadSong where `text` is none."""
    stripped = (text or "").strip()
    if not _NUMBER.fullmatch(stripped):
        raise BadSong(f"its {what} is {shown(text)}, not a number of sensible size")
    return Fraction(stripped)


def whole(text: str | None, what: str, low: int, high: int) -> int:
    """A whole number in low..high. Raises BadSong where `text` is none."""
    value = number(text, what)
    if value.denominator != 1 or not low <= value <= high:
        raise BadSong(f"its {what} is {shown(text)}, not a whole number in {low}..{high}")
    return int(value)


def semitones(element: Element, step: str, alter: str, what: str) -> int:
    """Semitones above C of the children `step` (a letter) and `alter` (semitones, may be absent) of an element;
    may lie outside 0..11. Raises BadSong."""
    letter = (element.findtext(step) or "").strip().upper()
    if letter not in _STEPS:
        raise BadSong(f"its {what} has the step {shown(element.findtext(step))}")
    altered = element.findtext(alter)
    return _STEPS[letter] + (whole(altered, f"{alter} of a {what}", -4, 4) if (altered or "").strip() else 0)


def read_chord(harmony: Element, transpose: int) -> Chord | None:
    """The chord of a ``<harmony>`` element, `transpose` semitones higher than written; None where it says that
    nothing is played.

    Raises BadSong on a chord that is not understood: it is never simplified.
    """
    kinds, roots, degrees = (harmony.findall(tag) for tag in ("kind", "root", "degree"))
    if len(kinds) > 1 or len(roots) > 1:
        raise BadSong("it has a chord upon a chord, which is not read")
    if kinds and _is_silence(kinds[0]):
        return None
    if not roots:
        raise BadSong("it has a chord by its function or numeral, without a root")
    if not kinds:
        raise BadSong("it has a chord without a kind")
    if len(degrees) > _MAX_DEGREES:
        raise BadSong(f"it has a chord with more than {_MAX_DEGREES} degrees")
    tones = _tones(kinds[0], degrees)
    root = semitones(roots[0], "root-step", "root-alter", "chord root")
    bass = root + _inversion(harmony, tones)
    if (written := harmony.find("bass")) is not None:
        bass = semitones(written, "bass-step", "bass-alter", "chord bass")
    return Chord((root + transpose) % 12, chords.fold(step for _, step in tones), (bass + transpose) % 12)


def lone_letter(text: str) -> str:
    """The letter of a text that is no more than one, with a number or not (``A``, ``B2``), else nothing."""
    found = _LETTER.fullmatch(text.strip())
    return found.group(1) if found else ""


def typed_chords(text: str, transpose: int = 0, letters: bool = False) -> list[Chord | None]:
    """The chord that is typed as plain text, if it is one, `transpose` semitones higher: a list of none or one, where
    None stands for ``N.C.``. A lone letter is one only where `letters` says so: it may name a section."""
    plain = " ".join(text.translate(_ACCIDENTALS).split())
    if _SILENCE.fullmatch(plain):
        return [None]
    if _WORD.fullmatch(plain) or (_LETTER.fullmatch(plain) and not letters):
        return []
    try:
        root, intervals, bass = chords.parse(plain)
    except ValueError:
        return []
    return [Chord((root + transpose) % 12, intervals, (bass + transpose) % 12)]


def _is_silence(kind: Element) -> bool:
    name, text = (kind.text or "").strip(), kind.get("text", "").strip()
    return name == "none" or (name not in _KINDS and text != "" and chords.is_no_chord(text))


def _tones(kind: Element, degrees: list[Element]) -> _Tones:
    name, text = (kind.text or "").strip(), kind.get("text", "").strip()
    kinds_of_degree = {(degree.findtext("degree-type") or "").strip() for degree in degrees}
    if name in _KINDS:
        tones = _named(_KINDS[name])
    elif kinds_of_degree <= {"add"} and (said := _by_text(text)):
        tones = said
    elif name == "other" and kinds_of_degree == {"add"}:
        tones = []
    else:
        raise BadSong(f"it has a chord of the kind {shown(name)} (text {shown(text)}), which is not understood")
    for degree in degrees:
        tones = _altered(tones, degree)
    return tones


def _named(degrees: str) -> _Tones:
    return [(1, 0), *((int(text.lstrip("#b")), chords.degree(text)) for text in degrees.split())]


def _by_text(text: str) -> _Tones | None:
    """Tones of a quality as it is printed, None where there is none or it is not understood."""
    try:
        chord = chords.parse("C" + text)
    except ValueError:
        return None
    # A text like "b9" would be read as the root Cb.
    return [(0, step) for step in chord.intervals] if text and chord.root == chord.bass == 0 else None


def _altered(tones: _Tones, degree: Element) -> _Tones:
    """The tones after one ``<degree>``. What is added counts from the major scale with the minor seventh, what is
    altered from the degree in the chord, or from that scale where the chord has none."""
    value = whole(degree.findtext("degree-value"), "chord degree", 1, 13)
    alter = whole(degree.findtext("degree-alter") or "0", "chord degree-alter", -2, 2)
    added = (value, (chords.degree(str(value)) + alter) % 12)
    others = [tone for tone in tones if tone[0] != value]
    match (degree.findtext("degree-type") or "").strip():
        case "add":
            return [*tones, added]
        case "alter":
            found = [(value, (step + alter) % 12) for number_, step in tones if number_ == value]
            return others + (found or [added])
        case "subtract":
            return others
    raise BadSong(f"it has a chord degree of the type {shown(degree.findtext('degree-type'))}")


def _inversion(harmony: Element, tones: _Tones) -> int:
    """Semitones from the root to the bass that ``<inversion>`` gives: 1 is the third, and so on."""
    steps = [step for _, step in sorted(tones)]
    place = whole(harmony.findtext("inversion") or "0", "chord inversion", 0, 12)
    return steps[place] if 0 < place < len(steps) else 0
