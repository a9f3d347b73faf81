"""Play: what the policy may see, what its numbers depend on, and that the behaviour is what training recomputes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gapt_jax import masked, models
from gapt_jax.algorithm import ppo
from gapt_jax.algorithm import rollout as rollouts
from gapt_jax.algorithm.rollout import WHOLE, Truncation, distribution, roll_out, sample, valid_along
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.models.networks import interleave
from gapt_jax.tasks.accompaniment import rules
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_ONSET, PAD, SILENCE, Vocabulary

SONGS, FRAMES = 24, 12


@pytest.fixture(scope="module")
def params(networks):
    drawn = networks.policy.init(jax.random.key(0))
    return drawn | {"head": {"kernel": 4 * drawn["head"]["kernel"]}}  # far from uniform


@pytest.fixture(scope="module")
def play(networks, params, vocabulary):
    def run(melody, index, key, *, validity_mask):
        task = Accompaniment(vocabulary)
        return roll_out(networks.policy, params, melody, index, key, task, validity_mask=validity_mask)

    compiled = jax.jit(run, static_argnames="validity_mask")
    return lambda melody, index=None, seed=0, *, validity_mask=False: jax.tree.map(
        np.asarray,
        compiled(
            jnp.asarray(melody),
            jnp.arange(len(melody)) if index is None else jnp.asarray(index),
            jax.random.key(seed),
            validity_mask=validity_mask,
        ),
    )


def melodies(seed: int = 0) -> np.ndarray:
    """Songs of FRAMES frames, the last third of them shorter."""
    drawn = np.random.default_rng(seed).integers(NOTE_ONSET, NOTE_ONSET + 128, (SONGS, FRAMES)).astype(np.int32)
    for row in range(2 * SONGS // 3, SONGS):
        drawn[row, row % FRAMES :] = PAD
    return drawn


both = pytest.mark.parametrize("validity_mask", [False, True])


@both
@pytest.mark.parametrize("frame", [0, 5, FRAMES - 1])
def test_a_chord_sees_neither_the_note_of_its_frame_nor_the_future(play, frame, validity_mask):
    melody = melodies()[: SONGS // 2]
    other = melody.copy()
    other[:, frame:] = NOTE_ONSET + (other[:, frame:] - NOTE_ONSET + 64) % 128
    before, after = (play(m, validity_mask=validity_mask) for m in (melody, other))
    np.testing.assert_array_equal(before.actions[:, : frame + 1], after.actions[:, : frame + 1])
    np.testing.assert_array_equal(before.log_probs[:, : frame + 1], after.log_probs[:, : frame + 1])
    if frame < FRAMES - 1:  # the note is heard in the next frame
        assert np.all(before.log_probs[:, frame + 1] != after.log_probs[:, frame + 1])
        assert np.any(before.actions[:, frame + 1 :] != after.actions[:, frame + 1 :])


@pytest.mark.parametrize("least, parts", [(2, [(0, 3), (3, 6), (6, 9), (9, 12)]), (5, [(0, 6), (6, 12)])])
def test_a_cache_that_grows_in_parts_changes_nothing(networks, params, vocabulary, play, monkeypatch, least, parts):
    whole = play(melodies())
    monkeypatch.setattr(rollouts, "LEAST_FRAMES", least)
    assert rollouts._chunks(FRAMES) == parts
    inputs = melodies(), jnp.arange(SONGS), jax.random.key(0), Accompaniment(vocabulary)
    grown = roll_out(networks.policy, params, *inputs, validity_mask=False)
    np.testing.assert_array_equal(grown.actions, whole.actions)
    np.testing.assert_allclose(grown.log_probs, whole.log_probs, atol=5e-6)


@both
def test_behaviour_log_probs_are_those_of_the_full_pass(networks, params, vocabulary, play, validity_mask):
    played = play(melodies(), validity_mask=validity_mask)

    @jax.jit
    def full(chords, melody):
        valid = valid_along(Accompaniment(vocabulary), chords) if validity_mask else None
        logits = networks.policy.method(params, "at_states", interleave(chords, melody)[:, :-1])
        return masked.select(distribution(logits, valid), chords)

    log_probs = np.asarray(full(played.actions, played.context))
    real = played.mask > 0
    np.testing.assert_allclose(log_probs[real], played.log_probs[real], atol=1e-5)
    assert float(ppo.ratio_deviation(log_probs, played.log_probs, played.mask)["largest"]) < 1e-4
    assert np.std(played.log_probs[real]) > 0.3  # the policy has preferences


def test_in_bfloat16_play_and_training_part_by_no_more_than_rounding(vocabulary):
    stack = TransformerConfig(dim=64, depth=3, heads=2, head_dim=32)
    rounded, exact = (
        models.build(ModelsConfig(stack, stack, stack, stack, compute_dtype=dtype), vocabulary.size).policy
        for dtype in ("bfloat16", "float32")
    )
    params = rounded.init(jax.random.key(0))
    params |= {"head": {"kernel": 4 * params["head"]["kernel"]}}
    caches = jax.eval_shape(lambda: rounded.method(params, "empty_cache", 1, 8))
    assert {x.dtype for x in jax.tree.leaves(caches)} == {jnp.dtype("bfloat16")}

    @jax.jit
    def play(melody):
        index, key = jnp.arange(SONGS), jax.random.key(0)
        return roll_out(rounded, params, melody, index, key, Accompaniment(vocabulary), validity_mask=False)

    played = play(jnp.asarray(melodies()))

    def full(network):
        logits = network.method(params, "at_states", interleave(played.actions, played.context)[:, :-1])
        return masked.select(distribution(logits, None), played.actions)

    trained, expected = jax.jit(full, static_argnums=0)(rounded), jax.jit(full, static_argnums=0)(exact)
    real = played.mask > 0
    parted, rounding = (np.abs(x - y)[real].mean() for x, y in ((played.log_probs, trained), (trained, expected)))
    assert 1e-4 < rounding < 0.02 and parted < rounding
    assert abs(float(jnp.exp(trained - played.log_probs)[real].mean()) - 1) < 2e-3


def test_draws_depend_on_the_global_index_alone(play):
    melody, index = melodies(), np.arange(100, 100 + SONGS, dtype=np.int32)
    whole = play(melody, index)
    order = np.random.default_rng(0).permutation(SONGS)
    shuffled, part = play(melody[order], index[order]), play(melody[8:13], index[8:13])
    np.testing.assert_array_equal(shuffled.actions, whole.actions[order])
    np.testing.assert_array_equal(part.actions, whole.actions[8:13])
    other = play(melody, index + SONGS)
    assert np.mean(other.actions != whole.actions) > 0.5
    assert np.mean(play(melody, index, seed=1).actions != whole.actions) > 0.5


def test_equal_songs_with_different_indices_are_played_differently(play):
    same = np.repeat(melodies()[:1], 8, axis=0)
    assert len({tuple(row) for row in play(same).actions}) == 8
    assert len({tuple(row) for row in play(same, np.zeros(8, np.int32)).actions}) == 1


@both
def test_after_the_end_there_is_padding(play, validity_mask):
    melody = melodies()
    played = play(melody, validity_mask=validity_mask)
    ended = melody == PAD
    assert ended.sum() > 20
    assert np.all(played.actions[ended] == PAD)
    assert np.all(played.log_probs[ended] == 0)
    np.testing.assert_array_equal(played.mask, (~ended).astype(np.float32))
    np.testing.assert_array_equal(played.context, melody)


def test_every_masked_sample_obeys_the_rules(play, vocabulary):
    onset = vocabulary.chord_onset
    for seed in range(4):
        for chords in play(melodies(seed), seed=seed, validity_mask=True).actions:
            sounding = None
            for token in chords[chords != PAD]:
                assert token >= SILENCE and (token == SILENCE or token >= CHORD_HOLD)
                if CHORD_HOLD <= token < onset:
                    assert sounding in (None, token - CHORD_HOLD)
                sounding = None if token == SILENCE else (token - CHORD_HOLD) % (onset - CHORD_HOLD)
    free = play(melodies()).actions  # without the mask this policy breaks them, so the test can fail
    assert np.mean(np.isin(free, [PAD, 1, 2]) | ((free > SILENCE) & (free < CHORD_HOLD))) > 0.3


def test_inverse_cdf_by_hand():
    # p = .25, 0, .5, .25: the borders are .25 and .75; each belongs to the token above it
    log_probs = jnp.log(jnp.array([[0.25, 0.0, 0.5, 0.25]]))
    uniform = jnp.array([0.0, 0.2499, 0.25, 0.7499, 0.75, 1 - 2**-24])
    assert sample(jnp.repeat(log_probs, 6, axis=0), uniform).tolist() == [0, 0, 2, 2, 3, 3]
    first = jnp.log(jnp.array([[0.0, 1.0]]))
    assert sample(first, jnp.zeros(1)).tolist() == [1]  # u = 0 never takes a token of probability 0


def test_a_policy_that_has_diverged_still_plays_tokens():
    drawn = sample(jnp.full((3, 620), jnp.nan), jnp.array([0.0, 0.5, 0.99]))
    assert np.all((drawn >= 0) & (drawn < 620))


@pytest.mark.parametrize(
    "truncation, left",
    [
        (WHOLE, [0.4, 0.3, 0.0, 0.2, 0.1]),
        (Truncation(top_k=0.4), [4 / 7, 3 / 7, 0, 0, 0]),
        (Truncation(top_k=0.41), [4 / 9, 3 / 9, 0, 2 / 9, 0]),  # rounded up
        (Truncation(top_k=1e-9), [1, 0, 0, 0, 0]),
        (Truncation(top_p=0.39), [1, 0, 0, 0, 0]),
        (Truncation(top_p=0.6), [4 / 7, 3 / 7, 0, 0, 0]),
        (Truncation(top_p=0.95), [0.4, 0.3, 0, 0.2, 0.1]),
        (Truncation(top_k=0.4, top_p=0.5), [1, 0, 0, 0, 0]),  # 0.4 of 0.7 is more than half
        (Truncation(top_k=0.4, top_p=0.6), [4 / 7, 3 / 7, 0, 0, 0]),
    ],
)
def test_truncation_by_hand(truncation, left):
    log_probs = jnp.log(jnp.array([[0.4, 0.3, 0.0, 0.2, 0.1]]))
    found = jax.jit(truncation.of)(jnp.repeat(log_probs, 3, axis=0))
    np.testing.assert_allclose(np.exp(found), np.array([left] * 3), atol=1e-6)


def test_the_released_share_of_the_published_vocabulary():
    assert Truncation(top_k=0.1).tokens(5902) == 591  # ceil(0.1 V), as the released code's library counts
    logits = jax.random.normal(jax.random.key(0), (4, 5902))
    found = Truncation(top_k=0.1).of(jax.nn.log_softmax(logits))
    left = np.exp(found) > 0
    assert left.sum(axis=1).tolist() == [591] * 4
    for row, kept in zip(np.asarray(logits), left, strict=True):
        assert row[kept].min() > row[~kept].max()


def test_truncation_changes_what_is_drawn_and_no_log_probability(networks, params, vocabulary, play):
    inputs = melodies(), jnp.arange(SONGS), jax.random.key(0), Accompaniment(vocabulary)

    @functools.partial(jax.jit, static_argnames="truncation")
    def played(truncation):
        return roll_out(networks.policy, params, *inputs, validity_mask=False, truncation=truncation)

    whole, few = play(melodies()), played(Truncation(top_k=3 / vocabulary.size))
    np.testing.assert_array_equal(played(WHOLE).actions, whole.actions)
    logits = networks.policy.method(params, "at_states", interleave(few.actions, few.context)[:, :-1])
    expected = distribution(logits, None)
    rank = np.sum(np.asarray(expected) > np.asarray(masked.select(expected, few.actions))[..., None], axis=-1)
    real = np.asarray(few.mask) > 0
    assert rank[real].max() == 2  # of what is left, every token is drawn
    np.testing.assert_allclose(masked.select(expected, few.actions)[real], few.log_probs[real], atol=1e-5)
    of_whole = distribution(
        networks.policy.method(params, "at_states", interleave(whole.actions, whole.context)[:, :-1]), None
    )
    drawn = np.asarray(masked.select(of_whole, whole.actions))[..., None]
    assert np.mean(np.sum(np.asarray(of_whole) > drawn, axis=-1)[real] > 2) > 0.3  # so the test can fail


def test_frequencies_are_the_probabilities():
    logits = jax.random.normal(jax.random.key(0), (20,)).at[7].set(-1e30)
    log_probs, draws = jax.nn.log_softmax(logits), 20_000
    uniform = jax.random.uniform(jax.random.key(1), (draws,))
    drawn = sample(jnp.broadcast_to(log_probs, (draws, 20)), uniform)
    counts, expected = np.bincount(drawn, minlength=20), draws * np.exp(np.asarray(log_probs, np.float64))
    assert counts[7] == 0
    others = np.arange(20) != 7
    p = stats.chisquare(counts[others], expected[others] * draws / expected[others].sum()).pvalue
    assert p > 0.01  # fixed keys
    # ... and the test has the power to see logits that are 10 % too large
    wrong = draws * np.asarray(jax.nn.softmax(1.1 * logits), np.float64)[others]
    assert stats.chisquare(counts[others], wrong * draws / wrong.sum()).pvalue < 1e-4


def any_mask(rows):
    return jax.random.bernoulli(jax.random.key(1), 0.5, (rows, 5902))


def validity_mask_of_235_qualities(rows):
    shapes = [(0, *(j for j in range(1, 12) if n >> (j - 1) & 1)) for n in range(1, 236)]
    vocabulary = Vocabulary.from_qualities(shapes)  # V = 5,900
    previous = jnp.where(jnp.arange(rows) % 2 == 0, SILENCE, CHORD_HOLD + jnp.arange(rows))
    return rules.valid_tokens(previous, vocabulary.tables)


@pytest.mark.parametrize("mask", [validity_mask_of_235_qualities, any_mask])
def test_a_masked_token_is_never_drawn_at_the_published_vocabulary_size(mask):
    """Where the running sum grows by rounding at a token of probability 0, a draw that falls there must not take it."""
    rows = 64
    valid = mask(rows)
    log_probs = distribution(3 * jax.random.normal(jax.random.key(0), valid.shape), valid)
    cumulative = np.asarray(jax.jit(functools.partial(jnp.cumsum, axis=-1))(jnp.exp(log_probs)))
    # the hardest draws: just below each value that the sum takes at a masked token
    rng = np.random.default_rng(0)
    masked_tokens = [rng.choice(np.flatnonzero(~row), 400) for row in np.asarray(valid)]
    hard = np.stack([c[i] for c, i in zip(cumulative, masked_tokens, strict=True)])
    uniform = np.maximum(np.nextafter(hard / cumulative[:, -1:], 0), 0).astype(np.float32)
    drawn = np.asarray(jax.jit(jax.vmap(sample, (None, 1), 1))(log_probs, jnp.asarray(uniform)))
    assert np.all(np.take_along_axis(np.asarray(valid), drawn, axis=1))
