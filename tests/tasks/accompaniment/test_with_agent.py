"""A policy measured with a melody agent: the whole of `evaluate_with_agent`, with runs that are not on disk."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from gapt_jax import models
from gapt_jax.algorithm.state import Spec
from gapt_jax.config import ModelsConfig, TransformerConfig
from gapt_jax.data_pipeline.stream import EvaluationSongs
from gapt_jax.errors import UserError
from gapt_jax.evaluation.evaluator import Evaluator
from gapt_jax.runtime.console import Console
from gapt_jax.tasks.accompaniment import with_agent
from gapt_jax.tasks.accompaniment.config import DataConfig, EvaluationConfig, Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.vocabulary import NOTE_ONSET, PAD, Vocabulary

SONGS, FRAMES = 6, 8
VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])


def songs(dataset, split, count):
    draw = np.random.default_rng(0)
    melody = draw.integers(NOTE_ONSET + 60, NOTE_ONSET + 72, (SONGS, FRAMES)).astype(np.int32)
    chords = draw.integers(VOCABULARY.chord_onset, VOCABULARY.size, (SONGS, FRAMES)).astype(np.int32)
    melody[0, 6:] = chords[0, 6:] = PAD
    return EvaluationSongs(melody, chords, tuple(map(str, range(SONGS))), np.arange(SONGS, dtype=np.int32))


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Folders `policy` and `agent`; what `load_run` would read from them, by name."""
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
    rewards = Accompaniment(VOCABULARY).reward_models
    networks = models.build(ModelsConfig(stack, stack, stack, stack), VOCABULARY.size, rewards)
    evaluation = EvaluationConfig(songs=SONGS, batch_size=8, sampling="masked")
    loaded = {}
    for seed, (name, part) in enumerate((("policy", "chords"), ("agent", "melody"))):
        experiment = Experiment(data=DataConfig(out_of_domain=(), part=part), evaluation=evaluation)
        spec = Spec(networks, experiment.algorithm, Accompaniment(VOCABULARY, part))
        folder = tmp_path / name
        folder.mkdir()
        facts = {"config_hash": name, "data_fingerprint": "songs", "git_revision": "none"}
        (folder / "run.json").write_text(json.dumps(facts))
        corpus = types.SimpleNamespace(evaluation_songs=songs)
        job = types.SimpleNamespace(experiment=experiment, workdir=folder, corpus=corpus, spec=spec)
        upstream = types.SimpleNamespace(policy=networks.policy.init(jax.random.key(seed)))
        loaded[folder] = job, upstream, (5, networks.policy.init(jax.random.key(10 + seed)))
    encoder = networks.rewards["contrastive"].init(jax.random.key(7))
    evaluator = Evaluator(loaded[tmp_path / "policy"][0].spec, {"independent": encoder}, evaluation)
    monkeypatch.setattr(with_agent, "load_run", lambda folder, console, step: loaded[folder])
    monkeypatch.setattr(with_agent, "evaluator_of", lambda job, upstream: evaluator)
    return tmp_path, loaded


def test_the_file_says_how_each_system_played_with_the_agent(runs):
    folder, _ = runs
    silent = Console(json_mode=True)
    result, path = with_agent.evaluate_with_agent(folder / "policy", folder / "agent", silent)
    assert path == folder / "policy" / "evaluation-agent.json"
    written = json.loads(path.read_text())
    assert written["systems"].keys() == {"mle", "gapt_lambda=1"}
    assert written["agent"] == {"run": str(folder / "agent"), "step": 5, "config_hash": "agent"}
    found = {name: sets["grammar/test"] for name, sets in written["systems"].items()}
    for metrics in found.values():
        assert with_agent.TABLE.keys() - {"vendi_published"} <= metrics.keys()
        assert metrics["invalid_share"]["mean"] == 0 and metrics["note_in_chord"]["n_songs"] == SONGS
        assert metrics["social_influence"]["mean"] > 0
    assert found["mle"]["social_influence"] != found["gapt_lambda=1"]["social_influence"]
    again, _ = with_agent.evaluate_with_agent(folder / "policy", folder / "agent", silent)
    assert again["systems"] == result["systems"]


def test_who_can_play_with_whom(runs):
    folder, loaded = runs
    policy, agent = folder / "policy", folder / "agent"
    silent = Console(json_mode=True)
    with pytest.raises(UserError, match="is a melody agent: give the run of a chord policy"):
        with_agent.evaluate_with_agent(agent, agent, silent)
    with pytest.raises(UserError, match="plays chords: --agent takes a run"):
        with_agent.evaluate_with_agent(policy, policy, silent)
    other = Vocabulary.from_qualities([(0, 3, 7)])
    job = loaded[agent][0]
    job.spec = dataclasses.replace(job.spec, task=Accompaniment(other, "melody"))
    with pytest.raises(UserError, match="has another vocabulary"):
        with_agent.evaluate_with_agent(policy, agent, silent)
