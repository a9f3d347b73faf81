"""Each rule at, and one step beyond, its threshold."""

import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.tasks.accompaniment import rules, violations
from gapt_jax.tasks.accompaniment.events import chord_events
from gapt_jax.vocabulary import BOS, EOS, NOTE_ONSET, PAD, SILENCE


@pytest.mark.parametrize("frame", [0, 5, 7])
@pytest.mark.parametrize("token", [PAD, BOS, EOS, NOTE_ONSET + 60])
def test_foreign_tokens_are_invalid(song, vocabulary, token, frame):
    chords = song(("C", 8))
    assert not violations.invalid(song((60, 8)), chords, vocabulary.tables)[0]
    chords[0, frame] = token
    assert violations.invalid(song((60, 8)), chords, vocabulary.tables)[0]


def test_what_lies_behind_the_song_is_not_looked_at(song, vocabulary):
    melody = song((60, 8))
    melody[0, 6:] = PAD
    chords = song(("C", 8))
    chords[0, 6:] = PAD, EOS
    assert not violations.invalid(melody, chords, vocabulary.tables)[0]


def test_holds(song, vocabulary):
    melody = song((60, 8))
    start = song(("C", 9))[:, 1:]
    after_silence = start.copy()
    after_silence[0, 3] = SILENCE
    broken = np.concatenate([song(("C", 4)), song(("G", 5))[:, 1:]], axis=1)
    verdicts = [violations.invalid(melody, c, vocabulary.tables)[0] for c in (start, after_silence, broken)]
    assert verdicts == [False, False, True]


def test_repetition_begins_with_the_fifth(song, vocabulary):
    four = song(*[("C", 2)] * 4, ("G", 2), *[("C", 2)] * 4, (None, 10))
    five = song(*[("C", 2)] * 3, (None, 4), *[("C", 2)] * 2, ("G", 14))  # a rest does not break the run
    chords = np.concatenate([four, five])
    assert violations.repetition(chord_events(chords, vocabulary.tables), 2).tolist() == [False, True]


def test_repetition_does_not_cross_songs(song, vocabulary):
    chords = np.repeat(song(("C", 4), ("C", 4), ("C", 4)), 2, axis=0)
    assert not violations.repetition(chord_events(chords, vocabulary.tables), 2).any()


@pytest.mark.parametrize(("frames", "long"), [(32, False), (33, True)])
def test_long_note(song, vocabulary, frames, long):
    chords = song((None, 31), ("C", frames), ("C", 20))
    assert violations.long_note(chords).tolist() == [long]


def test_long_note_is_the_rule_of_training(song):
    """Silence counts, a crop that opens with HOLD is too long at 32 frames, and nothing after a PAD is seen."""
    rests, short = song(("C", 8), (None, 32)), song(("C", 9), (None, 31))
    opened, ended = song(("C", 33), ("G", 8))[:, 1:], song(("C", 40))
    ended[0, 20] = PAD
    chords = np.concatenate([rests, opened, short, ended])
    assert violations.long_note(chords).tolist() == [True, True, False, False]
    penalties = rules.long_note(jnp.asarray(chords), jnp.ones(chords.shape, jnp.float32))
    assert (penalties < 0).tolist() == [True, True, False, False]


@pytest.mark.parametrize(("silent", "broken"), [(4, False), (5, True)])
def test_silence(song, vocabulary, silent, broken):
    melody, chords = song((60, 108)), song(("C", 108))  # 100 frames count
    chords[0, :8] = SILENCE
    chords[0, 50 : 50 + silent] = SILENCE
    assert violations.silence(melody, chords, vocabulary.tables).tolist() == [broken]
    melody[0, 50 : 50 + silent] = SILENCE
    assert not violations.silence(melody, chords, vocabulary.tables).any()
