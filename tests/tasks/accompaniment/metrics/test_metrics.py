"""The flat summary: complete, plain numbers, and blind to padding."""

import numpy as np
import pytest

from gapt_jax.evaluation import metrics
from gapt_jax.tasks.accompaniment.metrics import METRICS, summarize
from gapt_jax.vocabulary import CHORD_HOLD, EOS, NOTE_ONSET, PAD, SILENCE


@pytest.fixture
def played(vocabulary):
    """Melody, chords, data chords [12, 96] with rests, silences, holds, early ends and short songs."""
    rng = np.random.default_rng(3)
    melody = rng.choice([SILENCE, *range(NOTE_ONSET + 55, NOTE_ONSET + 75)], (12, 96))
    choices = [SILENCE, *range(vocabulary.chord_onset, vocabulary.size), CHORD_HOLD, CHORD_HOLD + 1]
    chords, data = rng.choice(choices, (2, 12, 96))
    chords[:, 1::2] = np.where(chords[:, ::2] > SILENCE, chords[:, ::2] % 48 + CHORD_HOLD, SILENCE)
    chords[3, 50] = EOS
    for row, length in enumerate(rng.integers(30, 97, 12)):
        melody[row, length:] = chords[row, length:] = data[row, length:] = PAD
    return melody.astype(np.int32), chords.astype(np.int32), data.astype(np.int32)


def test_every_metric_is_there_and_explained(played, vocabulary):
    result = summarize(*played, vocabulary)
    played_again = {"same_melody_vendi_independent", "adaptation_recovery_beats", "adaptation_area_lost"}
    elsewhere = played_again | set(metrics.METRICS)  # of every task: they need networks
    assert not set(result) & elsewhere and set(result) | elsewhere == set(METRICS)
    assert all(type(value) is float and np.isfinite(value) for value in result.values())


def test_padding_never_changes_a_metric(played, vocabulary):
    before = summarize(*played, vocabulary)
    wider = [np.pad(part, ((0, 5), (0, 100)), constant_values=PAD) for part in played]
    assert summarize(*wider, vocabulary) == before


def test_what_the_policy_played_after_the_song_does_not_count(played, vocabulary):
    melody, chords, data = played
    before = summarize(melody, chords, data, vocabulary)
    noisy = np.where((melody == PAD) & (chords == PAD), vocabulary.chord_onset + 5, chords)
    assert summarize(melody, noisy, data, vocabulary) == before


def test_data_is_at_no_distance_from_itself(played, vocabulary):
    melody, _, data = played
    result = summarize(melody, data, data, vocabulary)
    assert [result[name] for name in ("js_unigram", "js_bigram", "js_bigram_relative")] == [0.0, 0.0, 0.0]


def test_no_songs_at_all_is_nan_and_no_error(vocabulary):
    empty = np.full((2, 8), PAD, np.int32)
    assert np.isnan(summarize(empty, empty, empty, vocabulary)["note_in_chord"])


def test_collapse_shows(song, vocabulary):
    """One quality everywhere lowers quality entropy; flicker raises chord changes."""
    rng = np.random.default_rng(5)
    melody = np.repeat(song((60, 64)), 20, axis=0)
    varied = np.concatenate([song(*((n, 16) for n in rng.choice(vocabulary.names, 4))) for _ in range(20)])
    majors = vocabulary.names[:12]
    flicker = np.concatenate([song(*((n, 2) for n in rng.choice(majors, 32))) for _ in range(20)])
    healthy, hacked = (summarize(melody, c, varied, vocabulary) for c in (varied, flicker))
    assert hacked["quality_entropy"] == 0.0 < healthy["quality_entropy"]
    assert hacked["chord_changes_per_beat"] > 1 > healthy["chord_changes_per_beat"]
    assert hacked["js_bigram"] > 0.5
