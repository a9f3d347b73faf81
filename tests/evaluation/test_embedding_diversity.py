"""Distances to data in an embedding, against answers known by hand."""

import numpy as np
import pytest

from gapt_jax.evaluation import embeddings

LINE = np.arange(7.0)[:, None] * [1.0, 0.0]  # 0..6: the ball of 3 reaches 3 far, that of 0 and of 6 reaches 5 far


def test_frechet_distance_by_hand():
    """Means 3 apart; variances 1 and 4 along x, 9 and 9 along y: 9 + (1 - 2)^2 + (3 - 3)^2 = 10."""
    corners = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)  # unit variances, n - 1 below
    ours, data = corners * [1, 3], corners * [2, 3] + [3, 0]
    assert embeddings.frechet_distance(ours, data) == pytest.approx(10.0)


def test_frechet_distance_of_correlated_features_is_the_same_in_any_basis():
    rng = np.random.default_rng(0)
    ours, data = rng.normal(size=(40, 3)) * [1, 2, 3], rng.normal(size=(50, 3)) * [3, 1, 2] + 1
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    expected = embeddings.frechet_distance(ours, data)
    assert expected > 1
    assert embeddings.frechet_distance(ours @ turn, data @ turn) == pytest.approx(expected)


def test_the_same_songs_are_at_no_distance():
    rows = np.random.default_rng(1).normal(size=(30, 8))
    assert embeddings.frechet_distance(rows, rows) == pytest.approx(0.0, abs=1e-9)
    assert embeddings.precision(rows, rows) == embeddings.coverage(rows, rows) == 1.0


def test_precision_counts_our_songs_and_coverage_those_of_data():
    """k = 5. Radii of 0..6 are 5 4 3 3 3 4 5. Of our songs at -5, -6, 100 only -5 lies in a ball (that of 0)."""
    ours = np.array([[-5.0, 0], [-6, 0], [100, 0]])
    assert embeddings.precision(ours, LINE) == pytest.approx(1 / 3)
    assert embeddings.coverage(ours, LINE) == pytest.approx(1 / 7)


def test_one_song_again_and_again_is_precise_and_covers_little():
    """A song at 6 lies in the balls of 2 (no: 3 far), 3, 4, 5, 6: those of 3, 4, 5, 6."""
    ours = np.repeat([[6.0, 0]], 9, axis=0)
    assert embeddings.precision(ours, LINE) == 1.0
    assert embeddings.coverage(ours, LINE) == pytest.approx(4 / 7)


def test_too_few_songs_are_nan():
    few = LINE[:5]
    assert np.isnan(embeddings.precision(LINE, few)) and np.isnan(embeddings.coverage(LINE, few))
    assert np.isnan(embeddings.frechet_distance(LINE[:1], LINE))
    assert np.isnan(embeddings.coverage(LINE[:0], LINE))


def test_same_melody_diversity_is_a_mean_over_melodies():
    """Four different accompaniments of one melody, one twice of the next, none of the last: (4 + 1) / 2."""
    samples = np.stack([np.eye(4), np.repeat(np.eye(4)[:1], 4, axis=0), np.eye(4)])
    sounds = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    assert embeddings.mean_vendi(samples, sounds) == pytest.approx(2.5)
    assert np.isnan(embeddings.mean_vendi(samples, np.zeros((3, 4), bool)))
