"""A melody agent measured: alone over given chords, and together with a policy. N songs, T frames."""

from __future__ import annotations

import numpy as np

from gapt_jax.evaluation.statistics import share
from gapt_jax.tasks.accompaniment import harmony
from gapt_jax.tasks.accompaniment.events import chord_events
from gapt_jax.tasks.accompaniment.metrics import broken_rules, fit
from gapt_jax.vocabulary import PAD, SILENCE, Vocabulary


def summarize_melody(melody: np.ndarray, chords: np.ndarray, vocabulary: Vocabulary) -> dict[str, float]:
    """Measures what a melody agent played over given chords (docs/method.md §11, §12); undefined metrics are NaN.

    melody, chords: [N, T] int32 tokens; rows without a chord token (a filled-up batch) are left out. Names are those of
    `metrics.summarize`, of the rules too, which here judge the notes. `rest_share`: frames with a chord and no note.
    """
    songs = (chords != PAD).any(1)
    chords, melody = chords[songs], np.where(chords == PAD, PAD, melody)[songs]
    roles = vocabulary.tables_for("melody")
    return {
        **fit(melody, chords, vocabulary),
        "rest_share": harmony.silent_share(chords, melody, roles),
        **broken_rules(chords, melody, chord_events(melody, roles), roles),
    }


def playable(melody: np.ndarray, data_melody: np.ndarray) -> np.ndarray:
    """[N, T] an agent's melody as far as the data's goes; a token without a sound inside it (an early end, from a
    policy that may sample any token) is a rest, for the song goes on."""
    sounding_or_rest = np.where(melody < SILENCE, SILENCE, melody)
    return np.where(data_melody == PAD, PAD, sounding_or_rest)


def halves(melody: np.ndarray, chords: np.ndarray, vocabulary: Vocabulary, switch: int) -> tuple[float, float]:
    """Note-in-chord, pooled, of the frames before frame `switch` and of those from it on; NaN where no frame counts."""
    first = harmony.note_in_chord(melody[:, :switch], chords[:, :switch], vocabulary.tables).pooled
    second = harmony.note_in_chord(melody[:, switch:], chords[:, switch:], vocabulary.tables).pooled
    return first, second


def social_influence(influence: np.ndarray, melody: np.ndarray) -> float:
    """Mean over the frames [N, T] that have a next one in their song, in nats (`rollout.Interplay.influence`)."""
    return share(influence[:, :-1][melody[:, 1:] != PAD].sum(), (melody[:, 1:] != PAD).sum())
