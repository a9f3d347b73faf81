"""A melody longer than the network's window: the policy goes on past it as it would have gone on within it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from gapt_jax import models, prng
from gapt_jax.algorithm.rollout import WHOLE, Truncation
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.evaluation.evaluator import Evaluator, _go_on
from gapt_jax.tasks.accompaniment import rules
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, EvaluationConfig
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import NOTE_ONSET, PAD, SILENCE, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7), (0, 3, 7)])
WINDOW, SONGS = 8, 3


@pytest.fixture(scope="module")
def player():
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
    task = Accompaniment(VOCABULARY)
    networks = models.build(ModelsConfig(stack, stack, stack, stack), VOCABULARY.size, task.reward_models)
    spec = Spec(networks, AlgorithmConfig(), task)
    return Evaluator(spec, {}, EvaluationConfig(batch_size=SONGS)), networks.policy.init(random.key(0))


def melody(frames):
    return np.random.default_rng(0).integers(NOTE_ONSET + 60, NOTE_ONSET + 72, frames).astype(np.int32)


@pytest.mark.parametrize("frames", [1, WINDOW, WINDOW + 1, 5 * WINDOW - 3])
def test_every_frame_is_accompanied(player, frames):
    evaluator, policy = player
    tune, told = melody(frames), []
    chords = evaluator.play_on(policy, tune, SONGS, WINDOW, seed=1, report=told.append)
    assert chords.shape == (SONGS, frames) and not (chords == PAD).any()
    assert told == list(range(WINDOW, frames, WINDOW // 2))
    for row in chords:
        for before, chord in zip([SILENCE, *row[:-1]], row, strict=True):
            assert rules.valid_tokens(jnp.array([before]), VOCABULARY.tables)[0, chord]
    assert len({row.tobytes() for row in chords}) == SONGS or frames == 1
    np.testing.assert_array_equal(chords, evaluator.play_on(policy, tune, SONGS, WINDOW, seed=1))
    begin = evaluator.play_on(policy, tune[:WINDOW], SONGS, WINDOW, seed=1)
    np.testing.assert_array_equal(chords[:, :WINDOW], begin)


@pytest.mark.parametrize("truncation", [WHOLE, Truncation(top_p=0.3)])
def test_going_on_is_what_the_rollout_would_have_done(player, monkeypatch, truncation):
    evaluator, policy = dataclasses.replace(player[0], truncation=truncation), player[1]
    frames = WINDOW + 2  # of no other test: a program compiled there would have draws of its own
    draws = np.random.default_rng(1).random(frames, np.float32)
    monkeypatch.setattr(prng, "uniform_per_example", lambda key, index, count: jnp.tile(draws[-count:], (SONGS, 1)))
    rows, index = melody(frames)[None].repeat(SONGS, axis=0), np.arange(SONGS, dtype=np.int32)
    whole = evaluator.play(policy, rows, index, sampling="masked")
    for kept in (1, frames // 2):
        begun = rows, whole[:, :kept], index
        more = _go_on(evaluator.spec, policy, begun, random.key(0), truncation=truncation)
        np.testing.assert_array_equal(more, whole[:, kept:])


def test_the_likeliest_token_alone_leaves_nothing_to_chance(player):
    evaluator, policy = player
    index = np.arange(SONGS, dtype=np.int32)
    rows = melody(WINDOW)[None].repeat(SONGS, axis=0)
    greedy = dataclasses.replace(evaluator, truncation=Truncation(top_k=1 / VOCABULARY.size))
    for sampling in ("unfiltered", "masked"):
        assert len({row.tobytes() for row in greedy.play(policy, rows, index, sampling=sampling)}) == 1
        assert len({row.tobytes() for row in evaluator.play(policy, rows, index, sampling=sampling)}) == SONGS
