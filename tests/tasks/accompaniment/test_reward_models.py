"""What each reward model hears, and the range of its scores."""

import jax
import numpy as np
import pytest

from gapt_jax.algorithm import reward_models
from gapt_jax.models.networks import pair, part
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET, PAD

FRAMES = 8


def songs(seed, vocabulary, rows=5):
    rng = np.random.default_rng(seed)
    melody = rng.integers(NOTE_HOLD, NOTE_HOLD + 250, (rows, FRAMES)).astype(np.int32)
    chords = rng.integers(260, vocabulary.size, (rows, FRAMES)).astype(np.int32)
    melody[0, 5:] = chords[0, 5:] = PAD
    return melody, chords


@pytest.fixture(scope="module")
def members(networks):
    kinds = ("contrastive", "discriminative", "rhythm_contrastive", "rhythm_discriminative")
    keys = jax.random.split(jax.random.key(3), 2)
    return {kind: jax.jit(jax.vmap(networks.rewards[kind].init))(keys) for kind in kinds}


@pytest.fixture(scope="module")
def scores(networks, members, vocabulary):
    rewards = Accompaniment(vocabulary).reward_models
    compiled = jax.jit(lambda m, c: reward_models.scores(rewards, networks, members, m, c))
    return lambda melody, chords: jax.tree.map(np.asarray, compiled(melody, chords))


def score(model, kind, params, melody, chords):
    """By hand: the cosine of two towers, or the probability of a genuine pair."""
    if kind.endswith("contrastive"):
        first, second, _ = model(params, part(melody), part(chords))
        return (first * second).sum(axis=-1)
    return jax.nn.sigmoid(model(params, pair(melody, chords)))


def test_scores_of_each_member_and_their_ranges(networks, members, scores, vocabulary):
    melody, chords = songs(0, vocabulary)
    out = scores(melody, chords)
    assert set(out) == set(members)
    rhythm = vocabulary.tables.rhythm
    for kind, values in out.items():
        assert values.shape == (2, 5)
        low = -1 if kind.endswith("contrastive") else 0
        assert np.all((values >= low) & (values <= 1)) and np.std(values) > 1e-4
        assert np.any(values[0] != values[1])
        heard = (rhythm[melody], rhythm[chords]) if kind.startswith("rhythm") else (melody, chords)
        one = jax.tree.map(lambda x: x[1], members[kind])
        alone = jax.jit(lambda p, m, c, k=kind: score(networks.rewards[k], k, p, m, c))(one, *heard)
        np.testing.assert_allclose(values[1], alone, atol=1e-6)


def test_rhythm_models_hear_no_pitch(scores, vocabulary):
    melody, chords = songs(1, vocabulary)
    is_note = (melody >= NOTE_ONSET) & (melody < NOTE_ONSET + 120)
    moved = np.where(is_note, melody + 5, melody)  # onsets stay onsets
    before, after = scores(melody, chords), scores(moved, chords)
    assert np.any(melody != moved)
    for kind in before:
        if kind.startswith("rhythm"):
            np.testing.assert_array_equal(before[kind], after[kind])
        else:
            assert np.any(before[kind] != after[kind])
