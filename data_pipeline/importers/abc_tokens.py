"""The tokens of music in ABC notation, and what the length after a note means."""

from __future__ import annotations

import re
from fractions import Fraction

from gapt_jax.data_pipeline.songs import MAX_BEATS, BadSong

_LENGTH = r"(?P<{0}up>[0-9]{{0,6}})(?P<{0}over>/*)(?P<{0}down>[0-9]{{0,6}})"
# What is quoted or bracketed has a length limit: else a line of opening marks is read again from each of them.
TOKEN = re.compile(
    r'"(?P<text>[^"]{0,1000})"'
    # decorations, but not the notes between two old line breaks
    r"|!(?:(?=[0-9f<>()+.]{0,99}!)|(?![A-Ga-gxzZ0-9,'/|:\[\]^_=<>()-]{0,99}!))[^!\s]{0,99}!"
    r"|\+[^+\s]{0,99}\+|\{[^}]{0,1000}\}|y[0-9]*"  # grace notes, space
    r"|\[(?P<field>[A-Za-z]):\s*(?P<value>[^\]]{0,1000})\]"
    r"|(?P<bar>(?:\[(?=\|))?[:|]*\|[:|]*\]?|::+)\s*(?:\[?(?P<after>[0-9][0-9,\-]*))?"
    r"|\[(?P<ending>[0-9][0-9,\-]*)"
    r"|\((?P<tuplet>[2-9])(?::(?P<time>[1-9]?))?(?::(?P<among>[1-9]?))?"
    rf"|(?P<rest>[zxZX]){_LENGTH.format('r')}"
    rf"|(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-g])(?P<octave>[,']*){_LENGTH.format('n')}"
    rf"|\[(?P<chord>[^\]\[|]{{0,1000}})\]{_LENGTH.format('c')}"
    r"|(?P<broken>>{1,3}|<{1,3})"
    r"|(?P<tie>-)"
    r"|(?P<overlay>&)"
)
CHORD_NOTE = re.compile(
    rf"(?P<accidental>\^\^?|__?|=)?(?P<letter>[A-Ga-g])(?P<octave>[,']*){_LENGTH.format('n')}(?P<tie>-?)"
)
_GRID = 2**12 * 3**4 * 5**2 * 7 * 11 * 13  # a beat is divided no finer, so that positions stay short fractions


def spelt(match: re.Match[str]) -> str:
    """A note without its accidental and length."""
    return match["letter"] + match["octave"]


def length(match: re.Match[str], part: str) -> Fraction:
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


def check_length(length: Fraction) -> None:
    """Raises BadSong where whole notes of this `length` cannot be played."""
    if length <= 0 or 4 * length > MAX_BEATS or _GRID % length.denominator:
        raise BadSong("it has a note that is longer or shorter than can be played")
