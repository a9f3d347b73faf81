"""Stages and post-training that are interrupted end as if they had not been."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapt_jax import masked, models
from gapt_jax.algorithm.state import Frozen, Spec
from gapt_jax.config import (
    DiscriminatorConfig,
    FitConfig,
    ModelsConfig,
    OptimizerConfig,
    RuntimeConfig,
    TransformerConfig,
)
from gapt_jax.errors import TrainingStopped, UserError
from gapt_jax.runtime.checkpoint import checkpoints, finished_steps
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.metrics import read_metrics
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, DataConfig, EvaluationConfig, Experiment
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import pretrain
from gapt_jax.training.post_training import post_train, restore_policy
from gapt_jax.training.stages import Stage, run_stage
from gapt_jax.types import Batch
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_ONSET, Vocabulary

VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
FRAMES, STEPS = 8, 6
STACK = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
NETWORKS = models.build(
    ModelsConfig(STACK, STACK, STACK, STACK), VOCABULARY.size, Accompaniment(VOCABULARY).reward_models
)
ALGORITHM = AlgorithmConfig(
    steps=STEPS,
    batch_size=8,
    minibatch_size=4,
    policy=OptimizerConfig(1e-3),
    critic=OptimizerConfig(1e-3),
    discriminator_optimizer=OptimizerConfig(1e-3),
    discriminator=DiscriminatorConfig(minibatch_size=4, steps_per_update=2),
)
RUNTIME = RuntimeConfig(checkpoint_every=2, stage_checkpoint_every=2, keep_checkpoints=2)
EXPERIMENT = Experiment(
    models=ModelsConfig(STACK, STACK, STACK, STACK),
    data=DataConfig(max_frames=FRAMES),
    algorithm=ALGORITHM,
    evaluation=EvaluationConfig(every=3),
    runtime=RUNTIME,
)


class Interrupted(Exception):
    pass


def songs(rows: int, number: int) -> Batch:
    rng = np.random.default_rng(number)
    melody = rng.integers(NOTE_ONSET, NOTE_ONSET + 128, (rows, FRAMES))
    chords = rng.integers(CHORD_HOLD, VOCABULARY.size, (rows, FRAMES))
    index = np.arange(number * rows, (number + 1) * rows)
    return Batch(*(x.astype(np.int32) for x in (melody, chords, index)))


class Songs:
    """Endless training batches; raises before batch number `until`; remembers where it was asked to start."""

    def __init__(self, until: int | None = None, length: int | None = None):
        self.until, self.length, self.starts = until, length, []

    def __call__(self, rows: int, start: int):
        self.starts.append(start)
        return self._from(rows, start)

    def _from(self, rows, number):
        while self.length is None or number < self.length:
            if number == self.until:
                raise Interrupted
            yield songs(rows, number)
            number += 1


def assert_same(a, b):
    for (path, x), y in zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y, err_msg=jax.tree_util.keystr(path))


def noisy_regression(params, batch, key, dropout_keys):
    """A loss that compiles fast and uses songs, draws and dropout (None in validation)."""
    noise = jax.random.normal(key, batch.index.shape)
    if dropout_keys is not None:
        noise += jax.vmap(jax.random.bernoulli)(dropout_keys)
    error = batch.context / 100 @ params["weights"] - noise
    every = jnp.ones_like(error)
    return masked.ratio(jnp.square(error), every), {"accuracy": masked.ratio((error > 0).astype(jnp.float32), every)}


def stage(steps: int = 6, name: str = "policy", **identity) -> Stage:
    fit = pretrain.Fit(noisy_regression, FitConfig(steps, 4, OptimizerConfig(1e-2)), members=2)
    return Stage(name, fit, lambda key: {"weights": jax.random.normal(key, (FRAMES,))}, 0, identity)


STAGE = stage()  # compiled once


def run(one: Stage, root, batches):
    return run_stage(one, root, batches, songs(4, 99), RUNTIME, Console())


def test_an_interrupted_stage_is_an_uninterrupted_one(tmp_path, capsys):
    one = STAGE
    whole = run(one, tmp_path / "a", Songs())
    with pytest.raises(Interrupted):
        run(one, tmp_path / "b", Songs(until=5))
    again = Songs()
    resumed = run(one, tmp_path / "b", again)
    assert again.starts == [4]  # the newest checkpoint; batch 4 is the fifth
    assert_same(whole, resumed)
    logs = [read_metrics(one.folder(tmp_path / name) / "metrics.jsonl") for name in "ab"]
    assert logs[0] == logs[1] and [row["step"] for row in logs[0]] == [1, 2, 3, 4, 5, 6]
    assert "goes on from step 4 of 6" in capsys.readouterr().out


def test_a_finished_stage_is_read_not_trained(tmp_path, capsys):
    one, batches = STAGE, Songs()
    made, read = run(one, tmp_path, batches), run(one, tmp_path, batches)
    assert batches.starts == [0]
    assert_same(made, read)
    assert "reused" in capsys.readouterr().out
    assert json.loads((one.folder(tmp_path) / "done.json").read_text())["steps"] == 6


def test_what_changes_a_stage_changes_its_folder(tmp_path):
    folders = {
        one.folder(tmp_path) for one in (stage(), stage(steps=7), stage(data="x"), stage(data="y"), stage(name="b"))
    }
    assert len(folders) == 5 and stage().folder(tmp_path) in folders


def test_a_stage_that_runs_out_of_songs_is_not_done(tmp_path):
    one = STAGE
    with pytest.raises((UserError, TrainingStopped)):
        run(one, tmp_path, Songs(length=3))
    assert not (one.folder(tmp_path) / "done.json").exists()


@pytest.fixture(scope="module")
def spec():
    return Spec(NETWORKS, ALGORITHM, Accompaniment(VOCABULARY))


@pytest.fixture(scope="module")
def frozen():
    members = jax.jit(jax.vmap(NETWORKS.rewards["rhythm_discriminative"].init))(jax.random.split(jax.random.key(1), 2))
    return Frozen(jax.jit(NETWORKS.anchor.init)(jax.random.key(2)), {"rhythm_discriminative": members})


POLICY = NETWORKS.policy.init(jax.random.key(3))
MONITORED = SimpleNamespace(context=np.zeros((2, FRAMES)), actions=np.zeros((2, FRAMES)), index=np.arange(2))


class FakeEvaluator:
    """Measures something of the policy's parameters, so that a wrong policy shows."""

    rewards = None

    def play(self, policy, melody, index, *, sampling):
        assert sampling == "unfiltered"
        return np.asarray(policy["head"]["kernel"])

    def measure(self, melody, chords, data_chords, policy=None):
        return {"note_in_chord": float(np.abs(chords).sum())}


@pytest.fixture
def train(spec, frozen):
    def run_it(folder, batches, frozen=frozen):
        folder.mkdir(exist_ok=True)
        return post_train(spec, frozen, POLICY, batches, FakeEvaluator(), MONITORED, EXPERIMENT, folder, Console())

    return run_it


def test_interrupted_post_training_is_uninterrupted(train, spec, tmp_path):
    whole = train(tmp_path / "a", Songs())
    with pytest.raises(Interrupted):
        train(tmp_path / "b", Songs(until=3))
    again = Songs()
    resumed = train(tmp_path / "b", again)
    assert again.starts == [2]
    assert_same(whole, resumed)
    assert int(whole.step) == STEPS

    logs = [read_metrics(tmp_path / name / "metrics.jsonl") for name in "ab"]
    assert logs[0] == logs[1]
    assert [row["step"] for row in logs[0]] == [0, 1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in logs[0] if "valid/note_in_chord" in row] == [0, 3, 6]

    step, policy = restore_policy(spec, POLICY, RUNTIME, tmp_path / "b", Console())
    assert step == STEPS
    assert_same(policy, whole.policy)

    finished = Songs()
    assert_same(train(tmp_path / "b", finished), whole)  # nothing is left to do


def test_a_run_that_cannot_go_on_stops_and_names_the_culprit(train, frozen, tmp_path):
    train_steps = Songs(until=2)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", train_steps)
    poisoned = Frozen(frozen.anchor, jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), frozen.rewards))
    with pytest.raises(TrainingStopped, match="reward/rhythm_discriminative"):
        train(tmp_path / "run", Songs(), poisoned)
    with checkpoints(tmp_path / "run" / "checkpoints", RuntimeConfig(keep_checkpoints=2), Console()) as saved:
        assert saved.latest() == 4  # steps 3, 4, 5 were skipped: what step 4 saved is the policy of step 2
    state = train(tmp_path / "run", Songs())  # with its cause gone it goes on
    assert int(state.step) == STEPS and int(state.policy_optimizer.updates) == 2 * 4  # two of six steps did nothing


def test_post_training_that_runs_out_of_songs_says_so(train, tmp_path):
    with pytest.raises((UserError, TrainingStopped)):
        train(tmp_path / "run", Songs(length=3))


def test_no_checkpoint_no_policy(spec, tmp_path):
    assert restore_policy(spec, POLICY, RUNTIME, tmp_path, Console()) is None


def test_the_newest_checkpoints_are_kept(tmp_path):
    tree = lambda n: {"a": jnp.full(3, float(n)), "b": {"c": jnp.int32(n)}}  # noqa: E731
    with checkpoints(tmp_path / "c", RuntimeConfig(keep_checkpoints=2), Console()) as saved:
        assert saved.latest() is None
        for step in (1, 2, 3):
            saved.save(step, tree(step), {})
    with checkpoints(tmp_path / "c", RuntimeConfig(keep_checkpoints=2), Console()) as saved:
        assert saved.latest() == 3
        step, newest = saved.restore(tree(0), {})
        assert step == 3
        assert_same(newest, tree(3))
    assert finished_steps(tmp_path / "c") == [2, 3]
