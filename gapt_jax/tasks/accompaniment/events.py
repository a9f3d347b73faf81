"""What the metrics share: where a song ends, and its chords as events. N songs, T frames, E events."""

from __future__ import annotations

import dataclasses

import numpy as np

from gapt_jax.vocabulary import EOS, FRAMES_PER_BEAT, NUM_PITCHES, PAD, TokenTables


@dataclasses.dataclass(frozen=True)
class ChordEvents:
    """The chord events of N songs, ordered by song, then time (`chord_events`)."""

    song: np.ndarray  # [E] int: row of the song
    frame: np.ndarray  # [E] int: first frame
    length: np.ndarray  # [E] int: frames
    chord: np.ndarray  # [E] int: index in the vocabulary's list of chords
    quality: np.ndarray  # [E] int: number of the interval set
    root: np.ndarray  # [E] int: pitch class


def before_end(chords: np.ndarray) -> np.ndarray:
    """[N, T] bool: frames before the first PAD or EOS, where a part ends (docs/method.md §12.3)."""
    return ~np.logical_or.accumulate((chords == PAD) | (chords == EOS), axis=1)


def beats(chords: np.ndarray) -> float:
    """Length of all songs together, in beats."""
    return float(before_end(chords).sum()) / FRAMES_PER_BEAT


def chord_events(chords: np.ndarray, tables: TokenTables) -> ChordEvents:
    """The events of chords [N, T] (docs/method.md §1.3).

    An ONSET begins one, and so does a HOLD with no chord to hold, or of another chord than the one sounding
    (which `rules.invalid` reports)."""
    tokens = np.where(before_end(chords), chords, PAD)
    edge = np.full((len(tokens), 1), PAD, tokens.dtype)
    previous = np.concatenate([edge, tokens[:, :-1]], axis=1)
    is_chord = tables.is_chord[tokens]
    continues = is_chord & tables.is_hold[tokens] & (tables.event[tokens] == tables.event[previous])
    starts = is_chord & ~continues
    ends = is_chord & ~np.concatenate([continues[:, 1:], np.zeros_like(edge, bool)], axis=1)
    song, frame = np.nonzero(starts)
    token = tokens[song, frame]
    return ChordEvents(
        song=song,
        frame=frame,
        length=np.nonzero(ends)[1] - frame + 1,
        chord=tables.event[token] - NUM_PITCHES,
        quality=tables.quality[token],
        root=tables.root[token],
    )


def ngrams(events: ChordEvents, n: int) -> np.ndarray:
    """[M, n] int: positions of every n consecutive events of one song; rests between them do not count."""
    first = np.arange(max(len(events.song) - n + 1, 0))
    first = first[events.song[first] == events.song[first + n - 1]]
    return first[:, None] + np.arange(n)
