"""Placement, combination and inputs of the reward terms (reference.md §4.4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import rewards
from gapt_jax.types import Trajectory
from gapt_jax.vocabulary import NOTE_HOLD, NOTE_ONSET, PAD, SILENCE

FRAMES = 8


def test_terminal_rewards_sit_on_the_last_real_frame():
    mask = jnp.array([[1.0, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    placed = rewards.at_last(jnp.array([7.0, 8.0, 9.0, 5.0]), mask)
    np.testing.assert_array_equal(placed, [[0, 0, 7], [8, 0, 0], [0, 9, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    ("ensemble", "expected"),
    [("sum", [4, 0]), ("mean", [2, 0]), ("min", [1, -2]), ("mean_minus_std", [1, -2])],
)
def test_combining_members(ensemble, expected):
    scores = jnp.array([[1.0, 2.0], [3.0, -2.0]])  # two members, two songs; deviations 1 and 2
    np.testing.assert_allclose(rewards.combine(scores, ensemble), expected, atol=1e-6)


def test_how_much_disagreement_costs_is_a_setting():
    scores = jnp.array([[1.0, 2.0], [3.0, -2.0]])  # means 2 and 0, deviations 1 and 2
    np.testing.assert_allclose(rewards.combine(scores, "mean_minus_std", jnp.float32(0.5)), [1.5, -1.0], atol=1e-6)
    np.testing.assert_allclose(rewards.combine(scores, "mean_minus_std", 0.0), [2.0, 0.0], atol=1e-6)


def test_spread_is_that_of_songs():
    values, is_song = jnp.array([1.0, 5.0, 99.0]), jnp.array([1.0, 1.0, 0.0])
    assert float(rewards.spread(values, is_song)) == pytest.approx(2.0)


def test_total_is_the_weighted_sum():
    terms = {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[10.0, 20.0]])}
    total = rewards.weighted_sum({"a": jnp.float32(0.5), "b": jnp.float32(-1)}, terms)
    np.testing.assert_array_equal(total, [[-9.5, -19.0]])
    np.testing.assert_array_equal(rewards.weighted(jnp.float32(0), jnp.array([jnp.nan, 1.0])), [0, 0])


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
    return {kind: jax.jit(jax.vmap(networks.reward(kind).init))(keys) for kind in kinds}


@pytest.fixture(scope="module")
def scores(networks, members, vocabulary):
    compiled = jax.jit(lambda m, c: rewards.coherence_scores(networks, members, m, c, vocabulary.tables))
    return lambda melody, chords: jax.tree.map(np.asarray, compiled(melody, chords))


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
        alone = jax.jit(lambda p, m, c, k=kind: rewards.score(networks.reward(k), k, p, m, c))(one, *heard)
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


def test_rule_terms_are_placed(vocabulary):
    onset, hold = vocabulary.chord_onset, 260
    chords = jnp.array([[onset, hold, onset + 1, hold, SILENCE, PAD, PAD, PAD]])  # a hold of the wrong chord
    melody = jnp.array([[NOTE_ONSET] * 5 + [PAD] * 3])
    mask = (melody != PAD).astype(jnp.float32)
    terms = rewards.rule_terms(Trajectory(melody, chords, mask, mask), vocabulary.tables)
    assert set(terms) == {"early_stop", "invalid", "long_note", "repetition", "silence"}
    np.testing.assert_array_equal(terms["invalid"], [[0, 0, 0, 0, -10, 0, 0, 0]])
    np.testing.assert_array_equal(terms["repetition"], [[0, 0, 0, 0, -1, 0, 0, 0]])
    np.testing.assert_array_equal(terms["early_stop"], np.zeros((1, 8)))
