"""Two agents at once: who sees what, whose notes are played, and the influence of a note by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import prng
from gapt_jax.algorithm.rollout import roll_out
from gapt_jax.tasks.accompaniment.partner import Player, interplay
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_HOLD, NOTE_ONSET, PAD, SILENCE

SONGS, FRAMES = 12, 8
AGENT, DATA = np.ones(FRAMES, bool), np.zeros(FRAMES, bool)


@pytest.fixture(scope="module")
def params(networks):
    drawn = [networks.policy.init(jax.random.key(n)) for n in (0, 1)]
    return tuple(p | {"head": {"kernel": 4 * p["head"]["kernel"]}} for p in drawn)  # far from uniform


@pytest.fixture(scope="module")
def play(networks, params, vocabulary):
    players = [Player(networks.policy, Accompaniment(vocabulary, part)) for part in ("chords", "melody")]

    def run(melody, is_agent, index, key, given, *, counterfactuals):
        return interplay(
            *players, given, melody, is_agent, index, key, validity_mask=True, counterfactuals=counterfactuals
        )

    compiled = jax.jit(run, static_argnames="counterfactuals")
    return lambda melody, is_agent=AGENT, index=None, seed=0, given=params, counterfactuals=2: jax.tree.map(
        np.asarray,
        compiled(
            jnp.asarray(melody),
            jnp.asarray(is_agent),
            jnp.arange(len(melody)) if index is None else jnp.asarray(index),
            jax.random.key(seed),
            given,
            counterfactuals=counterfactuals,
        ),
    )


def melodies() -> np.ndarray:
    """Songs of FRAMES frames, the last third of them shorter."""
    drawn = np.random.default_rng(0).integers(NOTE_ONSET, NOTE_ONSET + 128, (SONGS, FRAMES)).astype(np.int32)
    for row in range(2 * SONGS // 3, SONGS):
        drawn[row, 1 + row % (FRAMES - 1) :] = PAD
    return drawn


def test_with_the_notes_of_the_data_it_is_the_rollout(networks, params, vocabulary, play):
    melody = melodies()
    played = play(melody, DATA)
    alone = jax.jit(lambda *a: roll_out(networks.policy, params[0], *a, Accompaniment(vocabulary), validity_mask=True))
    expected = alone(jnp.asarray(melody), jnp.arange(SONGS), jax.random.key(0))
    np.testing.assert_array_equal(played.chords, expected.actions)
    np.testing.assert_array_equal(played.melody, melody)


def test_the_agent_is_its_own_rollout_over_the_chords_that_it_heard(networks, params, vocabulary, play):
    played = play(melodies())
    key = prng.stream(jax.random.key(0), 0, "agent")
    task = Accompaniment(vocabulary, "melody")
    alone = jax.jit(lambda *a: roll_out(networks.policy, params[1], *a, task, validity_mask=True))
    expected = alone(jnp.asarray(played.chords), jnp.arange(SONGS), key)
    np.testing.assert_array_equal(played.melody, expected.actions)
    real = played.melody != PAD
    is_note = (played.melody >= NOTE_HOLD) & (played.melody < CHORD_HOLD)
    assert np.all((is_note | (played.melody == SILENCE))[real]) and np.mean(is_note[real]) > 0.5


def opposite(policy):
    return policy | {"head": {"kernel": -policy["head"]["kernel"]}}


def test_neither_sees_the_others_token_of_the_frame(params, play):
    """Another policy of the partner changes what one hears from frame 0 on, and so what one plays from frame 1 on."""
    melody = melodies()[: SONGS // 2]
    both = play(melody)
    other_partner = play(melody, given=(params[0], opposite(params[1])))
    assert np.any(other_partner.melody[:, 0] != both.melody[:, 0])
    np.testing.assert_array_equal(other_partner.chords[:, 0], both.chords[:, 0])
    assert np.any(other_partner.chords[:, 1:] != both.chords[:, 1:])
    other_policy = play(melody, given=(opposite(params[0]), params[1]))
    assert np.any(other_policy.chords[:, 0] != both.chords[:, 0])
    np.testing.assert_array_equal(other_policy.melody[:, 0], both.melody[:, 0])
    assert np.any(other_policy.melody[:, 1:] != both.melody[:, 1:])


@pytest.mark.parametrize("data_first", [True, False])
def test_the_partner_changes_where_it_should(play, data_first):
    melody, half = melodies()[: SONGS // 2], FRAMES // 2
    is_agent = (np.arange(FRAMES) >= half) == data_first
    played, free = play(melody, is_agent), play(melody)
    np.testing.assert_array_equal(played.melody[:, ~is_agent], melody[:, ~is_agent])
    assert np.mean(played.melody[:, is_agent] != melody[:, is_agent]) > 0.5
    before = slice(0, half)
    unchanged = play(melody, DATA) if data_first else free
    np.testing.assert_array_equal(played.chords[:, before], unchanged.chords[:, before])


def test_draws_depend_on_the_global_index_alone(play):
    melody, index = melodies(), np.arange(100, 100 + SONGS, dtype=np.int32)
    whole = play(melody, index=index)
    order = np.random.default_rng(0).permutation(SONGS)
    shuffled = play(melody[order], index=index[order])
    for name in ("melody", "chords"):
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(whole, name)[order])
    np.testing.assert_allclose(shuffled.influence, whole.influence[order], atol=1e-5)
    assert np.mean(play(melody, index=index, seed=1).melody != whole.melody) > 0.5


def test_after_the_end_there_is_padding(play):
    melody = melodies()
    played, ended = play(melody), melodies() == PAD
    assert ended.sum() > 10
    for part in (played.melody, played.chords):
        np.testing.assert_array_equal(part == PAD, ended)
    has_next = np.pad(~ended[:, 1:], ((0, 0), (0, 1)))
    assert np.all(played.influence[~has_next] == 0)
    assert np.all(played.influence[has_next] > -1e-6) and np.mean(played.influence[has_next]) > 1e-3


class Listener:
    """A policy by hand: the next token depends on the newest context token alone, by a table [V, V] of logits."""

    @staticmethod
    def method(table, name, *args):
        if name == "empty_cache":
            return jnp.zeros(())
        tokens, cache, _ = args
        return table[tokens[:, -1]], cache


def divergence(p: float, q: float) -> float:
    """KL between two chords played with p and 1 - p, and with q and 1 - q."""
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


@pytest.mark.parametrize(
    ("counterfactuals", "after_low", "after_high"),
    [
        (400, divergence(0.9, 0.725), divergence(0.2, 0.725)),
        (1, 0.25 * divergence(0.9, 0.2), 0.75 * divergence(0.2, 0.9)),
    ],
)
def test_influence_by_hand(vocabulary, counterfactuals, after_low, after_high):
    """The agent plays one of two notes, 3/4 and 1/4; the policy then plays chord a with 0.9 or 0.2, else chord b.

    With many counterfactuals the marginal of a is 3/4 * 0.9 + 1/4 * 0.2 = 0.725. With one it is that of a single note,
    the same as the one played (no influence) or the other: 0.29 and 1.02 nats in place of 0.09 and 0.60, so too much.
    """
    size, low, high = vocabulary.size, NOTE_ONSET + 60, NOTE_ONSET + 61
    a, b = vocabulary.chord_onset, vocabulary.chord_onset + 1
    never = np.full((size, size), -1e9, np.float32)
    chords, notes = never.copy(), never.copy()
    chords[:, [a, b]] = np.log(0.5)
    chords[low, [a, b]], chords[high, [a, b]] = np.log([0.9, 0.1]), np.log([0.2, 0.8])
    notes[:, [low, high]] = np.log([0.75, 0.25])
    players = [Player(Listener(), Accompaniment(vocabulary, part)) for part in ("chords", "melody")]
    songs = 1200
    played = interplay(
        *players,
        (jnp.asarray(chords), jnp.asarray(notes)),
        jnp.full((songs, 2), SILENCE, jnp.int32),
        jnp.ones(2, bool),
        jnp.arange(songs),
        jax.random.key(0),
        validity_mask=False,
        counterfactuals=counterfactuals,
    )
    first = np.asarray(played.melody[:, 0])
    assert abs(np.mean(first == low) - 0.75) < 0.05
    for note, influence in ((low, after_low), (high, after_high)):
        np.testing.assert_allclose(np.mean(played.influence[first == note, 0]), influence, rtol=0.08)
