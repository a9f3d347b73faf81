"""Metrics of a melody agent, by hand. Triads: chord 0 is C major, chord 2 D major."""

import numpy as np
import pytest

from gapt_jax.tasks.accompaniment import interaction
from gapt_jax.vocabulary import CHORD_HOLD, EOS, NOTE_HOLD, NOTE_ONSET, PAD, SILENCE, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
C_MAJOR, D_MAJOR = VOCABULARY.chord_onset, VOCABULARY.chord_onset + 2
C, D, E, FIS = (NOTE_ONSET + 60 + n for n in (0, 2, 4, 6))


def test_tables_of_the_melody_exchange_the_parts_and_nothing_else():
    tables, roles = VOCABULARY.tables, VOCABULARY.tables_for("melody")
    assert VOCABULARY.tables_for("chords") is tables
    assert roles.is_chord[C] and not roles.is_note[C] and roles.is_note[C_MAJOR] and not roles.is_chord[C_MAJOR]
    assert not roles.is_chord[SILENCE] and not roles.is_note[SILENCE]
    assert roles.event is tables.event and roles.is_onset is tables.is_onset


def test_a_melody_is_judged_as_the_own_part():
    melody = np.array(
        [
            [C, C - 128, D, FIS, SILENCE, PAD],  # in C, C, not in C, in D, rest
            [E, E - 127, SILENCE, C, C_MAJOR, E],  # holds another pitch than sounds; a chord among the notes
            [PAD] * 6,
        ]
    )
    chords = np.array(
        [
            [C_MAJOR, CHORD_HOLD, CHORD_HOLD, D_MAJOR, CHORD_HOLD + 2, PAD],
            [C_MAJOR, SILENCE, C_MAJOR, C_MAJOR, C_MAJOR, SILENCE],
            [PAD] * 6,
        ]
    )
    found = interaction.summarize_melody(melody, chords, VOCABULARY)
    assert found["note_in_chord"] == pytest.approx(5 / 6)  # C, C, -D, F#; E, C
    assert found["note_in_chord_per_song"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["note_in_chord_chance"] == pytest.approx((6 * 3 - 5) / (11 * 6))
    assert found["rest_share"] == pytest.approx(3 / 9)  # no note under 5 + 4 chord frames: the rest, the rest, a chord
    assert found["invalid_share"] == 0.5
    assert found["repetition_share"] == 0
    repeated = np.array([[C, C, C, C, C, D]])
    assert interaction.summarize_melody(repeated, np.full((1, 6), C_MAJOR), VOCABULARY)["repetition_share"] == 1


def test_a_melody_goes_on_to_the_end_of_the_song():
    played = np.array([[C, EOS, PAD, NOTE_HOLD + 60, E]])
    data = np.array([[D, D, D, D, PAD]])
    np.testing.assert_array_equal(interaction.playable(played, data), [[C, SILENCE, SILENCE, NOTE_HOLD + 60, PAD]])


def test_harmony_of_each_half():
    melody = np.array([[C, D, E, C, D, D, D, D]])
    chords = np.array([[C_MAJOR] * 6 + [D_MAJOR, SILENCE]])
    assert interaction.halves(melody, chords, VOCABULARY, 4) == (pytest.approx(3 / 4), pytest.approx(1 / 3))
    silent = np.full((1, 8), SILENCE)
    assert np.isnan(interaction.halves(silent, chords, VOCABULARY, 4)).all()


def test_influence_counts_the_frames_that_have_a_next_one():
    influence = np.array([[0.3, 0.6, 9.0], [0.9, 9.0, 9.0]])
    melody = np.array([[C, C, C], [C, C, PAD]])
    assert interaction.social_influence(influence, melody) == pytest.approx((0.3 + 0.6 + 0.9) / 3)
