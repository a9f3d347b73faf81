"""Chord names of the published vocabulary, which are note-seq's: what its writer meant by them."""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path

from gapt_jax import chords
from gapt_jax.errors import UserError
from gapt_jax.vocabulary import CHORD_HOLD, Vocabulary

_MAJOR = (0, 2, 4, 5, 7, 9, 11)  # semitones of the degrees 1 to 7


def _degree(text: str) -> tuple[int, int]:
    """Number and semitones above the root of a degree of the major scale: ``"bb7" -> (7, 9)``."""
    number = int(text.lstrip("#b"))
    return number, _MAJOR[(number - 1) % 7] + text.count("#") - text.count("b")


# note-seq's kinds of chords as it writes them, with their degrees.
_KIND_DEGREES = """
=1,3,5 m=1,b3,5 +=1,3,#5 o=1,b3,b5 sus2=1,2,5 sus=1,4,5 ped=1 5=1,5 6=1,3,5,6 m6=1,b3,5,6 6/9=1,3,5,6,9
7=1,3,5,b7 maj7=1,3,5,7 m7=1,b3,5,b7 mmaj7=1,b3,5,7 o7=1,b3,b5,bb7 m7b5=1,b3,b5,b7 +7=1,3,#5,b7 sus7=1,4,5,b7
9=1,3,5,b7,9 maj9=1,3,5,7,9 m9=1,b3,5,b7,9 +9=1,3,#5,b7,9 11=1,3,5,b7,9,11 maj11=1,3,5,7,9,11 m11=1,b3,5,b7,9,11
13=1,3,5,b7,9,11,13 maj13=1,3,5,7,9,11,13 m13=1,b3,5,b7,9,11,13
"""
_KINDS = {
    kind: dict(map(_degree, degrees.split(",")))
    for kind, _, degrees in (text.partition("=") for text in _KIND_DEGREES.split())
}
_CHANGE = re.compile(r"\(?(add|no|(?=[#b]))([#b]{0,2}(?:1[13]|[1-79]))\)?")
_NAME = re.compile(
    f"([A-G](?:##?|bb?)?)({'|'.join(map(re.escape, _KINDS))})((?:{_CHANGE.pattern})*)(?:/([A-G](?:##?|bb?)?))?"
)


def chord_names(path: Path) -> list[str]:
    """The chord names of the published implementation's vocabulary file, a JSON array, in the order of their ids."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no readable JSON ({error})") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is not a JSON array of chord names")
    if len(set(names)) < len(names):
        (name, _), *_ = collections.Counter(names).most_common(1)
        raise UserError(f"{path} has the chord name {name!r} twice")
    return names


def read_vocabulary(path: Path, size: int) -> Vocabulary:
    """The vocabulary of `size` tokens whose chord names a file lists: ids as those of the weights beside it.

    Names of one chord keep an id each.
    """
    names = chord_names(path)
    if CHORD_HOLD + 2 * len(names) != size:
        raise UserError(
            f"{path} has {len(names)} chord names, which makes {CHORD_HOLD + 2 * len(names)} tokens, but the weights "
            f"have {size}: take the file that they were trained with"
        )
    try:
        read = [read_chord(name) for name in names]
    except ValueError as error:
        raise UserError(f"{path} has a name that cannot be read: {error}") from None
    roots, intervals = zip(*read, strict=True)
    return Vocabulary(tuple(names), roots, intervals)


def read_chord(name: str) -> tuple[int, tuple[int, ...]]:
    """Root pitch class and folded intervals (`chords.fold`) of the chord that note-seq wrote so. Raises ValueError.

    ``"Db7(#9)" -> (1, (0, 3, 4, 7, 10))``. Not `chords.parse`, which reads lead sheets: there a 13 has no 11th and an
    added 7 is minor, here it has one and an added 7 is major. note-seq got chords in root position (in
    lukewys/realchords-pytorch: realchords/utils/data_utils.py:44-49), so what it took for a bass is the root:
    ``"F/C" -> (0, (0, 5, 9))``.
    """
    match = _NAME.fullmatch(name) if len(name) <= chords.MAX_SYMBOL else None
    if match is None:
        raise ValueError(f"{name[: chords.MAX_SYMBOL]!r} is no chord name of note-seq")
    degrees = dict(_KINDS[match[2]])
    for verb, text in _CHANGE.findall(match[3]):
        number, step = _degree(text)
        if verb == "no":
            degrees.pop(number, None)
        else:
            degrees[number] = step
    top, root = chords.parse(match[1]).root, chords.parse(match.groups()[-1] or match[1]).root
    return root, chords.fold(top + step - root for step in (0, *degrees.values()))
