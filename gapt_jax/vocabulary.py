"""Token ids, the chord vocabulary and the tables that rules and metrics look things up in.

Layout (C chords): PAD 0, BOS 1, EOS 2, SILENCE 3, note HOLD 4+p, note ONSET 132+p, chord HOLD 260+i,
chord ONSET 260+C+i. One frame is a sixteenth note; a sounding event is one ONSET followed by HOLDs.
A vocabulary is data: it is saved in every checkpoint and bundle, and a mismatch is an error.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gapt_jax import chords
from gapt_jax.errors import UserError
from gapt_jax.task import BOS as BOS
from gapt_jax.task import EOS as EOS
from gapt_jax.task import PAD as PAD

SILENCE = 3
NOTE_HOLD, NOTE_ONSET, CHORD_HOLD = 4, 132, 260
NUM_PITCHES = 128
FRAMES_PER_BEAT = 4
RHYTHM_SIZE = 6  # PAD BOS EOS SILENCE ONSET HOLD
NO_EVENT = -1


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Chord names with their roots and interval sets; token ids follow from the order of the names."""

    names: tuple[str, ...]
    roots: tuple[int, ...]
    intervals: tuple[tuple[int, ...], ...]

    @classmethod
    def from_qualities(cls, qualities: Sequence[tuple[int, ...]]) -> Vocabulary:
        """All 12 roots of each interval set: closed under transposition. Chord i is quality i // 12, root i % 12."""
        triples = [(chords.ROOT_NAMES[root] + chords.quality_name(q), root, q) for q in qualities for root in range(12)]
        names, roots, intervals = zip(*triples, strict=True)
        return cls(names, roots, intervals)

    @classmethod
    def synthetic(cls, qualities: int) -> Vocabulary:
        """So many interval sets, the smallest ones: for plans and benchmarks, which read no data."""
        above = range(1, 12)
        sets = ((0, *rest) for size in range(12) for rest in itertools.combinations(above, size))
        return cls.from_qualities(list(itertools.islice(sets, qualities)))

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Reads what `to_json` wrote. Raises ValueError where the text is not that."""
        try:
            data = json.loads(text)
            vocabulary = cls(tuple(data["names"]), tuple(data["roots"]), tuple(tuple(q) for q in data["intervals"]))
            is_whole = data["hash"] == vocabulary.hash
        except (ValueError, KeyError, TypeError):
            is_whole = False
        if not is_whole:
            raise ValueError("the vocabulary was changed after it was written: its hash does not fit")
        return vocabulary

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self) | {"hash": self.hash}, separators=(",", ":"))

    @property
    def num_chords(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """V, the number of token ids."""
        return CHORD_HOLD + 2 * self.num_chords

    @property
    def chord_onset(self) -> int:
        """Id of the first chord ONSET."""
        return CHORD_HOLD + self.num_chords

    @functools.cached_property
    def hash(self) -> str:
        text = json.dumps([self.names, self.roots, self.intervals])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @functools.cached_property
    def chord_pitch_classes(self) -> np.ndarray:
        """[C, 12] bool: the pitch classes of each chord (extensions counted, a foreign bass not)."""
        table = np.zeros((self.num_chords, 12), bool)
        for i, (root, intervals) in enumerate(zip(self.roots, self.intervals, strict=True)):
            table[i, [(root + step) % 12 for step in intervals]] = True
        return table

    @functools.cached_property
    def _nearest(self) -> dict[tuple[int, tuple[int, ...]], tuple[int, bool]]:
        return {}

    def nearest_chord(self, root: int, intervals: tuple[int, ...]) -> tuple[int, bool]:
        """(chord index, whether it is that very chord). A shape outside the vocabulary becomes the listed quality of
        the same root with the largest pitch-class overlap (docs/method.md §1.4); ties go to fewer foreign notes, then
        to the earlier chord. `intervals` are folded (`chords.fold`).
        """
        key = (root, intervals)
        if key not in self._nearest:
            self._nearest[key] = self._find_nearest(root, intervals)
        return self._nearest[key]

    def _find_nearest(self, root: int, intervals: tuple[int, ...]) -> tuple[int, bool]:
        wanted = {(root + step) % 12 for step in intervals}
        candidates = [i for i, r in enumerate(self.roots) if r == root] or range(self.num_chords)

        def fit(i: int) -> tuple[int, int, int]:
            notes = set(np.flatnonzero(self.chord_pitch_classes[i]))
            return len(notes & wanted), -len(notes - wanted), -i

        best = max(candidates, key=fit)
        return best, self.roots[best] == root and self.intervals[best] == intervals

    @functools.cached_property
    def chord_transposition(self) -> np.ndarray:
        """[12, C] int32: the chord that each chord becomes when moved up by 0..11 semitones."""
        return np.array(
            [
                [self.nearest_chord((r + k) % 12, q)[0] for r, q in zip(self.roots, self.intervals, strict=True)]
                for k in range(12)
            ],
            np.int32,
        )

    @functools.cached_property
    def tables(self) -> TokenTables:
        return _make_tables(self)

    @functools.cached_property
    def _melody_tables(self) -> TokenTables:
        return dataclasses.replace(self.tables, is_note=self.tables.is_chord, is_chord=self.tables.is_note)

    def tables_for(self, part: str) -> TokenTables:
        """The tables as the agent of `part` ("chords", "melody") uses them.

        Rules call an agent's own part `chords` and its context `melody`. So a melody agent gets tables in which
        `is_chord` holds for notes and `is_note` for chords; the other columns say what they always do.
        """
        return self._melody_tables if part == "melody" else self.tables

    def describe(self, token: int) -> str:
        """A token in words, for messages and tests: ``"chord onset Cm7"``."""
        if token < NOTE_HOLD:
            return ("PAD", "BOS", "EOS", "SILENCE")[token]
        if token < CHORD_HOLD:
            return f"note {'onset' if token >= NOTE_ONSET else 'hold'} {(token - NOTE_HOLD) % NUM_PITCHES}"
        index = (token - CHORD_HOLD) % self.num_chords
        return f"chord {'onset' if token >= self.chord_onset else 'hold'} {self.names[index]}"


@dataclasses.dataclass(frozen=True)
class TokenTables:
    """What each token id means, as arrays to index on the device."""

    is_note: np.ndarray  # [V] bool
    is_chord: np.ndarray  # [V] bool
    is_onset: np.ndarray  # [V] bool
    is_hold: np.ndarray  # [V] bool
    event: np.ndarray  # [V] int32: pitch 0..127, or 128 + chord index; NO_EVENT for PAD BOS EOS SILENCE
    pitch_classes: np.ndarray  # [V, 12] bool
    rhythm: np.ndarray  # [V] int32: id in the six-token rhythm alphabet
    quality: np.ndarray  # [V] int32: number of the chord's interval set, NO_EVENT for other tokens
    root: np.ndarray  # [V] int32: root pitch class of a chord token, NO_EVENT for other tokens


def _make_tables(vocabulary: Vocabulary) -> TokenTables:
    size, num_chords = vocabulary.size, vocabulary.num_chords
    token = np.arange(size)
    is_note = (token >= NOTE_HOLD) & (token < CHORD_HOLD)
    is_chord = token >= CHORD_HOLD
    is_onset = (is_note & (token >= NOTE_ONSET)) | (token >= vocabulary.chord_onset)
    chord = (token - CHORD_HOLD) % num_chords
    pitch = (token - NOTE_HOLD) % NUM_PITCHES
    event = np.where(is_chord, NUM_PITCHES + chord, np.where(is_note, pitch, NO_EVENT))
    pitch_classes = np.where(
        is_chord[:, None], vocabulary.chord_pitch_classes[chord], np.eye(12, dtype=bool)[pitch % 12]
    )
    pitch_classes &= (is_note | is_chord)[:, None]
    rhythm = np.where(is_onset, 4, np.where(is_note | is_chord, 5, token))
    numbers = {q: n for n, q in enumerate(dict.fromkeys(vocabulary.intervals))}
    quality = np.array([numbers[q] for q in vocabulary.intervals])
    return TokenTables(
        is_note=is_note,
        is_chord=is_chord,
        is_onset=is_onset,
        is_hold=(is_note | is_chord) & ~is_onset,
        event=event.astype(np.int32),
        pitch_classes=pitch_classes,
        rhythm=rhythm.astype(np.int32),
        quality=np.where(is_chord, quality[chord], NO_EVENT).astype(np.int32),
        root=np.where(is_chord, np.array(vocabulary.roots)[chord], NO_EVENT).astype(np.int32),
    )


def read_vocabulary(path: Path) -> Vocabulary:
    """The ``vocabulary.json`` of a run or a bundle."""
    try:
        return Vocabulary.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: make it with 'gapt run'") from None
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}): put the original back, or make it anew with 'gapt run'"
        ) from None
