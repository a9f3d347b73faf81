"""What the host does for members of a population: alarms that keep or stop one of them, and going on with that one."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from gapt_jax import models
from gapt_jax.algorithm.state import Frozen, Spec
from gapt_jax.config import DiscriminatorConfig, MeshConfig, ModelsConfig, RuntimeConfig, TransformerConfig
from gapt_jax.errors import Preempted
from gapt_jax.runtime import hosts, mesh
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.mesh import MeshMembers
from gapt_jax.runtime.metrics import read_metrics
from gapt_jax.tasks.accompaniment.config import (
    AlarmActions,
    AlgorithmConfig,
    DataConfig,
    EvaluationConfig,
    Experiment,
    HealthConfig,
)
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import ablate, population, post_training
from gapt_jax.training.job import Job
from gapt_jax.training.population import STOPPED, Member
from gapt_jax.types import Batch
from gapt_jax.vocabulary import Vocabulary

STACK = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2)
VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
NETWORKS = models.build(
    ModelsConfig(STACK, STACK, STACK, STACK), VOCABULARY.size, Accompaniment(VOCABULARY).reward_models
)
ALGORITHM = AlgorithmConfig(
    steps=12, batch_size=4, minibatch_size=4, discriminator=DiscriminatorConfig(minibatch_size=4, steps_per_update=1)
)
POLICY = NETWORKS.policy.init(jax.random.key(3))
MEASURED = {"note_in_chord": 0.5, "note_in_chord_chance": 0.25, "silent_share": 0.0}


class Evaluator:
    """The policies of step 4 and later are silent."""

    rewards = None

    def play(self, policy, melody, index, *, sampling): ...

    def measure(self, melody, chords, data_chords, policy=None):
        steps = _first(policy) - _first(POLICY)
        return MEASURED | ({"silent_share": 0.5} if steps > 3.5 else {})


def _first(policy) -> float:
    return float(np.ravel(jax.tree.leaves(policy)[0])[0])


@pytest.fixture
def train(monkeypatch):
    """Post-training whose iterations only count, in the state and in the policy; evaluated every 2, saved every 5."""

    def iteration(spec, spread, states, frozen, batches):
        counted = jax.tree.map(lambda x: x + 1, states.policy)
        return dataclasses.replace(states, step=states.step + 1, policy=counted), {"kl": np.full(len(states.step), 0.1)}

    monkeypatch.setattr(population.population, "iteration", iteration)
    monkeypatch.setattr("gapt_jax.training.post_training.iteration_flops", lambda *_: (0.0, 0.0))
    batch = Batch(*(np.zeros(shape, np.int32) for shape in ((4, 8), (4, 8), (4,))))
    corpus = SimpleNamespace(
        training_batches=lambda **_: itertools.repeat(batch),
        evaluation_songs=lambda *_: SimpleNamespace(context=None, actions=None, index=None),
    )
    devices = mesh.build(MeshConfig(data=1))

    def run(members):
        layout = SimpleNamespace(mesh=devices, rows_here=lambda rows: range(rows))
        experiment = members[0].experiment
        spec = Spec(NETWORKS, ALGORITHM, Accompaniment(VOCABULARY))
        job = Job(experiment, members[0].folder, corpus, spec, layout, Console())
        spread = MeshMembers.of(mesh.split(devices, len(members)))
        population.post_train(job, members, Frozen(None, {}), POLICY, Evaluator(), spread)

    return run


def grid(folder, *actions: str) -> list[Member]:
    """A member for each action upon silence."""
    experiments = [
        Experiment(
            seed=seed,
            algorithm=ALGORITHM,
            data=DataConfig(max_frames=8),
            evaluation=EvaluationConfig(every=2),
            runtime=RuntimeConfig(checkpoint_every=5, keep_checkpoints=1, keep_best=0),
            health=HealthConfig(actions=AlarmActions(silence=action)),
        )
        for seed, action in enumerate(actions)
    ]
    members = [Member(experiment, folder / f"seed{experiment.seed}") for experiment in experiments]
    for member in members:
        member.folder.mkdir()
    return members


def saved_steps(member):
    return post_training.saved_steps(member.folder)


def logged(member):
    return [row["step"] for row in read_metrics(member.folder / "metrics.jsonl")]


def test_an_alarm_keeps_that_very_step_of_its_member(train, tmp_path):
    log, keep = grid(tmp_path, "log", "keep")
    train([log, keep])
    assert saved_steps(log) == [12] and saved_steps(keep) == [6, 12]
    assert logged(log) == logged(keep) == list(range(13))
    for member in (log, keep):
        account = json.loads((member.folder / "account.json").read_text())
        assert account["iterations"] == 12 and account["members"] == 2 and "iteration" in account["seconds"]


def test_members_that_keep_different_steps_still_have_some_in_common(train, tmp_path, monkeypatch):
    log, keep = grid(tmp_path, "log", "keep")
    polls = itertools.count(1)

    def killed():
        if next(polls) == 8:
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(hosts, "should_stop", killed)
    with pytest.raises(KeyboardInterrupt):
        train([log, keep])
    assert saved_steps(log) == [5] and saved_steps(keep) == [5, 6]
    monkeypatch.undo()


def test_a_stopped_member_is_saved_at_that_step_and_gone_on_with(train, tmp_path, capsys, monkeypatch):
    members = log, stop = grid(tmp_path, "log", "stop")
    train(members)
    assert saved_steps(log) == [12] and saved_steps(stop)[-1] == 6 and logged(stop) == list(range(7))
    assert stop.why_stopped.startswith("gapt stopped at step 6, which is saved: silence, since step 4 no chord")
    assert (stop.goes_on_from, log.goes_on_from, log.why_stopped) == (6, None, "")
    assert "warning: seed1: gapt stopped at step 6" in capsys.readouterr().out

    ablate._go_on_if_all_ended(members)  # the other one is not evaluated yet
    assert stop.why_stopped
    (log.folder / "evaluation.json").write_text("{}")
    ablate._go_on_if_all_ended(members)
    assert not stop.why_stopped

    answers = iter([False, True])
    monkeypatch.setattr(hosts, "should_stop", lambda: next(answers, False))
    with pytest.raises(Preempted, match="preempted at step 8 of 12 of post-training, which is saved"):
        train([stop])
    assert stop.goes_on_from == 6  # as it was before: so it goes on beside the same members
    train([stop])
    assert saved_steps(stop) == [12] and logged(stop) == list(range(13))
    assert len((stop.folder / "alarms.jsonl").read_text().splitlines()) == 1
    assert "stopped at" not in capsys.readouterr().out


def test_stopped_members_are_together_that_go_on_from_one_step(tmp_path, monkeypatch):
    members = grid(tmp_path, *["stop"] * 4)
    for member, step in zip(members[1:], (6, 3, 6), strict=True):
        member.write_stop(step, "")
    chunks = []
    monkeypatch.setattr(ablate, "_member_job", lambda job, member: None)
    monkeypatch.setattr(ablate, "frozen_of", lambda *_: None)
    monkeypatch.setattr(ablate, "evaluator_of", lambda *_: None)
    monkeypatch.setattr(ablate, "post_train", lambda job, chunk, *_: chunks.append([m.folder.name for m in chunk]))
    job = SimpleNamespace(layout=SimpleNamespace(mesh=mesh.build(MeshConfig(data=1))), console=Console())
    record = SimpleNamespace(population={})
    ablate._train(job, SimpleNamespace(policy=None), members, record, at_once=4)
    assert chunks == [["seed0"], ["seed1", "seed3"], ["seed2"]]
    assert record.population["chunks"] == 3


def test_an_old_record_of_a_stop_says_no_step_and_the_newest_saved_one_counts(tmp_path):
    (member,) = grid(tmp_path, "log")
    (member.folder / STOPPED).write_text('{"reason": "NaN"}')
    assert member.why_stopped == "NaN" and member.goes_on_from == 0
    (member.folder / "checkpoints" / "7").mkdir(parents=True)
    assert member.goes_on_from == 7
