"""Harmony of the built-in songs: progressions over one phrase, as a Markov grammar with substitutions.

Chords here are relative to the tonic: roots are semitones above it, positions and durations are frames.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Sequence
from typing import Any, TypeVar

from gapt_jax import chords

T = TypeVar("T")
Weighted = tuple[tuple[T, float], ...]

TONIC, SUBDOMINANT, DOMINANT = "T", "S", "D"


@dataclasses.dataclass(frozen=True)
class Slot:
    """One chord of a phrase: length in frames, function, root above the tonic, quality suffix (`chords`)."""

    frames: int
    function: str
    root: int
    quality: str


@dataclasses.dataclass(frozen=True)
class Mode:
    """A scale, the chords of each function (root above the tonic, triad), the moves between functions."""

    name: str
    scale: tuple[int, ...]
    chords: dict[str, Weighted[tuple[int, str]]]
    moves: dict[str, Weighted[str]]
    cadences: Weighted[tuple[str, ...]]
    final: tuple[str, ...]  # functions of the last slots of the song
    deceptive: tuple[int, str]  # what a deceptive cadence lands on


@dataclasses.dataclass(frozen=True)
class Style:
    """How one song is coloured; probabilities per chord."""

    sevenths: float
    chromatic: float
    density: float  # 0 few chord changes .. 1 many


_FUNCTIONAL: dict[str, Weighted[str]] = {
    TONIC: ((TONIC, 0.2), (SUBDOMINANT, 0.55), (DOMINANT, 0.25)),
    SUBDOMINANT: ((SUBDOMINANT, 0.2), (DOMINANT, 0.55), (TONIC, 0.25)),
    DOMINANT: ((TONIC, 0.7), (SUBDOMINANT, 0.15), (DOMINANT, 0.15)),
}
_FUNCTIONAL_CADENCES: Weighted[tuple[str, ...]] = (
    ((SUBDOMINANT, DOMINANT, TONIC), 0.42),  # authentic
    ((SUBDOMINANT, DOMINANT), 0.3),  # half
    ((DOMINANT, "deceptive"), 0.16),
    ((SUBDOMINANT, TONIC), 0.12),  # plagal
)
_MODAL: dict[str, Weighted[str]] = {
    TONIC: ((TONIC, 0.15), (SUBDOMINANT, 0.35), (DOMINANT, 0.5)),
    SUBDOMINANT: ((SUBDOMINANT, 0.1), (DOMINANT, 0.2), (TONIC, 0.7)),
    DOMINANT: ((TONIC, 0.4), (SUBDOMINANT, 0.5), (DOMINANT, 0.1)),
}
_MODAL_CADENCES: Weighted[tuple[str, ...]] = (
    ((DOMINANT, SUBDOMINANT, TONIC), 0.4),
    ((SUBDOMINANT, TONIC), 0.25),
    ((DOMINANT, TONIC), 0.2),
    ((DOMINANT,), 0.15),
)

MODES = {
    "major": Mode(
        "major",
        (0, 2, 4, 5, 7, 9, 11),
        {
            TONIC: (((0, ""), 0.62), ((9, "m"), 0.28), ((4, "m"), 0.1)),
            SUBDOMINANT: (((5, ""), 0.6), ((2, "m"), 0.36), ((9, "m"), 0.04)),
            DOMINANT: (((7, ""), 0.9), ((11, "dim"), 0.06), ((4, "m"), 0.04)),
        },
        _FUNCTIONAL,
        _FUNCTIONAL_CADENCES,
        (DOMINANT, TONIC),
        (9, "m"),
    ),
    "minor": Mode(
        "minor",
        (0, 2, 3, 5, 7, 8, 10),
        {
            TONIC: (((0, "m"), 0.7), ((3, ""), 0.18), ((8, ""), 0.12)),
            SUBDOMINANT: (((5, "m"), 0.55), ((8, ""), 0.25), ((2, "dim"), 0.2)),
            DOMINANT: (((7, ""), 0.6), ((10, ""), 0.28), ((11, "dim"), 0.08), ((7, "m"), 0.04)),
        },
        _FUNCTIONAL,
        _FUNCTIONAL_CADENCES,
        (DOMINANT, TONIC),
        (8, ""),
    ),
    "dorian": Mode(
        "dorian",
        (0, 2, 3, 5, 7, 9, 10),
        {
            TONIC: (((0, "m"), 0.85), ((3, ""), 0.15)),
            SUBDOMINANT: (((5, ""), 0.75), ((2, "m"), 0.25)),
            DOMINANT: (((10, ""), 0.6), ((7, "m"), 0.4)),
        },
        _MODAL,
        _MODAL_CADENCES,
        (SUBDOMINANT, TONIC),
        (3, ""),
    ),
    "mixolydian": Mode(
        "mixolydian",
        (0, 2, 4, 5, 7, 9, 10),
        {
            TONIC: (((0, ""), 0.85), ((9, "m"), 0.15)),
            SUBDOMINANT: (((5, ""), 0.75), ((2, "m"), 0.25)),
            DOMINANT: (((10, ""), 0.75), ((7, "m"), 0.25)),
        },
        _MODAL,
        _MODAL_CADENCES,
        (DOMINANT, TONIC),
        (9, "m"),
    ),
}

# Chord lengths in beats over two bars, by beats a bar, few changes first.
_RHYTHMS: dict[int, tuple[tuple[int, ...], ...]] = {
    4: ((8,), (4, 4), (6, 2), (4, 2, 2), (2, 2, 4), (2, 2, 2, 2)),
    3: ((6,), (3, 3), (3, 2, 1), (2, 1, 3), (2, 1, 2, 1)),
}
# Richer forms of a triad. A dominant is a major triad in dominant function.
_COLOURS: dict[str, Weighted[str]] = {
    "": (("maj7", 0.55), ("6", 0.15), ("add9", 0.15), ("maj9", 0.07), ("69", 0.04), ("sus2", 0.04)),
    "m": (("m7", 0.8), ("m9", 0.1), ("madd9", 0.05), ("m6", 0.05)),
    "dominant": (("7", 0.78), ("9", 0.08), ("7sus4", 0.06), ("7b9", 0.04), ("13", 0.02), ("7#9", 0.02)),
    "dim": (("m7b5", 0.7), ("dim7", 0.3)),
}


def pick(rng: random.Random, weighted: Sequence[tuple[Any, float]]) -> Any:
    """One of the values, with probability in proportion to its weight."""
    left = rng.random() * sum(weight for _, weight in weighted)
    for value, weight in weighted:
        left -= weight
        if left < 0:
            return value
    return weighted[-1][0]


@functools.cache
def intervals_of(quality: str) -> tuple[int, ...]:
    """Interval set of a quality suffix."""
    return chords.parse("C" + quality).intervals


def _functions(rng: random.Random, mode: Mode, count: int, last: bool) -> list[str]:
    """Functions of a phrase: a Markov walk from the tonic that ends in a cadence."""
    tail = list(mode.final if last else pick(rng, mode.cadences))[-count:]
    walk = [TONIC]
    while len(walk) + len(tail) < count:
        walk.append(pick(rng, mode.moves[walk[-1]]))
    return (walk + tail)[-count:]


def _rhythm(rng: random.Random, beats_per_bar: int, density: float) -> list[int]:
    """Chord lengths in beats over four bars."""
    patterns = _RHYTHMS[beats_per_bar]
    centre = density * (len(patterns) - 1)
    weighted = [(pattern, 2.0 ** -abs(i - centre)) for i, pattern in enumerate(patterns)]
    return [*pick(rng, weighted), *pick(rng, weighted)]


def _choose(rng: random.Random, mode: Mode, function: str, previous: Slot | None, last: bool) -> tuple[int, str]:
    if function == "deceptive":
        return mode.deceptive
    options = mode.chords[function]
    if (last and function == TONIC) or (previous is None and rng.random() < 0.8):
        return options[0][0]
    if previous is not None and len(options) > 1 and rng.random() < 0.85:
        options = tuple(option for option in options if option[0][0] != previous.root) or options
    return pick(rng, options)


def _progression(rng: random.Random, mode: Mode, lengths: Sequence[int], last: bool) -> list[Slot]:
    slots: list[Slot] = []
    functions = _functions(rng, mode, len(lengths), last)
    for i, (beats, function) in enumerate(zip(lengths, functions, strict=True)):
        at_end = last and i == len(lengths) - 1
        root, quality = _choose(rng, mode, function, slots[-1] if slots else None, at_end)
        slots.append(Slot(4 * beats, TONIC if function == "deceptive" else function, root, quality))
    return slots


def _substitute(rng: random.Random, mode: Mode, slot: Slot, after: Slot, chromatic: float) -> Slot:
    """Replaces a chord by one from outside the key that leads to the next chord as well or better."""
    if slot.function == DOMINANT and slot.root == 7 and after.root == 0:
        if rng.random() < 0.35 * chromatic:
            return dataclasses.replace(slot, root=1, quality="7")  # tritone substitute
        if rng.random() < 0.25 * chromatic:
            return dataclasses.replace(slot, quality=rng.choice(("aug", "7#5")))
    if slot.function == SUBDOMINANT and slot.root == 5 and slot.quality == "" and rng.random() < chromatic:
        borrowed = (((5, "m"), 0.5), ((5, "m6"), 0.2), ((8, ""), 0.15), ((10, ""), 0.15))
        root, quality = pick(rng, borrowed)
        return dataclasses.replace(slot, root=root, quality=quality)
    leads = after.root != slot.root and after.quality in ("", "m") and after.root != 0
    if slot.function != DOMINANT and leads and rng.random() < chromatic:
        if rng.random() < 0.2:
            return dataclasses.replace(slot, root=(after.root + 11) % 12, quality="dim7")
        return dataclasses.replace(slot, root=(after.root + 7) % 12, quality="7")  # secondary dominant
    return slot


def _colour(rng: random.Random, slot: Slot, sevenths: float) -> Slot:
    dominant = slot.function == DOMINANT and slot.quality == "" and slot.root == 7
    kind = "dominant" if dominant else slot.quality
    likely = min(1.0, sevenths + (0.3 if dominant else 0.0))
    if kind not in _COLOURS or rng.random() >= likely:
        return slot
    return dataclasses.replace(slot, quality=pick(rng, _COLOURS[kind]))


def _split(rng: random.Random, slot: Slot, after: Slot | None, chromatic: float) -> list[Slot]:
    """A suspension that resolves, or a diminished chord passing to the next root, inside one slot."""
    half = slot.frames // 8 * 4
    if half < 4:
        return [slot]
    first, second = (dataclasses.replace(slot, frames=frames) for frames in (half, slot.frames - half))
    if slot.quality in ("", "7") and rng.random() < (0.12 if slot.function == DOMINANT else 0.03):
        return [dataclasses.replace(first, quality="7sus4" if slot.quality == "7" else "sus4"), second]
    rises = after is not None and (after.root - slot.root) % 12 == 2
    if rises and rng.random() < chromatic:
        return [first, dataclasses.replace(second, root=(slot.root + 1) % 12, quality="dim7")]
    return [slot]


def _merge(slots: Sequence[Slot]) -> list[Slot]:
    """Joins equal neighbours."""
    merged: list[Slot] = []
    for slot in slots:
        if merged and (merged[-1].root, merged[-1].quality) == (slot.root, slot.quality):
            merged[-1] = dataclasses.replace(merged[-1], frames=merged[-1].frames + slot.frames)
        else:
            merged.append(slot)
    return merged


def phrase_chords(rng: random.Random, mode: Mode, style: Style, beats_per_bar: int, last: bool) -> list[Slot]:
    """Chords of a phrase of four bars; the last phrase of a song closes on the tonic."""
    slots = _progression(rng, mode, _rhythm(rng, beats_per_bar, style.density), last)
    for i, (slot, after) in enumerate(itertools.pairwise(slots)):
        slots[i] = _substitute(rng, mode, slot, after, style.chromatic)
    slots = [_colour(rng, slot, style.sevenths) for slot in slots]
    afters = [*slots[1:], None]
    return _merge([part for slot, after in zip(slots, afters, strict=True) for part in
                   _split(rng, slot, after, style.chromatic)])  # fmt: skip
