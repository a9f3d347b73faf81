"""Values of ABC's information fields: metre, unit, key, order of parts, shifts of pitch. Pure; faults are BadSong."""

from __future__ import annotations

import re
from fractions import Fraction

from gapt_jax.data_pipeline.importers.played import MAX_PASSES
from gapt_jax.data_pipeline.songs import BadSong

SHIFT = {"^^": 2, "^": 1, "=": 0, "_": -1, "__": -2}
_FIFTHS = {"C": 0, "G": 1, "D": 2, "A": 3, "E": 4, "B": 5, "F": -1}  # sharps of the major key
_MODES = {"maj": 0, "ion": 0, "mix": -1, "dor": -2, "m": -3, "min": -3, "aeo": -3, "phr": -4, "loc": -5, "lyd": 1}
_KEY = re.compile(r"([A-G])([#b]?)\s*([A-Za-z]*)")
_CLEF = r"(?:treble|alto|tenor|bass|perc|none|[GCFP])[1-5]?([+-](?:8|15))?"
_PROPERTY = re.compile(r"(?<!\S)([a-z]+)\s*=\s*(\"[^\"]*\"|[^\s\"]*)")
_WHOLE = re.compile(r"[+-]?[0-9]{1,2}")
_CLEF_SEMITONES = {"": 0, "+8": 12, "-8": -12, "+15": 24, "-15": -24}
_KEY_ACCIDENTAL = re.compile(r"(\^\^?|__?|=)([A-Ga-g])")


def read_shifts(text: str) -> dict[str, int]:
    """Semitones by which a ``K:`` or ``V:`` moves its notes: of its ``octave=``, ``transpose=`` and clef, as far as
    it has them: ``"C clef=treble-8" -> {"clef": -12}``."""
    found: dict[str, int] = {}
    for name, value in _PROPERTY.findall(text):
        if name in ("octave", "transpose") and _WHOLE.fullmatch(value):
            found[name] = int(value) * (12 if name == "octave" else 1)
        elif name == "clef" and (match := re.fullmatch(_CLEF, value.strip('"'))):
            found["clef"] = _CLEF_SEMITONES[match[1] or ""]
    for word in _PROPERTY.sub("", text).split()[1:] or text.split():
        if len(word) > 1 and (match := re.fullmatch(_CLEF, word)) and (match[1] or word[0].islower()):
            found["clef"] = _CLEF_SEMITONES[match[1] or ""]
    return found


def read_endings(text: str) -> frozenset[int]:
    """Passes of an ending: ``"1,3" -> {1, 3}``, ``"1-3" -> {1, 2, 3}``."""
    passes: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = (number[:3] for number in part.partition("-"))
        passes |= set(range(int(first or 0), int(last or first or 0) + 1))
    if not passes or not all(1 <= pass_ <= MAX_PASSES for pass_ in passes):
        raise BadSong(f"it has an ending that is not of passes in 1..{MAX_PASSES}")
    return frozenset(passes)


def read_order(text: str) -> str:
    """Parts in the order of playing: ``"A2.(BC)2" -> "AABCBC"``; "" for what is no such order."""
    order = re.sub(r"[\s.]", "", text)[:40]
    for pattern in (r"\(([A-Z]+)\)([0-9]?)", r"([A-Z])([1-9])"):
        order = re.sub(pattern, lambda found: found[1] * int(found[2] or 1), order)
    return order if order.isalpha() else ""


def read_meter(text: str) -> tuple[int, int]:
    named = {"C": (4, 4), "C|": (2, 2), "none": (4, 4), "": (4, 4)}
    if text in named:
        return named[text]
    match = re.fullmatch(r"\(?([0-9]{1,2}(?:\s*\+\s*[0-9]{1,2}){0,7})\)?\s*/\s*(1|2|4|8|16|32)", text)
    beats = sum(map(int, match[1].split("+"))) if match else 0
    if match is None or not 1 <= beats <= 64:
        raise BadSong("its metre is none of 1 to 64 beats over 1, 2, 4, 8, 16 or 32")
    return beats, int(match[2])


def read_unit(text: str) -> Fraction:
    match = re.fullmatch(r"1(?:\s*/\s*([0-9]{1,3}))?", text)
    below = int(match[1] or 1) if match else 0
    if below not in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        raise BadSong("its L: is no unit of note length such as 1/8")
    return Fraction(1, below)


def read_key(text: str) -> dict[str, int]:
    """Accidentals of a key, by letter: ``"ADor" -> {"F": 1}``."""
    text = _PROPERTY.sub("", text).strip()
    if text[:2] in ("HP", "Hp"):  # Highland pipes
        return {"F": 1, "C": 1}
    match = _KEY.match(text)
    mode, rest = (match[3].lower(), text[match.end() :]) if match else ("", text)
    explicit = {letter.upper(): SHIFT[sign] for sign, letter in _KEY_ACCIDENTAL.findall(rest)}
    if match is None or mode == "exp":
        if match is None and not re.match(r"none\b|(treble|alto|tenor|bass|perc)\b|$", text):
            raise BadSong("its key is not understood")
        return explicit
    shift = _MODES.get(mode if mode == "m" else mode[:3])
    if shift is None:
        if mode not in ("", "treble", "bass", "alto", "tenor", "perc", "none"):
            raise BadSong("the mode of its key is not understood")
        shift = 0
    fifths = _FIFTHS[match[1]] + 7 * ((match[2] == "#") - (match[2] == "b")) + shift
    order = "FCGDAEB" if fifths > 0 else "BEADGCF"
    signature: dict[str, int] = {}
    for index in range(abs(fifths)):
        letter = order[index % 7]
        signature[letter] = signature.get(letter, 0) + (1 if fifths > 0 else -1)
    return signature | explicit
