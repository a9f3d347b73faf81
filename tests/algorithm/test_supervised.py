"""Supervised losses of policy and anchor by hand (docs/method.md §3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax.algorithm import supervised
from gapt_jax.types import Batch
from gapt_jax.vocabulary import BOS, EOS, PAD, Vocabulary
from tests.algorithm.losses import KEY, Spy

V = Vocabulary.from_qualities([(0, 4, 7)]).size


def test_a_uniform_model_loses_log_v():
    targets = jnp.array([[5, 6, PAD], [7, EOS, PAD]])
    loss, metrics = supervised.next_token_loss(jnp.zeros((2, 3, V)), targets)
    assert float(loss.value()) == pytest.approx(np.log(V), rel=1e-6)
    assert float(metrics["accuracy"].value()) == 0.0


def test_next_token_loss_by_hand():
    # probabilities of the targets: 1/2, 1/4 and, PAD, one that does not count; mean of log 2 and log 4
    logits = jnp.log(jnp.array([[[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [1e-9, 0.5, 0.5]]]))
    loss, metrics = supervised.next_token_loss(logits, jnp.array([[1, 2, PAD]]))
    assert float(loss.value()) == pytest.approx(1.5 * np.log(2), rel=1e-6)
    assert float(metrics["accuracy"].value()) == 0.5
    # over tokens, not over songs: one song of 3 targets at log 2 and one of 1 at log 4
    p = jnp.log(jnp.array([[[0.2, 0.5, 0.3]] * 3, [[0.25, 0.25, 0.5]] * 3]))
    loss, _ = supervised.next_token_loss(p, jnp.array([[1, 1, 1], [1, PAD, PAD]]))
    assert float(loss.value()) == pytest.approx((3 * np.log(2) + np.log(4)) / 4, rel=1e-6)


def test_policy_learns_both_parts_and_the_end():
    melody, chords = jnp.array([[140, 141, PAD]]), jnp.array([[265, 266, PAD]])
    stream = [BOS, 265, 140, 266, 141, EOS, PAD, PAD]
    spy = Spy(lambda tokens: 50.0 * jax.nn.one_hot(jnp.array([stream[1:]]), V))
    loss, metrics = supervised.policy_loss(spy)(None, Batch(melody, chords, jnp.arange(1)), KEY, None)
    assert spy.inputs[0].tolist() == [stream[:-1]]
    assert float(loss.value()) == pytest.approx(0.0, abs=1e-6) and float(metrics["accuracy"].value()) == 1.0
    # each of the five targets counts one fifth: spoil the last, EOS
    spy.answer = lambda tokens: (50.0 * jax.nn.one_hot(jnp.array([stream[1:]]), V)).at[0, 4].set(0.0)
    loss, _ = supervised.policy_loss(spy)(None, Batch(melody, chords, jnp.arange(1)), KEY, None)
    assert float(loss.value()) == pytest.approx(np.log(V) / 5, rel=1e-5)


def test_a_full_song_ends_with_eos_too():
    full = Batch(jnp.array([[140, 141]]), jnp.array([[265, 266]]), jnp.arange(1))
    spy = Spy(lambda tokens: 50.0 * jax.nn.one_hot(jnp.array([[265, 140, 266, 141, EOS]]), V))
    loss, _ = supervised.policy_loss(spy)(None, full, KEY, None)
    assert float(loss.value()) == pytest.approx(0.0, abs=1e-6)


def test_anchor_learns_the_chords_given_the_whole_melody():
    melody, chords = jnp.array([[140, 141, PAD]]), jnp.array([[265, 266, PAD]])
    spy = Spy(lambda source, target: 50.0 * jax.nn.one_hot(jnp.array([[265, 266, EOS, PAD]]), V))
    loss, metrics = supervised.anchor_loss(spy)(None, Batch(melody, chords, jnp.arange(1)), KEY, None)
    assert spy.inputs[0].tolist() == [[BOS, 140, 141, EOS, PAD]]
    assert spy.inputs[1].tolist() == [[BOS, 265, 266, EOS]]
    assert float(loss.value()) == pytest.approx(0.0, abs=1e-6) and float(metrics["accuracy"].value()) == 1.0
