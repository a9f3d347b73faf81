"""Which songs break a rule that post-training penalises (docs/method.md §5.3, §12.5). N songs, T frames."""

from __future__ import annotations

import numpy as np

from gapt_jax.tasks.accompaniment.events import ChordEvents, ngrams
from gapt_jax.vocabulary import PAD, SILENCE, TokenTables

MAX_REPEATS = 4  # equal chord events in a row
MAX_EQUAL_TOKENS = 31  # so a chord of 33 frames is too long: its ONSET and 32 times HOLD
SILENCE_FREE_FRAMES = 8  # at the beginning of a song
MAX_SILENT_SHARE = 0.04


def invalid(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> np.ndarray:
    """[N] bool: a token in the song is neither chord nor SILENCE (so stopping early counts), or a HOLD of
    another chord than the one that sounds; a HOLD at the start or after SILENCE is allowed (§1.3)."""
    in_song = melody != PAD
    foreign = ~tables.is_chord[chords] & (chords != SILENCE)
    event = tables.event[chords]
    broken = np.zeros_like(in_song)
    broken[:, 1:] = (
        tables.is_chord[chords[:, :-1]]
        & tables.is_chord[chords[:, 1:]]
        & tables.is_hold[chords[:, 1:]]
        & (event[:, 1:] != event[:, :-1])
    )
    return (in_song & (foreign | broken)).any(1)


def repetition(events: ChordEvents, num_songs: int) -> np.ndarray:
    """[N] bool: more than four equal chord events in a row, rests left out."""
    runs = ngrams(events, MAX_REPEATS + 1)
    equal = (events.chord[runs] == events.chord[runs[:, :1]]).all(1)
    return _songs(events.song[runs[equal, 0]], num_songs)


def long_note(chords: np.ndarray) -> np.ndarray:
    """[N] bool: more than 31 equal tokens in a row, rests included, before the first PAD of chords [N, T]."""
    in_song = np.cumprod(chords[:, 1:] != PAD, axis=1, dtype=bool)
    repeats = np.cumsum((chords[:, 1:] == chords[:, :-1]) & in_song, axis=1)
    before = np.pad(repeats, ((0, 0), (MAX_EQUAL_TOKENS, 0)))[:, : repeats.shape[1]]
    return (repeats - before == MAX_EQUAL_TOKENS).any(1)


def silence(melody: np.ndarray, chords: np.ndarray, tables: TokenTables) -> np.ndarray:
    """[N] bool: more than 4 % of the frames after the first eight are SILENCE under a melody note."""
    late = np.arange(melody.shape[1]) >= SILENCE_FREE_FRAMES
    silent = (late & tables.is_note[melody] & (chords == SILENCE)).sum(1)
    return silent > MAX_SILENT_SHARE * (late & (melody != PAD)).sum(1)


def _songs(rows: np.ndarray, num_songs: int) -> np.ndarray:
    return np.bincount(rows, minlength=num_songs) > 0
