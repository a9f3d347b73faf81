"""Figures of reward models by hand, and those of tiny ones on whole sets and in batches."""

import dataclasses

import jax
import numpy as np
import pytest
from jax import random

from gapt_jax import models
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.evaluation import evaluator as evaluators
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.evaluation.reward_models import judgement, retrieval
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, EvaluationConfig
from gapt_jax.tasks.accompaniment.example import TASK, songs

SEEDS = 2


def test_retrieval_by_hand():
    similarity = np.array(
        [
            [0.9, 0.1, 0.2, 0.0],  # rank 1
            [0.8, 0.7, 0.1, 0.6],  # 2
            [0.3, 0.4, 0.2, 0.5],  # 4
            [0.3, 0.2, 0.1, 0.3],  # 1 or 2
        ]
    )
    found = retrieval(similarity)
    assert found["recall_at_1"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert found["recall_at_5"] == found["recall_at_10"] == 1
    assert found["map_at_10"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 3 / 4) / 4)
    assert retrieval(similarity.T)["recall_at_1"] == pytest.approx((1 + 1 + 0.5 + 0) / 4)


def test_an_answer_beyond_the_tenth_rank_counts_nothing():
    similarity = np.tile(np.arange(11.0), (11, 1))  # row n has rank 11 - n
    found = retrieval(similarity)
    assert found == pytest.approx(
        {
            "recall_at_1": 1 / 11,
            "recall_at_5": 5 / 11,
            "recall_at_10": 10 / 11,
            "map_at_10": sum(1 / np.arange(1, 11)) / 11,
        }
    )


def test_an_encoder_that_tells_nothing_apart_is_at_chance():
    found = retrieval(1 + 1e-7 * np.random.default_rng(0).normal(size=(50, 50)))
    assert found == pytest.approx(
        {"recall_at_1": 0.02, "recall_at_5": 0.1, "recall_at_10": 0.2, "map_at_10": sum(1 / np.arange(1, 11)) / 50}
    )


def test_judgement_by_hand():
    found = judgement(np.array([2.0, 0.1, -1.0, 3.0]), np.array([1.0, -2.0, -0.1, 0.0]))
    assert found == pytest.approx({"precision": 3 / 4, "recall": 3 / 4, "f1": 3 / 4})
    found = judgement(np.array([1.0, -1.0, -1.0, -1.0]), np.array([-1.0, -1.0, -1.0, -1.0]))
    assert found == pytest.approx({"precision": 1, "recall": 1 / 4, "f1": 2 / 5})
    nothing = judgement(np.array([-1.0]), np.array([-1.0]))
    assert np.isnan(nothing["precision"]) and nothing["recall"] == nothing["f1"] == 0


@pytest.fixture(scope="module")
def evaluator():
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
    networks = models.build(ModelsConfig(stack, stack, stack, stack), TASK.vocab_size, TASK.reward_models)
    names = ("contrastive", "rhythm_discriminative")
    seeds = {name: jax.vmap(networks.rewards[name].init)(random.split(random.key(0), SEEDS)) for name in names}
    return Evaluator(Spec(networks, AlgorithmConfig(), TASK), {}, EvaluationConfig(batch_size=8), reward_models=seeds)


def test_every_seed_of_every_reward_model_is_measured(evaluator):
    batch = songs()
    context, actions = np.array(batch.context), np.array(batch.actions)
    found = evaluator.reward_model_quality(context, actions)
    assert {name: (x["kind"], x["n_songs"], len(x["seeds"])) for name, x in found.items()} == {
        "contrastive": ("contrastive", 8, SEEDS),
        "rhythm_discriminative": ("discriminative", 8, SEEDS),
    }
    reward, network = TASK.reward_models["contrastive"], evaluator.spec.models.rewards["contrastive"]
    for number, figures in enumerate(found["contrastive"]["seeds"]):
        params = jax.tree.map(lambda x, n=number: x[n], evaluator.reward_models["contrastive"])
        notes, chords = (np.asarray(x) for x in reward.embed_both(network, params, context, actions))
        np.testing.assert_allclose(np.linalg.norm(notes, axis=1), 1, atol=1e-5)
        assert figures["melody_to_chord"] == pytest.approx(retrieval(notes @ chords.T))
        assert figures["chord_to_melody"] == pytest.approx(retrieval(chords @ notes.T))
    in_batches = dataclasses.replace(evaluator, config=EvaluationConfig(batch_size=3))
    np.testing.assert_equal(in_batches.reward_model_quality(context, actions), found)  # undefined ones too
    assert evaluator.reward_model_quality(context[:1], actions[:1]) == {}, "one song has nobody to be confused with"


def test_false_pairs_are_those_of_the_fit(evaluator, monkeypatch):
    batch, name = songs(), "rhythm_discriminative"
    monkeypatch.setattr(evaluators, "judgement", lambda genuine, false: {"genuine": genuine, "false": false})
    found = evaluator.reward_model_quality(np.array(batch.context), np.array(batch.actions))[name]["seeds"]
    genuine, false = TASK.reward_models[name].examples(random.key(0), batch.context, batch.actions)
    assert np.any(genuine != false) and genuine.shape == false.shape
    for number, figures in enumerate(found):
        params = jax.tree.map(lambda x, n=number: x[n], evaluator.reward_models[name])
        for kind, tokens in (("genuine", genuine), ("false", false)):
            logits = evaluator.spec.models.rewards[name](params, tokens)
            np.testing.assert_allclose(figures[kind], logits, atol=1e-5)
        assert np.std(figures["false"]) > 1e-4  # so the test can fail
