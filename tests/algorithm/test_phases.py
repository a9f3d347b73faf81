"""The list of phases stands in `learner.iteration` alone: whatever runs, times, traces or plans them follows it."""

import jax
import pytest

from gapt_jax.algorithm import learner
from gapt_jax.benchmark import cases
from gapt_jax.benchmark.cases import Iteration, Size
from gapt_jax.config import DiscriminatorConfig, MeshConfig, ModelsConfig, RuntimeConfig, TransformerConfig
from gapt_jax.launch.plan import PhaseCompiler
from gapt_jax.runtime import chips, cost
from gapt_jax.runtime import mesh as meshes
from gapt_jax.runtime.account import Account
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, DataConfig, Experiment, PretrainConfig, RewardsConfig

PHASES = ["rollout", "judge", "estimate", "improve_policy", "improve_discriminator"]


@learner.phase
def reflect(spec, state):
    return {"steps_behind": spec.config.steps - state.step}


@pytest.fixture
def six_phases(monkeypatch):
    five = learner.iteration

    def iteration(spec, state, frozen, batch, call=lambda phase, *inputs: phase(*inputs)):
        state, metrics = five(spec, state, frozen, batch, call)
        return state, metrics | call(reflect, spec, state)

    monkeypatch.setattr(learner, "iteration", iteration)


@pytest.fixture(scope="module")
def tiny():
    stack = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2, dropout=0.0)
    one_reward = RewardsConfig(contrastive=0.0, rhythm_contrastive=0.0, rhythm_discriminative=0.0)
    adversary = {"minibatch_size": 4, "steps_per_update": 1, "buffer_rollouts": 1}
    return Experiment(
        name="tiny",
        data=DataConfig(max_frames=4),
        models=ModelsConfig(stack, stack, stack, stack),
        pretrain=PretrainConfig(members=1),
        algorithm=AlgorithmConfig(
            batch_size=4, minibatch_size=4, rewards=one_reward, discriminator=DiscriminatorConfig(**adversary)
        ),
        runtime=RuntimeConfig(mesh=MeshConfig(data=1)),
    )


def test_a_sixth_phase_is_run_timed_counted_measured_and_planned(six_phases, tiny, tmp_path):
    size = Size.of("tiny", tiny, 2, "float32", None)
    measured = Iteration(size)
    _, metrics = measured.whole()
    assert float(metrics["steps_behind"]) == tiny.algorithm.steps - 2
    assert list(measured.programs) == [*PHASES, "reflect"]
    assert int(measured.alone("reflect")["steps_behind"]) == tiny.algorithm.steps - 2

    account = Account(tmp_path, 1)
    for number in range(1, 4):
        with account.iteration(number, None) as call:
            learner.iteration(size.spec, *cases.learner_inputs(size), call)
    assert list(account.divided()) == [*PHASES, "reflect", "idle"]

    inputs = jax.eval_shape(lambda: cases.learner_inputs(size))
    assert list(cost.traced(learner.iteration, size.spec, *inputs)) == [*PHASES, "reflect"]

    compiler = PhaseCompiler(tiny, meshes.build(tiny.runtime.mesh, jax.devices()[:1]), chips.V5E, lambda line: None)
    compiler.iteration()
    assert [phase.name for phase in compiler.phases] == [*PHASES, "reflect"]
