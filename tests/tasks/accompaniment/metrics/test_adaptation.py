"""Adaptation to a change of key, against curves that can be read by eye."""

import numpy as np
import pytest

from gapt_jax.errors import UserError
from gapt_jax.tasks.accompaniment import adaptation
from gapt_jax.tasks.accompaniment.adaptation import Adaptation, Shift
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET, PAD, SILENCE


def adapted(after, before=(0.5, 0.5), unperturbed=None):
    perturbed = np.array([*before, *after])
    reference = np.full(len(perturbed), 0.5) if unperturbed is None else unperturbed
    return Adaptation(Shift(semitones=6, beat=len(before)), reference, perturbed)


def test_recovery_is_where_four_beats_together_are_back_to_nine_tenths():
    """Target 0.45: beats 1-4 have mean 0.4, beats 2-5 have 0.475."""
    assert adapted([0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]).recovery_beats == 2.0
    assert adapted([0.5, 0.5, 0.5, 0.5]).recovery_beats == 0.0


def test_one_lucky_beat_is_no_recovery():
    assert adapted([0.0, 0.9, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5]).recovery_beats == 5.0


def test_where_harmony_never_comes_back_all_beats_count():
    assert adapted([0.1] * 6).recovery_beats == 6.0
    assert adapted([0.1] * 6 + [np.nan] * 2).recovery_beats == 6.0
    assert np.isnan(adapted([np.nan] * 4).recovery_beats)


def test_area_is_lost_after_the_shift_alone():
    unperturbed = np.array([0.9, 0.9, 0.6, 0.6, 0.6, np.nan])
    result = adapted([0.1, 0.4, 0.7, 0.2], unperturbed=unperturbed)
    assert result.area_lost == pytest.approx(0.5 + 0.2 - 0.1)


def test_shifted_moves_notes_from_the_beat_on(song, vocabulary):
    melody = song((60, 4), (62, 6), (None, 4), (125, 2))
    melody = np.pad(melody, ((0, 0), (0, 4)), constant_values=PAD)
    moved = adaptation.shifted(melody, Shift(semitones=6, beat=2), vocabulary.tables)[0]
    assert (moved[:8] == melody[0, :8]).all()  # 60, then 62 until the shift
    assert moved[8:10].tolist() == [NOTE_ONSET + 68, NOTE_HOLD + 68]  # held over the shift: begins anew
    assert (moved[10:14] == SILENCE).all() and (moved[16:] == PAD).all()
    assert moved[14:16].tolist() == [NOTE_ONSET + 119, NOTE_HOLD + 119]  # 131 comes back by an octave
    assert moved.dtype == melody.dtype


def test_curve_is_a_mean_over_songs_that_sound(song, vocabulary):
    melody = np.concatenate([song((60, 4), (60, 4), (None, 4)), song((61, 4), (None, 4), (None, 4))])
    curve = adaptation.curve(melody, np.repeat(song(("C", 12)), 2, axis=0), vocabulary.tables)
    np.testing.assert_array_equal(curve, [0.5, 1.0, np.nan])


def test_songs_must_go_on_for_four_beats(song):
    melody = np.pad(song((60, 24)), ((0, 0), (0, 8)), constant_values=PAD)
    assert adaptation.long_enough(melody, Shift(semitones=6, beat=2)).tolist() == [True]
    assert adaptation.long_enough(melody, Shift(semitones=6, beat=3)).tolist() == [False]


@pytest.mark.parametrize(("frames", "beat"), [(256, 16), (128, 16), (64, 8), (16, 2)])
def test_default_shift(frames, beat):
    assert adaptation.default_shift(frames) == Shift(semitones=6, beat=beat)


def test_parse_shift():
    assert adaptation.parse_shift("+6@16", 256) == adaptation.parse_shift("6@16", 256) == Shift(semitones=6, beat=16)
    assert str(adaptation.parse_shift("-5@8", 64)) == "-5@8"
    for text in ("", "6", "+6@", "0@8", "13@8", "+6@0", "+6@16", "six@8", "+6@8 "):
        with pytest.raises(UserError, match="semitones@beat"):
            adaptation.parse_shift(text, 64)
