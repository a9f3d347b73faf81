"""Built-in tonal songs, made from (dataset, index) alone: harmony to train and test on without any download.

``grammar`` has major and minor songs with functional progressions; ``grammar_modal`` dorian and mixolydian
ones with other progressions, to evaluate on and never to train on. ``grammar_c`` is ``grammar`` in C major and A minor
alone, for policies so small or so briefly trained that they learn no other key. A song is four or eight phrases of four
bars (AABA, ABAB, ABAC).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator

from gapt_jax import chords
from gapt_jax.data_pipeline.examples import SPLITS
from gapt_jax.data_pipeline.grammar_harmony import MODES, Mode, Slot, Style, intervals_of, phrase_chords, pick
from gapt_jax.data_pipeline.grammar_melody import FrameNote, Line, phrase_melody, phrase_rhythm, song_motifs, vary
from gapt_jax.data_pipeline.songs import ChordEvent, Note, Song
from gapt_jax.vocabulary import FRAMES_PER_BEAT

GENERATOR_VERSION = 1  # raise with every change of the songs: prepared datasets are then made anew
_FORMS = ("AABA", "ABAB", "ABAC")


@dataclasses.dataclass(frozen=True)
class GrammarDataset:
    """What a built-in dataset holds: modes with their shares, songs per split (train, valid, test), seed."""

    modes: tuple[tuple[str, float], ...]
    songs: tuple[int, int, int]
    seed: int
    tonics: tuple[tuple[str, int], ...] = dataclasses.field(default=(), repr=False)  # by mode; any where it has none


DATASETS = {
    "grammar": GrammarDataset((("major", 0.6), ("minor", 0.4)), (3000, 300, 300), 0),
    "grammar_c": GrammarDataset(
        (("major", 0.6), ("minor", 0.4)), (3000, 300, 300), 0, tonics=(("major", 0), ("minor", 9))
    ),
    "grammar_modal": GrammarDataset((("dorian", 0.5), ("mixolydian", 0.5)), (100, 100, 300), 0),
}


@dataclasses.dataclass(frozen=True)
class _Phrase:
    slots: list[Slot]
    rhythm: list[tuple[int, ...]]
    notes: list[FrameNote]


def fingerprint_text(name: str) -> str:
    """Everything the songs of a built-in dataset depend on."""
    dataset = DATASETS[name]
    return f"{name} version {GENERATOR_VERSION} {dataset!r}" + (f" {dataset.tonics}" if dataset.tonics else "")


def generate(name: str) -> Iterator[Song]:
    """All songs of a built-in dataset: train, then valid, then test."""
    dataset = DATASETS[name]
    splits = [split for split, count in zip(SPLITS, dataset.songs, strict=True) for _ in range(count)]
    for index, split in enumerate(splits):
        yield make_song(name, index, split)


def make_song(name: str, index: int, split: str) -> Song:
    """Song number `index` of a built-in dataset; the same on every machine."""
    dataset = DATASETS[name]
    rng = random.Random(f"{name}/{dataset.seed}/{index}")
    mode = MODES[pick(rng, dataset.modes)]
    beats_per_bar = 4 if rng.random() < 0.75 else 3
    any_tonic = rng.randrange(12)
    tonic = dict(dataset.tonics).get(mode.name, any_tonic)
    phrases = _phrases(rng, mode, tonic, beats_per_bar)
    pickup = rng.choice((1, 2)) if rng.random() < 0.25 else 0
    song_id = f"{name}/{index:05d}"
    notes, events, frames = _lay_out(rng, phrases, tonic, FRAMES_PER_BEAT * pickup)
    return Song(
        id=song_id,
        dataset=name,
        title=f"{chords.ROOT_NAMES[tonic]} {mode.name} no. {index}",
        split=split,
        group=song_id,
        meter=(beats_per_bar, 4),
        pickup=float(pickup),
        beats_total=frames / FRAMES_PER_BEAT,
        melody=tuple(notes),
        chords=tuple(events),
    )


def _style(rng: random.Random) -> Style:
    return Style(
        sevenths=pick(rng, ((0.05, 0.5), (0.25, 0.3), (0.75, 0.2))),
        chromatic=pick(rng, ((0.04, 0.5), (0.12, 0.3), (0.3, 0.2))),
        density=rng.random() * 0.8 + 0.1,
    )


def _phrases(rng: random.Random, mode: Mode, tonic: int, beats_per_bar: int) -> list[_Phrase]:
    """The phrases of a song in order. A letter of the form that comes back brings back its chords and rhythm,
    and the melody with variations; the last phrase closes."""
    style, motifs = _style(rng), song_motifs(rng, beats_per_bar)
    line = Line(tonic, mode.scale, rng.randint(66, 73), rng.uniform(0.66, 0.84))
    letters = rng.choice(_FORMS) * (2 if rng.random() < 0.2 else 1)
    known: dict[str, _Phrase] = {}
    phrases: list[_Phrase] = []
    for i, letter in enumerate(letters):
        last = i == len(letters) - 1
        before = phrases[-1].notes[-1][2] if phrases else line.centre
        if letter in known and not last:
            phrases.append(_again(rng, line, known[letter]))
            continue
        phrases.append(_new_phrase(rng, mode, style, line, beats_per_bar, motifs, before, known.get(letter), last))
        known.setdefault(letter, phrases[-1])
    return phrases


def _again(rng: random.Random, line: Line, phrase: _Phrase) -> _Phrase:
    return dataclasses.replace(phrase, notes=vary(rng, line, phrase.slots, phrase.notes))


def _new_phrase(
    rng: random.Random, mode: Mode, style: Style, line: Line, beats_per_bar: int,
    motifs: list[tuple[int, ...]], before: int, model: _Phrase | None, last: bool,
) -> _Phrase:  # fmt: skip
    slots = phrase_chords(rng, mode, style, beats_per_bar, last)
    if model is None:
        rhythm = phrase_rhythm(rng, beats_per_bar, motifs)
        return _Phrase(slots, rhythm, phrase_melody(rng, line, slots, rhythm, before))
    slots = _join_halves(model.slots, slots)
    notes = phrase_melody(rng, line, slots, model.rhythm, before)
    half = sum(slot.frames for slot in slots) // 2
    kept = [note for note in vary(rng, line, slots, model.notes) if note[0] + note[1] <= half]
    return _Phrase(slots, model.rhythm, kept + [note for note in notes if note[0] >= half])


def _take(slots: list[Slot], start: int, end: int) -> list[Slot]:
    """The part of a phrase between two frames."""
    taken, frame = [], 0
    for slot in slots:
        frames = min(end, frame + slot.frames) - max(start, frame)
        if frames > 0:
            taken.append(dataclasses.replace(slot, frames=frames))
        frame += slot.frames
    return taken


def _join_halves(first: list[Slot], second: list[Slot]) -> list[Slot]:
    """First half of one phrase, second half of another of the same length."""
    total = sum(slot.frames for slot in first)
    return _take(first, 0, total // 2) + _take(second, total // 2, total)


def _bass(rng: random.Random, root: int, intervals: tuple[int, ...]) -> int:
    step = intervals[rng.choice((1, 2))] if len(intervals) > 2 and rng.random() < 0.12 else 0
    return (root + step) % 12


def _pickup_notes(rng: random.Random, first: int, frames: int) -> list[Note]:
    """Scale-wise notes of half a beat that lead up to the first pitch before any chord sounds."""
    steps = range(frames // 2, 0, -1)
    down = rng.random() < 0.5
    pitches = [first + (2 * step if down else -2 * step) for step in steps]
    return [Note(0.5 * i, 0.5 * (i + 1), pitch) for i, pitch in enumerate(pitches)]


def _lay_out(
    rng: random.Random, phrases: list[_Phrase], tonic: int, pickup_frames: int
) -> tuple[list[Note], list[ChordEvent], int]:
    """Notes and chords in beats, and the length in frames."""
    notes = _pickup_notes(rng, phrases[0].notes[0][2], pickup_frames)
    events: list[ChordEvent] = []
    frame = pickup_frames
    for phrase in phrases:
        for start, length, pitch in phrase.notes:
            onset = (frame + start) / FRAMES_PER_BEAT
            notes.append(Note(onset, onset + length / FRAMES_PER_BEAT, pitch))
        for slot in phrase.slots:
            root, intervals = (tonic + slot.root) % 12, intervals_of(slot.quality)
            bass = _bass(rng, root, intervals)
            text = chords.symbol(chords.Chord(root, intervals, bass))
            onset, offset = frame / FRAMES_PER_BEAT, (frame + slot.frames) / FRAMES_PER_BEAT
            events.append(ChordEvent(onset, offset, root, intervals, bass, text))
            frame += slot.frames
    return notes, events, frame
