"""Songs that are the same tune: found by their melodies, in any key, and kept within one split."""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from gapt_jax.data_pipeline.examples import SPLITS
from gapt_jax.data_pipeline.songs import Note, Song, to_frame

MIN_NOTES = 8  # shorter melodies say too little to tell tunes apart
MIN_CHORDS = 8  # so do fewer chords to tell where the bar lines are
SELDOM = 0.1  # share of the chords
_ON_LINE = 0.125  # beats on either side of a bar line: half a frame


def melody_key(melody: Sequence[Note]) -> str | None:
    """12 hex digits that equal melodies share, transposed or not, wherever they begin: a hash of the steps in pitch
    and of the frames from onset to onset. None for melodies of fewer than `MIN_NOTES` notes."""
    if len(melody) < MIN_NOTES:
        return None
    pitches = np.array([note.pitch for note in melody])
    onsets = to_frame(np.array([note.onset for note in melody]))
    steps = np.stack([np.diff(pitches), np.diff(onsets)]).astype("<i8")
    return hashlib.sha1(steps.tobytes()).hexdigest()[:12]


def is_off_bars(song: Song) -> bool:
    """Whether under a tenth of a song's chords begin on a bar line, where one in four would by chance: its metre or its
    pickup may be wrong."""
    if len(song.chords) < MIN_CHORDS:
        return False
    bar = 4 * song.meter[0] / song.meter[1]
    after = (np.array([chord.onset for chord in song.chords]) - song.pickup) % bar
    return float(np.mean(np.minimum(after, bar - after) < _ON_LINE)) < SELDOM


def off_bars_hint(what: str, off: int, songs: int) -> str:
    """For people."""
    return (
        f"hint: in {off} of the {songs} songs of {what} under a tenth of the chord changes lie on a bar line: their "
        "metre or pickup may be wrong"
    )


@dataclass(frozen=True)
class Duplicate:
    """Songs of one melody: (dataset, id, split) of each."""

    songs: tuple[tuple[str, str, str], ...]

    @property
    def is_leak(self) -> bool:
        """Whether a song of one split is heard in another."""
        return len({split for *_, split in self.songs}) > 1


class Melodies:
    """The melodies seen so far."""

    def __init__(self) -> None:
        self._songs: dict[str, list[tuple[str, str, str]]] = collections.defaultdict(list)

    def add(self, dataset: str, song: Song) -> None:
        key = melody_key(song.melody)
        if key is not None:
            self._songs[key].append((dataset, song.id, song.split))

    def duplicates(self) -> list[Duplicate]:
        """Melodies of more than one song, those across splits first."""
        found = [Duplicate(tuple(songs)) for songs in self._songs.values() if len(songs) > 1]
        return sorted(found, key=lambda duplicate: (not duplicate.is_leak, duplicate.songs))


def heard_elsewhere(songs: Iterable[Song]) -> dict[str, Song]:
    """Ids of songs whose group or melody is also in a split that is held out further (test, then validation), and
    the song found there. Without them no split hears what another is measured on; no order of songs has a say."""
    ordered = sorted(songs, key=lambda song: (-SPLITS.index(song.split), song.id))
    first: dict[tuple[str, str], Song] = {}
    found: dict[str, Song] = {}
    for song in ordered:
        keys = [("group", song.group), ("melody", melody_key(song.melody) or f"of {song.id}")]
        other = next((first[key] for key in keys if key in first and first[key].split != song.split), None)
        if other is not None:
            found[song.id] = other
        for key in keys:
            first.setdefault(key, song)
    return found


def names(duplicate: Duplicate) -> str:
    """For people: ``a/1 (train), b/2 (test)``."""
    return ", ".join(f"{identity} ({split})" for _, identity, split in itertools.islice(duplicate.songs, 6))
