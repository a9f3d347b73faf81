"""How far an imported song agrees with the record of the same tune, frame by frame."""

import functools
import gzip
import json
from pathlib import Path

import numpy as np

from gapt_jax.data_pipeline.songs import Song, parse_song, to_frames

DATA = Path(__file__).parents[3] / "shared" / "data"
RAW = DATA / "raw_samples"


@functools.cache
def records(dataset: str) -> dict[str, Song]:
    """Songs of ../shared/data/songs by id."""
    with gzip.open(DATA / "songs" / f"{dataset}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return {song.id: song for song in map(parse_song, map(json.loads, lines))}


def agreement(found: Song, expected: Song) -> tuple[float, float]:
    """Share of the frames of the longer of the two whose melody (pitch, onset), and whose chord (root, intervals,
    onset), are equal."""
    one, two = to_frames(found), to_frames(expected)
    length = max(len(one), len(two))

    def share(*names: str) -> float:
        equal = np.zeros(length, bool)
        equal[: min(len(one), len(two))] = True
        for name in names:
            a, b = getattr(one, name), getattr(two, name)
            shorter = min(len(a), len(b))
            equal[:shorter] &= a[:shorter] == b[:shorter]
        return float(equal.mean())

    return share("melody_pitch", "melody_onset"), share("chord_root", "chord_intervals", "chord_onset")
