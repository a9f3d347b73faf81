"""How varied are the chords, and how near to data? N songs, T frames; entropies in nats."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import jensenshannon

from gapt_jax.evaluation.diversity import entropy
from gapt_jax.evaluation.statistics import share
from gapt_jax.tasks.accompaniment.events import ChordEvents, beats, before_end, ngrams
from gapt_jax.vocabulary import FRAMES_PER_BEAT, NUM_PITCHES, PAD, TokenTables

WINDOW_BEATS = 16  # four bars of four beats
_SILENT, _ENDED = -1, -2


def chord_entropy(chords: np.ndarray, tables: TokenTables) -> float:
    """Entropy of the chord over chord frames, ONSET and HOLD merged (docs/method.md §12.3). chords [N, T]."""
    sounding = chords[before_end(chords) & tables.is_chord[chords]]
    return _entropy(tables.event[sounding] - NUM_PITCHES)


def quality_entropy(events: ChordEvents) -> float:
    """Entropy of the interval set over chord events."""
    return _entropy(events.quality)


def unique_chords(events: ChordEvents) -> int:
    return len(np.unique(events.chord))


def distinct(events: ChordEvents, n: int) -> float:
    """Distinct-n: share of different ones among all n-grams of chord events, rests left out."""
    grams = events.chord[ngrams(events, n)]
    return share(len(np.unique(grams, axis=0)), len(grams))


def chord_changes_per_beat(chords: np.ndarray, events: ChordEvents) -> float:
    """Harmonic rhythm: events whose chord differs from the song's event before, per beat. chords [N, T]."""
    pairs = events.chord[ngrams(events, 2)]
    return share((pairs[:, 0] != pairs[:, 1]).sum(), beats(chords))


def chord_onsets_per_beat(chords: np.ndarray, events: ChordEvents) -> float:
    """Chord events per beat, repeated chords included. chords [N, T]."""
    return share(len(events.chord), beats(chords))


def unique_progressions(chords: np.ndarray, tables: TokenTables) -> int:
    """Number of different four-bar progressions (`_progressions`). It grows with n."""
    quality, root = _progressions(chords, tables)
    return _count_rows(quality, root)


def unique_progressions_relative(chords: np.ndarray, tables: TokenTables) -> int:
    """The same with roots counted from the window's first chord: a progression is one in all twelve keys."""
    quality, root = _progressions(chords, tables)
    first = root[np.arange(len(root)), (quality >= 0).argmax(1)]
    return _count_rows(quality, np.where(quality >= 0, (root - first[:, None]) % 12, root))


def js_unigram(events: ChordEvents, data: ChordEvents) -> float:
    """Jensen-Shannon distance (base 2, root of the divergence: 0..1) of the chords of two sets of events."""
    return _distance(events.chord[:, None], data.chord[:, None])


def js_bigram(events: ChordEvents, data: ChordEvents) -> float:
    """The same between pairs of consecutive chords."""
    return _distance(events.chord[ngrams(events, 2)], data.chord[ngrams(data, 2)])


def js_bigram_relative(events: ChordEvents, data: ChordEvents) -> float:
    """The same between (interval set, root step, next interval set), alike in all keys."""
    return _distance(_steps(events), _steps(data))


def _entropy(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return entropy(counts) if len(counts) else float("nan")


def _progressions(chords: np.ndarray, tables: TokenTables) -> tuple[np.ndarray, np.ndarray]:
    """Interval set and root, [W, 16] each, of the chord held on each beat, in aligned windows of 16 beats.

    A song gives its whole windows; one shorter than 16 beats gives a single window that also records where it
    ends. Windows in which no chord sounds are left out."""
    windows = -(-chords.shape[1] // (WINDOW_BEATS * FRAMES_PER_BEAT))
    missing = windows * WINDOW_BEATS * FRAMES_PER_BEAT - chords.shape[1]
    chords = np.pad(chords, ((0, 0), (0, missing)), constant_values=PAD)
    alive = before_end(chords)[:, ::FRAMES_PER_BEAT]
    held = chords[:, ::FRAMES_PER_BEAT]
    sounding = alive & tables.is_chord[held]
    rest = np.where(alive, _SILENT, _ENDED)
    shape = (len(chords), windows, WINDOW_BEATS)
    quality = np.where(sounding, tables.quality[held], rest).reshape(shape)
    root = np.where(sounding, tables.root[held], rest).reshape(shape)
    length = alive.reshape(shape).sum(-1)
    whole = length == WINDOW_BEATS
    whole[:, :1] |= length[:, :1] > 0
    keep = whole & sounding.reshape(shape).any(-1)
    return quality[keep], root[keep]


def _count_rows(quality: np.ndarray, root: np.ndarray) -> int:
    return len(np.unique(np.concatenate([quality, root], axis=1), axis=0))


def _steps(events: ChordEvents) -> np.ndarray:
    pairs = ngrams(events, 2)
    quality, root = events.quality[pairs], events.root[pairs]
    return np.stack([quality[:, 0], (root[:, 1] - root[:, 0]) % 12, quality[:, 1]], axis=1)


def _distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Jensen-Shannon distance of the rows of two [*, k] symbol arrays; NaN where either is empty."""
    if not len(ours) or not len(theirs):
        return float("nan")
    symbols, inverse = np.unique(np.concatenate([ours, theirs]), axis=0, return_inverse=True)
    p = np.bincount(inverse[: len(ours)], minlength=len(symbols))
    q = np.bincount(inverse[len(ours) :], minlength=len(symbols))
    return float(jensenshannon(p, q, base=2))
