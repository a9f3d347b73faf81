"""Prepared datasets in memory: the songs of a split as flat arrays, from the records or their flat copy.

A flat copy that an earlier version wrote lacks the bars: as one that is damaged, it gives way to the records.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from gapt_jax.data_pipeline import preparing
from gapt_jax.data_pipeline.examples import SPLITS
from gapt_jax.data_pipeline.songs import Frames, mask_intervals
from gapt_jax.vocabulary import CHORD_HOLD, FRAMES_PER_BEAT, NOTE_HOLD, NOTE_ONSET, SILENCE, Vocabulary

FLAT_COPY = "frames.npz"
_FRAME_FIELDS = tuple(field.name for field in dataclasses.fields(Frames))


@dataclasses.dataclass(frozen=True, eq=False)
class SplitFrames:
    """All N songs of a split in a row, F frames in all; song n has frames ``starts[n]..starts[n + 1]``."""

    ids: np.ndarray  # [N] str
    starts: np.ndarray  # [N + 1] int64
    frames: Frames  # each field [F]
    bars: np.ndarray  # [N, 2] float32: frames before the first bar line, frames of a bar

    def __len__(self) -> int:
        return len(self.ids)

    def song(self, n: int) -> Frames:
        """Frames of song n (views)."""
        part = slice(self.starts[n], self.starts[n + 1])
        return Frames(*(getattr(self.frames, field)[part] for field in _FRAME_FIELDS))

    @functools.cached_property
    def chord_events(self) -> dict[tuple[int, int], int]:
        """How often each (root, interval mask) starts."""
        keys = self.frames.chord_root.astype(np.int64) << 12 | self.frames.chord_intervals
        values, counts = np.unique(keys[self.frames.chord_onset], return_counts=True)
        return {(int(v) >> 12, int(v) & 4095): int(c) for v, c in zip(values, counts, strict=True)}


def join(parts: list[SplitFrames]) -> SplitFrames:
    """The songs of several splits in one."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    columns = (np.concatenate([getattr(part.frames, field) for part in parts]) for field in _FRAME_FIELDS)
    ids, bars = (np.concatenate([getattr(part, field) for part in parts]) for field in ("ids", "bars"))
    return SplitFrames(ids, _starts(lengths), Frames(*columns), bars)


_EMPTY = SplitFrames(
    np.array([], "U1"),
    np.zeros(1, np.int64),
    Frames(*(np.array([], dtype) for dtype in (np.int16, np.bool_, np.int8, np.int16, np.bool_))),
    np.zeros((0, 2), np.float32),
)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def bar_frames(meter: Sequence[int], pickup: float) -> tuple[float, float]:
    """(Frames before the first bar line, frames of a bar) of a song in this metre, whose pickup is in beats."""
    return FRAMES_PER_BEAT * pickup, FRAMES_PER_BEAT * 4 * meter[0] / meter[1]


def bars_by_chords(part: SplitFrames) -> np.ndarray:
    """[N, 2] float32 as `SplitFrames.bars`, but that the bar lines of each song come at that beat of the bar at which
    most of its chords begin; at the recorded one where none has more."""
    lengths, onsets = np.diff(part.starts), np.flatnonzero(part.frames.chord_onset)
    song = np.repeat(np.arange(len(part)), lengths)[onsets]
    first, bar = part.bars.astype(np.float64).T
    late = (onsets - part.starts[song] - first[song]) % bar[song]  # frames after the recorded bar line
    beat = (late // FRAMES_PER_BEAT).astype(np.int64)
    most = 1 + int(beat.max(initial=0))
    is_on_beat = late % FRAMES_PER_BEAT < 1
    counts = np.bincount((song * most + beat)[is_on_beat], minlength=len(part) * most).reshape(len(part), most)
    moved = FRAMES_PER_BEAT * counts.argmax(axis=1)
    return np.stack([np.where(moved, (first + moved) % bar, first), bar], axis=1).astype(np.float32)


def of_frames(songs: Mapping[str, Frames], bars: Sequence[tuple[float, float]]) -> SplitFrames:
    """Songs by id, in a row, with the `bar_frames` of each; at least one."""
    columns = (np.concatenate([getattr(frames, field) for frames in songs.values()]) for field in _FRAME_FIELDS)
    starts = _starts(np.array([len(f) for f in songs.values()]))
    return SplitFrames(np.array(list(songs)), starts, Frames(*columns), np.array(bars, np.float32))


def features() -> tfds.features.FeaturesDict:
    """What a record of a prepared dataset holds: the `Frames` of a song and where it is from."""

    def frames(dtype: Any) -> tfds.features.Tensor:
        return tfds.features.Tensor(shape=(None,), dtype=dtype)

    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "title": tfds.features.Text(),  # empty where the source has none
            "group": tfds.features.Text(),
            "meter": tfds.features.Tensor(shape=(2,), dtype=np.int32),
            "pickup": tfds.features.Scalar(np.float32),
            "melody_pitch": frames(np.int16),
            "melody_onset": frames(np.bool_),
            "chord_root": frames(np.int8),
            "chord_intervals": frames(np.int16),
            "chord_onset": frames(np.bool_),
        }
    )


def read_records(folder: Path, split: str) -> SplitFrames:
    """A split of a prepared dataset from its records, in file order; raises as `preparing.read_records` does."""
    records = preparing.read_records(folder, split, features())
    if not records:
        return _EMPTY
    songs = {r["id"].decode("utf-8"): Frames(*(r[field] for field in _FRAME_FIELDS)) for r in records}
    return of_frames(songs, [bar_frames(r["meter"].tolist(), float(r["pickup"])) for r in records])


def fingerprint(splits: Mapping[str, SplitFrames]) -> str:
    """12 hex digits that change with any frame, song length, id or split."""
    digest = hashlib.sha256()
    for split in SPLITS:
        part = splits[split]
        digest.update(f"{split} {len(part)} ".encode() + "\n".join(part.ids.tolist()).encode())
        for array in (part.starts, *(getattr(part.frames, field) for field in _FRAME_FIELDS)):
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()[:12]


def bars_fingerprint(splits: Mapping[str, SplitFrames]) -> str:
    """12 hex digits that change with any bar line, of songs that `fingerprint` tells apart by their frames."""
    bars = np.concatenate([splits[split].bars for split in SPLITS])
    return hashlib.sha256(bars.astype("<f4").tobytes()).hexdigest()[:12]


def write_flat(folder: Path, splits: Mapping[str, SplitFrames]) -> None:
    """Writes the flat copy of a prepared dataset."""
    arrays: dict[str, np.ndarray] = {}
    for split, part in splits.items():
        arrays |= {f"{split}.ids": part.ids, f"{split}.starts": part.starts, f"{split}.bars": part.bars}
        arrays |= {f"{split}.{field}": getattr(part.frames, field) for field in _FRAME_FIELDS}
    np.savez_compressed(folder / FLAT_COPY, allow_pickle=False, **arrays)


def _read_flat(folder: Path) -> dict[str, SplitFrames]:
    with np.load(folder / FLAT_COPY, allow_pickle=False) as arrays:
        return {
            split: SplitFrames(
                arrays[f"{split}.ids"],
                arrays[f"{split}.starts"],
                Frames(*(arrays[f"{split}.{field}"] for field in _FRAME_FIELDS)),
                arrays[f"{split}.bars"],
            )
            for split in SPLITS
        }


def load(folder: Path, expected_fingerprint: str) -> dict[str, SplitFrames]:
    """All splits of a prepared dataset: the flat copy where it is whole, else the records it came from."""
    try:
        splits = _read_flat(folder)
        has_bars = all(part.bars.shape == (len(part), 2) for part in splits.values())
        if has_bars and fingerprint(splits) == expected_fingerprint:
            return splits
    except (OSError, KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile):
        pass  # a damaged copy costs seconds, not the data
    return {split: read_records(folder, split) for split in SPLITS}


def melody_tokens(frames: Frames) -> np.ndarray:
    """[F] int32 melody tokens of [F] frames."""
    base = np.where(frames.melody_onset, NOTE_ONSET, NOTE_HOLD)
    return np.where(frames.melody_pitch < 0, SILENCE, base + frames.melody_pitch).astype(np.int32)


def chord_tokens(frames: Frames, vocabulary: Vocabulary) -> np.ndarray:
    """[F] int32 chord tokens of [F] frames; a chord outside the vocabulary becomes its nearest one."""
    keys = (frames.chord_root.astype(np.int64) + 1) << 12 | frames.chord_intervals
    values, inverse = np.unique(keys, return_inverse=True)
    index = np.array([_chord_index(int(value), vocabulary) for value in values])[inverse]
    base = np.where(frames.chord_onset, vocabulary.chord_onset, CHORD_HOLD)
    return np.where(frames.chord_root < 0, SILENCE, base + index).astype(np.int32)


def _chord_index(key: int, vocabulary: Vocabulary) -> int:
    root, mask = (key >> 12) - 1, key & 4095
    return 0 if root < 0 else vocabulary.nearest_chord(root, mask_intervals(mask))[0]
