"""Melodies of the built-in songs: rhythm motifs, chord tones on strong beats, steps and suspensions between.

Pitches are MIDI numbers, positions frames from the start of the phrase; a note is (start, length, pitch).
"""

from __future__ import annotations

import dataclasses
import functools
import random

from gapt_jax.data_pipeline.grammar_harmony import Slot, intervals_of, pick

LOWEST, HIGHEST = 60, 81  # C4..A5
FrameNote = tuple[int, int, int]

# Lengths in frames that fill one bar; a negative length is a rest.
_MOTIFS: dict[int, tuple[tuple[int, ...], ...]] = {
    4: (
        (4, 4, 4, 4), (8, 4, 4), (4, 4, 8), (2, 2, 4, 4, 4), (4, 2, 2, 4, 4), (6, 2, 4, 4), (6, 2, 8),
        (2, 2, 2, 2, 4, 4), (4, 4, 2, 2, 4), (2, 2, 2, 2, 2, 2, 4), (3, 3, 2, 4, 4), (3, 3, 2, 8),
        (2, 4, 2, 4, 4), (-4, 4, 4, 4), (-2, 2, 2, 2, 4, 4), (12, 4), (1, 1, 2, 4, 2, 2, 4),
        (4, 2, 4, 2, 4), (2, 4, 4, 4, 2),
    ),
    3: (
        (4, 4, 4), (8, 4), (4, 8), (6, 2, 4), (2, 2, 4, 4), (4, 2, 2, 4), (4, 4, 2, 2), (2, 2, 2, 2, 4),
        (-4, 4, 4), (6, 6), (3, 1, 4, 4), (2, 2, 2, 2, 2, 2),
    ),
}  # fmt: skip
_CLOSINGS: dict[int, tuple[tuple[int, ...], ...]] = {
    4: ((8, -8), (12, -4), (4, 8, -4), (4, 4, 4, -4), (2, 2, 8, -4), (16,)),
    3: ((8, -4), (4, 4, -4), (12,), (2, 2, 4, -4)),
}


@dataclasses.dataclass(frozen=True)
class Line:
    """How one song's melody moves: scale and tonic as pitch classes, middle pitch, share of chord tones."""

    tonic: int
    scale: tuple[int, ...]
    centre: int
    chord_tones: float  # on strong beats; less between them


@functools.cache
def _chord_classes(tonic: int, root: int, quality: str) -> frozenset[int]:
    return frozenset((tonic + root + step) % 12 for step in intervals_of(quality))


@functools.cache
def _ladder(tonic: int, scale: tuple[int, ...], root: int, quality: str) -> tuple[int, ...]:
    """Pitches that suit a chord: the scale, whose notes give way to neighbouring notes of the chord."""
    inside = frozenset((tonic + step) % 12 for step in scale)
    foreign = _chord_classes(tonic, root, quality) - inside
    kept = {c for c in inside if not any((c - f) % 12 in (1, 11) for f in foreign)}
    return tuple(pitch for pitch in range(LOWEST, HIGHEST + 1) if pitch % 12 in kept | foreign)


@functools.cache
def _tones(tonic: int, root: int, quality: str) -> tuple[int, ...]:
    classes = _chord_classes(tonic, root, quality)
    return tuple(pitch for pitch in range(LOWEST, HIGHEST + 1) if pitch % 12 in classes)


def phrase_rhythm(rng: random.Random, beats_per_bar: int, motifs: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Four bars of rhythm made of a song's motifs, the last one closing the phrase."""
    plan = rng.choice(((0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)))
    return [*(motifs[i % len(motifs)] for i in plan), rng.choice(_CLOSINGS[beats_per_bar])]


def song_motifs(rng: random.Random, beats_per_bar: int) -> list[tuple[int, ...]]:
    """Two or three bars of rhythm that a song is built from."""
    return rng.sample(_MOTIFS[beats_per_bar], rng.choice((2, 3, 3)))


def _nearest(rng: random.Random, options: tuple[int, ...], previous: int, aim: int) -> int:
    """A near pitch, rather towards `aim`; never the very same leap each time."""
    best, least = options[0], float("inf")
    for pitch in options:
        distance = abs(pitch - previous)
        cost = 0.6 * distance + 0.3 * abs(pitch - aim) + 5.0 * rng.random() + (3.0 if distance == 0 else 0.0)
        if cost < least:
            best, least = pitch, cost
    return best


def _step(rng: random.Random, ladder: tuple[int, ...], previous: int, aim: int) -> int:
    """The next scale note up or down, rather towards `aim`."""
    up = rng.random() < (0.7 if aim > previous else 0.3)
    if up:
        return next((pitch for pitch in ladder if pitch > previous), ladder[-2])
    return next((pitch for pitch in reversed(ladder) if pitch < previous), ladder[1])


def _slot_at(slots: list[Slot], frame: int) -> tuple[Slot, int]:
    """The chord at a frame and the frame where it ends."""
    end = 0
    for slot in slots:
        end += slot.frames
        if frame < end:
            return slot, end
    return slots[-1], end


def phrase_melody(
    rng: random.Random, line: Line, slots: list[Slot], rhythm: list[tuple[int, ...]], previous: int
) -> list[FrameNote]:
    """A melody over the chords of a phrase, starting near the pitch `previous`."""
    notes: list[FrameNote] = []
    total = sum(slot.frames for slot in slots)
    frame, suspended = 0, False
    for length in (length for bar in rhythm for length in bar):
        if length < 0:
            frame -= length
            continue
        slot, end = _slot_at(slots, frame)
        if frame + length >= end and end < total and length <= 2 and rng.random() < 0.3:
            slot = _slot_at(slots, end)[0]  # anticipation of the next chord
        aim = line.centre + round(5 * (1 - abs(2 * frame / total - 1))) - 2  # an arch over the phrase
        previous, suspended = _pitch(rng, line, slot, previous, aim, frame % 4 == 0, length, suspended)
        notes.append((frame, length, previous))
        frame += length
    return notes


def _pitch(
    rng: random.Random,
    line: Line,
    slot: Slot,
    previous: int,
    aim: int,
    strong: bool,
    length: int,
    suspended: bool,
) -> tuple[int, bool]:
    """Next pitch, and whether it is a suspension that must resolve downwards."""
    ladder = _ladder(line.tonic, line.scale, slot.root, slot.quality)
    tones = _tones(line.tonic, slot.root, slot.quality)
    if suspended:
        return next((pitch for pitch in reversed(ladder) if pitch < previous), previous), False
    if strong:
        if previous not in tones and previous in ladder and length <= 4 and rng.random() < 0.25:
            return previous, True
        certain = 0.12 if length >= 8 else 0.0
        if rng.random() < line.chord_tones + certain:
            return _nearest(rng, tones, previous, aim), False
        return _step(rng, ladder, previous, aim), False
    kind = pick(rng, (("step", 0.55), ("tone", 0.35), ("repeat", 0.1)))
    if kind == "repeat":
        return previous, False
    if kind == "tone":
        return _nearest(rng, tones, previous, aim), False
    return _step(rng, ladder, previous, aim), False


def vary(rng: random.Random, line: Line, slots: list[Slot], notes: list[FrameNote]) -> list[FrameNote]:
    """The melody again, with a few notes changed: split in two, or moved to another tone of the chord."""
    varied: list[FrameNote] = []
    for start, length, pitch in notes:
        slot = _slot_at(slots, start)[0]
        if length >= 4 and length % 4 == 0 and rng.random() < 0.08:
            neighbour = _step(rng, _ladder(line.tonic, line.scale, slot.root, slot.quality), pitch, line.centre)
            varied += [(start, length // 2, pitch), (start + length // 2, length - length // 2, neighbour)]
        elif rng.random() < 0.06:
            tones = _tones(line.tonic, slot.root, slot.quality)
            varied.append((start, length, _nearest(rng, tones, pitch, line.centre)))
        else:
            varied.append((start, length, pitch))
    return varied
