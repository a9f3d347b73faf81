"""Songs that are the same tune: found by their melodies, in any key, and kept within one split."""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gapt_jax.data_pipeline.examples import SPLITS
from gapt_jax.data_pipeline.songs import Note, Song, to_frame

if TYPE_CHECKING:
    from gapt_jax.data_pipeline.store import SplitFrames

STEPS = 20  # successive ones of a melody that two songs share only where one has them from the other
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


def windows(part: SplitFrames) -> tuple[np.ndarray, np.ndarray]:
    """(Hash [W] uint64, song [W]) of every window of `STEPS` steps of the melodies of a split: a step is that of
    `melody_key`, semitones and frames from one onset to the next, so that no key and no beat has a say."""
    onsets = np.flatnonzero(part.frames.melody_onset)
    song = np.repeat(np.arange(len(part)), np.diff(part.starts))[onsets]
    pitches = part.frames.melody_pitch[onsets].astype(np.int64)
    steps = _mixed(np.diff(pitches) << 32 ^ np.diff(onsets))
    count = max(0, len(steps) - STEPS + 1)
    found = np.zeros(count, np.uint64)
    for number in range(STEPS):
        found = _mixed(found ^ steps[number : number + count])
    is_whole = song[:count] == song[STEPS : STEPS + count]  # the steps are between so many notes and one more
    return found[is_whole], song[:count][is_whole]


def _mixed(x: np.ndarray) -> np.ndarray:
    """64 bits of each number, all of which change with any (the finaliser of SplitMix64)."""
    x = x.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def windows_of_all(parts: Iterable[SplitFrames]) -> np.ndarray:
    """[U] uint64: the hashes of all windows of some splits together, each once."""
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *(windows(part)[0] for part in parts)]))


def has_window_of(part: SplitFrames, heard: np.ndarray) -> np.ndarray:
    """[N] bool: the songs of a split that have a window of `STEPS` melody steps whose hash is `heard`
    (`windows_of_all` of other splits). A shorter melody has none."""
    hashes, song = windows(part)
    found = np.zeros(len(part), bool)
    found[song[np.isin(hashes, heard)]] = True
    return found


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
