"""Harmony metrics against songs whose answers can be counted by hand."""

import numpy as np
import pytest

from gapt_jax.tasks.accompaniment import harmony
from gapt_jax.vocabulary import PAD, SILENCE


def test_note_in_chord_counts_frames_where_both_sound(song, vocabulary):
    melody = song((60, 4), (62, 4), (None, 4), (64, 4))
    chords = song(("C", 8), ("G", 4), (None, 4))
    result = harmony.note_in_chord(melody, chords, vocabulary.tables)
    assert (result.hits.tolist(), result.frames.tolist()) == ([4], [8])  # C over C hits, D over C does not
    assert result.pooled == 0.5
    assert harmony.silent_share(melody, chords, vocabulary.tables) == pytest.approx(4 / 12)


def test_pooled_weighs_frames_and_per_song_weighs_songs(song, vocabulary):
    melody = np.concatenate([song((60, 12), (None, 4)), song((61, 4), (None, 12)), song((None, 16))])
    result = harmony.note_in_chord(melody, np.repeat(song(("C", 16)), 3, axis=0), vocabulary.tables)
    assert result.pooled == pytest.approx(12 / 16)
    assert result.per_song.tolist()[:2] == [1.0, 0.0]
    assert np.isnan(result.per_song[2])


def test_no_valid_frame_is_nan(song, vocabulary):
    assert np.isnan(harmony.note_in_chord(song((None, 4)), song(("C", 4)), vocabulary.tables).pooled)


def test_seventh_counts_as_chord_tone(song, vocabulary):
    assert harmony.note_in_chord(song((70, 4)), song(("C7", 4)), vocabulary.tables).pooled == 1.0
    assert harmony.note_in_chord(song((70, 4)), song(("C", 4)), vocabulary.tables).pooled == 0.0


def test_chance_level_is_the_mean_over_eleven_moves(song, vocabulary):
    melody = song((60, 3), (65, 5), (None, 4), (71, 4))
    chords = song(("C", 4), ("G7", 8), ("Am", 4))
    moved = []
    for shift in range(1, 12):
        higher = np.where(vocabulary.tables.is_note[melody], melody + shift, melody)
        moved.append(harmony.note_in_chord(higher, chords, vocabulary.tables).pooled)
    assert harmony.chance_level(melody, chords, vocabulary.tables) == pytest.approx(np.mean(moved))


def test_chance_level_grows_with_density(song, vocabulary):
    melody = song((60, 8))
    levels = [harmony.chance_level(melody, song((name, 8)), vocabulary.tables) for name in ("C", "C7")]
    assert levels == pytest.approx([2 / 11, 3 / 11])


def test_per_beat(song, vocabulary):
    melody = song((60, 2), (61, 2), (None, 4), (64, 4))
    beats = harmony.per_beat(melody, song(("C", 12)), vocabulary.tables)
    np.testing.assert_array_equal(beats, [[0.5, np.nan, 1.0]])


def test_stopping_early_is_no_way_around_the_silent_share(song, vocabulary):
    chords = song(("C", 8))
    chords[:, 4:] = PAD
    assert harmony.silent_share(song((60, 8)), chords, vocabulary.tables) == 0.5
    chords[:, 4:] = SILENCE
    assert harmony.silent_share(song((60, 8)), chords, vocabulary.tables) == 0.5


def test_pitch_classes_per_chord_weighs_frames(song, vocabulary):
    chords = song(("C", 4), ("G7", 12), (None, 4))
    assert harmony.pitch_classes_per_chord(chords, vocabulary.tables) == pytest.approx((4 * 3 + 12 * 4) / 16)
