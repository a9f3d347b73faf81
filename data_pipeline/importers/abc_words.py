"""Texts in quotation marks that are words for the player, not chord symbols. Pure."""

from __future__ import annotations

import re

from gapt_jax import chords

_TRADE = """
fine fin end ende segno coda dc ds da dal capo al repeat repeats rpt bis volta time times twice thrice
st nd rd th first second third fourth last final intro introduction outro interlude verse chorus refrain bridge solo
tutti tacet break tag turn turnaround vamp ending part pt tune variation var head bass drums fiddle
tr trill mordent fermata roll slide accent staccato legato pizz arco gliss simile sim div unis
p pp ppp f ff fff mf mp sf sfz sfp fp rit ritard ritardando rall rallentando accel accelerando cresc crescendo
decresc decrescendo dim diminuendo tempo dolce cantabile espressivo espress marcato rubato swing straight
slow slowly fast faster slower lively quick quickly quietly softly loud presto allegro allegretto andante andantino
adagio largo moderato vivace maestoso grave meno mosso poco molto piu più con senza lib ad loco ottava
up down bow left right hand pull hammer strum play hold pause breath drone x optional tap clap stamp shout sing
"""
_WORDS = frozenset(_TRADE.split())
_NOTHING_SAID = re.compile(r"[^A-Za-z]*")  # fingerings, ~, numbers of bars


def is_words(text: str) -> bool:
    """Whether a text that is no chord symbol is words for the player: it has no letter at all, or a word of the trade,
    or is several words; and none of them could be a chord (``"Am 2nd time"``), but for a letter as in ``"part B"``."""
    parts = text.split()
    found = [word.lower() for part in parts for word in re.findall(r"[^\W\d_]+", part.replace(".", ""))]
    if _NOTHING_SAID.fullmatch(text):
        return True
    if any(len(part) > 1 and part.lower() not in _WORDS and _is_chord(part) for part in parts):
        return False
    return not _WORDS.isdisjoint(found) or (len(found) > 1 and max(map(len, found)) > 2)


def _is_chord(text: str) -> bool:
    try:
        chords.parse(text.strip("(),:;"))
    except ValueError:
        return False
    return True
