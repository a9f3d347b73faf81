"""Losses of the reward models by hand, and their negatives (docs/method.md §3.5, §3.6)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import reward_models
from gapt_jax.tasks.accompaniment.reward_models import shift_one_part
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.types import Batch
from gapt_jax.vocabulary import BOS, NOTE_ONSET, PAD, SILENCE
from tests.algorithm.losses import FRAMES, KEY, VOCABULARY, Spy, songs

TABLES, REWARDS = VOCABULARY.tables, Accompaniment(VOCABULARY).reward_models
ONSET, HOLD = 4, 5


def test_contrastive_loss_by_hand():
    # similarities [[2, 0], [2 * .6, 2 * .8]]: rows -log softmax 2 in (2, 0), 1.6 in (1.2, 1.6);
    # columns 2 in (2, 1.2), 1.6 in (0, 1.6)
    embeddings = jnp.eye(2), jnp.array([[1.0, 0.0], [0.6, 0.8]])
    spy = Spy(lambda melody, chords: (embeddings[1], embeddings[0], jnp.float32(2.0)))
    loss, metrics = REWARDS["contrastive"].loss(spy)(None, songs(2), KEY, None)
    minus_log = lambda a, b: np.log1p(np.exp(b - a))  # noqa: E731
    expected = (minus_log(2, 0) + minus_log(1.6, 1.2) + minus_log(2, 1.2) + minus_log(1.6, 0)) / 4
    assert float(loss.value()) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["accuracy"].value()) == 1.0
    assert [x.shape for x in spy.inputs] == [(2, FRAMES + 2)] * 2


@pytest.mark.parametrize("size", [2, 3, 4, 7, 16, 50])
def test_a_derangement_has_no_fixed_point(size):
    keys = jax.random.split(KEY, 200)
    drawn = np.asarray(jax.jit(jax.vmap(reward_models.derangement, (0, None)), static_argnums=1)(keys, size))
    assert np.all(np.sort(drawn, axis=1) == np.arange(size))
    assert np.all(drawn != np.arange(size))
    partners = [set(drawn[:, row]) for row in range(min(size, 7))]
    assert all(len(seen) == size - 1 for seen in partners) if size <= 16 else True  # every other row occurs


def delayed(part: list[int], delay: int) -> list[int]:
    """The shift of docs/method.md §3.6, token by token, at the part's own length."""
    length, first = len([x for x in part if x != PAD]), part[0]
    gap = [SILENCE] * delay if first == SILENCE else [ONSET] + [HOLD] * (delay - 1)
    body = list(part[:length])
    if first == ONSET:
        body[0] = HOLD  # HOLD through the old onset position
    return (gap + body)[:length] + [PAD] * (len(part) - length)


def test_delays_by_hand():
    assert delayed([4, 5, 5, 3, 4, 5], 2) == [4, 5, 5, 5, 5, 3]
    assert delayed([5, 5, 4, 3, PAD], 1) == [4, 5, 5, 4, PAD]
    assert delayed([3, 4, 5, PAD, PAD], 3) == [3, 3, 3, PAD, PAD]
    assert delayed([4, 4, 5], 1) == [4, 5, 4]


def test_one_part_is_shifted_and_stays_well_formed():
    rows = 400
    openings = [
        [4, 5, 5, 3, 4, 5, 5, 5],
        [5, 5, 4, 3, 4, 5, 3, 4],
        [3, 4, 5, 4, 5, 3, 4, PAD],
        [4, 4, 3, PAD] + [PAD] * 4,
    ]
    melody = np.array([openings[n % 4] for n in range(rows)])
    chords = np.array([openings[(n // 4) % 4] for n in range(rows)])
    moved = [np.asarray(x).tolist() for x in shift_one_part(KEY, jnp.asarray(melody), jnp.asarray(chords))]
    seen = dict.fromkeys([(part, delay) for part in ("melody", "chords") for delay in (1, 2, 3)], 0)
    for m, c, new_m, new_c in zip(melody.tolist(), chords.tolist(), *moved, strict=True):
        outcomes = {("melody", d): (delayed(m, d), c) for d in (1, 2, 3)}
        outcomes |= {("chords", d): (m, delayed(c, d)) for d in (1, 2, 3)}
        fitting = [name for name, outcome in outcomes.items() if outcome == (new_m, new_c)]
        assert fitting, (m, c, new_m, new_c)
        if len(fitting) == 1:
            seen[fitting[0]] += 1
    assert min(seen.values()) > 20  # all six happen


def classes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[rows, melody or chords] lengths of genuine and false pairs: entries that are not PAD, of each part."""
    lengths = np.stack(
        [(half != PAD).sum(axis=1) for half in (tokens[:, : FRAMES + 2], tokens[:, FRAMES + 3 :])], axis=1
    )
    return np.split(lengths, 2)


@pytest.mark.parametrize("kind", ["discriminative", "rhythm_discriminative"])
def test_length_tells_nothing_about_the_class(kind):
    batch = songs(32)
    spy = Spy(lambda tokens: jnp.zeros(len(tokens)))
    for seed in range(5):
        loss, _ = REWARDS[kind].loss(spy)(None, batch, jax.random.key(seed), None)
        assert float(loss.value()) == pytest.approx(np.log(2), rel=1e-6)
        genuine, false = classes(spy.inputs[0])
        np.testing.assert_array_equal(genuine, false)
        np.testing.assert_array_equal(genuine[:, 0], genuine[:, 1])
        assert spy.inputs[0].shape == (64, 2 * FRAMES + 5)
        assert np.all(spy.inputs[0][:, FRAMES + 2] == BOS)
    assert len(np.unique(genuine)) > 2  # the songs differ in length


def test_genuine_pairs_are_genuine_and_false_ones_are_not():
    batch = songs(32, shortest=FRAMES)
    spy = Spy(lambda tokens: jnp.where(jnp.arange(len(tokens)) < 32, 1.0, -3.0))
    loss, metrics = REWARDS["discriminative"].loss(spy)(None, batch, KEY, None)
    # log(1 + e^-1) = .313262 on genuine ones, log(1 + e^-3) = .048587 on false ones
    assert float(loss.value()) == pytest.approx((0.313262 + 0.048587) / 2, rel=1e-5)
    assert float(metrics["accuracy"].value()) == 1.0
    melody, chords = spy.inputs[0][:, 1 : FRAMES + 1], spy.inputs[0][:, FRAMES + 4 : 2 * FRAMES + 4]
    np.testing.assert_array_equal(melody[:32], batch.context)
    np.testing.assert_array_equal(chords[:32], batch.actions)
    np.testing.assert_array_equal(chords[32:], batch.actions)
    assert not np.any(np.all(melody[32:] == batch.context, axis=1))
    assert {tuple(x) for x in melody[32:]} == {tuple(x) for x in batch.context}


def test_half_of_the_false_rhythms_are_shifts():
    rng = np.random.default_rng(0)
    rows = 256
    batch = Batch(
        *(rng.integers(low, low + 24, (rows, FRAMES)).astype(np.int32) for low in (NOTE_ONSET - 12, 260)),
        jnp.arange(rows),
    )
    spy = Spy(lambda tokens: jnp.zeros(len(tokens)))
    REWARDS["rhythm_discriminative"].loss(spy)(None, batch, KEY, None)
    tokens = spy.inputs[0]
    assert tokens.max() <= HOLD
    melody, chords = tokens[:, 1 : FRAMES + 1], tokens[:, FRAMES + 4 : 2 * FRAMES + 4]
    rhythm = TABLES.rhythm[batch.context].tolist(), TABLES.rhythm[batch.actions].tolist()
    shifts = 0
    for m, c, false_m, false_c in zip(*rhythm, melody[rows:].tolist(), chords[rows:].tolist(), strict=True):
        outcomes = [(delayed(m, d), c) for d in (1, 2, 3)] + [(m, delayed(c, d)) for d in (1, 2, 3)]
        shifts += (false_m, false_c) in outcomes
        assert (false_m, false_c) in outcomes or false_c == c
    assert abs(shifts - rows / 2) < 4 * np.sqrt(rows / 4)  # 4 standard deviations of a fair coin
