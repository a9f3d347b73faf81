"""Diversity metrics against known values and independent computations."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from gapt_jax.evaluation import diversity
from gapt_jax.tasks.accompaniment import variety
from gapt_jax.tasks.accompaniment.events import chord_events
from gapt_jax.vocabulary import EOS, PAD


def events(chords, vocabulary):
    return chord_events(chords, vocabulary.tables)


def stack(*songs):
    """Songs of any length as one array."""
    length = max(song.shape[1] for song in songs)
    return np.concatenate([np.pad(s, ((0, 0), (0, length - s.shape[1]))) for s in songs])


class TestVendi:
    def test_identical_rows_count_once(self):
        assert diversity.vendi(np.ones((7, 5))) == pytest.approx(1.0, abs=1e-12)

    @pytest.mark.parametrize("scale", [1.0, 3.0])
    def test_orthogonal_rows_count_each(self, scale):
        assert diversity.vendi(scale * np.eye(6, 9)) == pytest.approx(6.0)

    @pytest.mark.parametrize("shape", [(40, 8), (8, 40)])
    def test_dual_equals_primal(self, shape):
        rows = np.random.default_rng(1).normal(size=shape)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
        eigenvalues = eigenvalues[eigenvalues > 1e-14]
        primal = np.exp(-np.sum(eigenvalues * np.log(eigenvalues)))
        assert diversity.vendi(rows) == pytest.approx(primal, abs=1e-10)

    @pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
    def test_a_row_without_direction_is_an_error(self, bad):
        rows = np.eye(3)
        rows[1] = bad
        with pytest.raises(ValueError, match="no direction"):
            diversity.vendi(rows)


def test_self_similarity_is_the_mean_over_pairs():
    rows = np.random.default_rng(2).normal(size=(9, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(9, dtype=bool)]
    assert diversity.self_similarity(rows) == pytest.approx(pairs.mean())
    assert np.isnan(diversity.self_similarity(rows[:1]))


def test_chord_entropy_weighs_frames_and_quality_entropy_events(song, vocabulary):
    chords = song(("C", 12), ("Am", 4), (None, 8))
    share = np.array([0.75, 0.25])
    assert variety.chord_entropy(chords, vocabulary.tables) == pytest.approx(-np.sum(share * np.log(share)))
    assert variety.quality_entropy(events(chords, vocabulary)) == pytest.approx(np.log(2))
    assert variety.quality_entropy(events(song(("C", 4), ("G", 4)), vocabulary)) == 0.0


def test_a_part_is_read_up_to_its_end(song, vocabulary):
    chords = song(("C", 4), ("G", 4), ("Am", 4))
    chords[0, 4] = EOS
    assert variety.unique_chords(events(chords, vocabulary)) == 1
    assert variety.chord_entropy(chords, vocabulary.tables) == 0.0


def test_events_of_odd_songs(song, vocabulary):
    chords = song(("C", 4), (None, 2), ("G", 3), ("G", 3), ("Am", 4))
    chords[0, 0] = chords[0, 1]  # begins in the middle of a chord
    chords[0, 12] = chords[0, 13]  # a hold of another chord
    found = events(chords, vocabulary)
    assert [vocabulary.names[i] for i in found.chord] == ["C", "G", "G", "Am"]
    assert found.frame.tolist() == [0, 6, 9, 12]
    assert found.length.tolist() == [4, 3, 3, 4]


def test_harmonic_rhythm(song, vocabulary):
    chords = stack(song(("C", 4), ("C", 4), ("G", 4), (None, 4)), song(("G", 8)))  # 6 beats
    found = events(chords, vocabulary)
    assert variety.chord_changes_per_beat(chords, found) == pytest.approx(1 / 6)
    assert variety.chord_onsets_per_beat(chords, found) == pytest.approx(4 / 6)


def test_distinct_n_does_not_cross_songs(song, vocabulary):
    chords = stack(song(("C", 4), ("G", 4), ("C", 4), ("G", 4)), song(("C", 4)))
    found = events(chords, vocabulary)
    assert [variety.distinct(found, n) for n in (1, 2, 3)] == pytest.approx([2 / 5, 2 / 3, 2 / 2])
    assert np.isnan(variety.distinct(found, 5))


def bars(song, *names, frames=16):
    return song(*((name, frames) for name in names))


def test_unique_progressions_counts_aligned_windows(song, vocabulary):
    pop = bars(song, "C", "G", "Am", "F")
    twice = np.concatenate([pop, bars(song, "C", "G", "Am", "F")], axis=1)
    ends_within = np.concatenate([pop, bars(song, "Dm", "E")], axis=1)  # the half window is left out
    other = bars(song, "C", "G", "Am", "G")
    silent = song((None, 64))
    chords = stack(pop, twice, ends_within, other, silent)
    assert variety.unique_progressions(chords, vocabulary.tables) == 2


def test_progressions_are_what_sounds_on_the_beat(song, vocabulary):
    plain = bars(song, "C", "G", "Am", "F")
    ornamented = song(("C", 13), ("E", 3), ("G", 16), ("Am", 16), ("F", 16))
    chords = stack(plain, ornamented)
    assert variety.unique_progressions(chords, vocabulary.tables) == 1


def test_short_songs_give_one_window_with_their_length(song, vocabulary):
    chords = stack(song(("C", 16)), song(("C", 16)), song(("C", 20)))
    assert variety.unique_progressions(chords, vocabulary.tables) == 2


def test_relative_progressions_are_alike_in_all_keys(song, vocabulary):
    in_c = bars(song, "C", "G", "Am", "F")
    in_d = bars(song, "D", "A", "Bm", "G")
    minor = bars(song, "Cm", "G", "Am", "F")
    chords = stack(in_c, in_d, minor)
    assert variety.unique_progressions(chords, vocabulary.tables) == 3
    assert variety.unique_progressions_relative(chords, vocabulary.tables) == 2


def test_relative_progressions_count_from_the_first_sounding_chord(song, vocabulary):
    chords = stack(song((None, 4), ("C", 28), ("G", 32)), song((None, 4), ("E", 28), ("B", 32)))
    assert variety.unique_progressions_relative(chords, vocabulary.tables) == 1


def test_js_distances(song, vocabulary):
    ours = events(song(("C", 4), ("G", 4), ("C", 4)), vocabulary)
    theirs = events(song(("C", 4), ("Am", 4), ("C", 4), ("Am", 4)), vocabulary)
    expected = jensenshannon([2 / 3, 1 / 3, 0], [1 / 2, 0, 1 / 2], base=2)
    assert variety.js_unigram(ours, theirs) == pytest.approx(expected)
    assert variety.js_bigram(ours, theirs) == pytest.approx(1.0)
    assert variety.js_unigram(ours, ours) == 0.0
    assert np.isnan(variety.js_unigram(ours, events(np.full((1, 4), PAD), vocabulary)))


def test_relative_bigrams_do_not_know_the_key(song, vocabulary):
    ours = events(song(("C", 4), ("G", 4), ("C", 4)), vocabulary)
    moved = events(song(("E", 4), ("B", 4), ("E", 4)), vocabulary)
    assert variety.js_bigram(ours, moved) == pytest.approx(1.0)
    assert variety.js_bigram_relative(ours, moved) == pytest.approx(0.0, abs=1e-7)
