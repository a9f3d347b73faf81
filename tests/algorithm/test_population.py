"""A population: every member is the single run it stands for, wherever and beside whatever it is computed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from gapt_jax.algorithm import learner, population
from gapt_jax.algorithm.state import Frozen, Spec, hyperparameters, init_state
from gapt_jax.runtime import mesh as meshes
from gapt_jax.runtime.mesh import MeshMembers
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.types import Batch
from gapt_jax.vocabulary import CHORD_HOLD, NOTE_ONSET

FRAMES, STEPS = 8, 3
GRID = [(weight, seed) for weight in (0.0, 1.0) for seed in (1, 2)]  # (λ, seed)
TOLERANCE = 1e-5  # of parameters after STEPS iterations; seen: 2e-6 where a member's songs are spread, 7e-7 elsewhere


@pytest.fixture(scope="module")
def setting(networks, vocabulary, algorithm_config):
    """(spec, frozen models, first policy, first states by member)."""
    keys = jax.random.split(jax.random.key(0), 3)
    discriminator = dataclasses.replace(algorithm_config.discriminator, gate_period=2, gate_threshold=0.7)
    config = dataclasses.replace(algorithm_config, discriminator=discriminator)
    spec = Spec(networks, config, Accompaniment(vocabulary))
    members = jax.vmap(networks.rewards["discriminative"].init)(jax.random.split(keys[1], 2))
    frozen = Frozen(networks.anchor.init(keys[0]), {"discriminative": members})
    policy = networks.policy.init(keys[2])
    start = jax.jit(lambda seed: init_state(spec, policy, seed, FRAMES))
    states = []
    for weight, seed in GRID:
        hyper = hyperparameters(dataclasses.replace(config, adversarial_weight=weight))
        states.append(jax.device_get(dataclasses.replace(start(seed), hyper=hyper)))
    return spec, frozen, policy, states


def songs(spec, seed: int, step: int) -> Batch:
    rng = np.random.default_rng((seed, step))
    shape = (spec.config.batch_size, FRAMES)
    melody = rng.integers(NOTE_ONSET, NOTE_ONSET + 128, shape)
    chords = rng.integers(CHORD_HOLD, spec.task.vocabulary.size, shape)
    return Batch(*(x.astype(np.int32) for x in (melody, chords, np.arange(shape[0]) + shape[0] * step)))


@pytest.fixture(scope="module")
def singles(setting):
    """Final state and metrics of each step of every member, trained alone."""
    spec, frozen, _, states = setting
    found = []
    for (_, seed), state in zip(GRID, states, strict=True):
        metrics = []
        state = jax.tree.map(jnp.asarray, state)
        for step in range(STEPS):
            state, measured = learner.iteration(spec, state, frozen, songs(spec, seed, step))
            metrics.append(jax.device_get(measured))
        found.append((jax.device_get(state), metrics))
    return found


def mesh(*shape: int) -> Mesh:
    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return Mesh(devices, (meshes.POPULATION, *meshes.AXES), axis_types=(AxisType.Auto,) * 5)


def train(setting, spread: MeshMembers, states, steps: int = STEPS):
    """Final states [P, ...] and the metrics of each step."""
    spec, frozen, _, _ = setting
    spec = dataclasses.replace(spec, layout=spread.layout(0))
    states = spread.place(jax.tree.map(lambda *x: np.stack(x), *states))
    frozen, metrics = spread.everywhere(frozen), []
    for step in range(steps):
        batches = [songs(spec, seed, step) for _, seed in GRID]
        batches = spread.place(jax.tree.map(lambda *x: np.stack(x), *batches))
        states, measured = population.iteration(spec, spread, states, frozen, batches)
        metrics.append(jax.device_get(measured))
    return jax.device_get(states), metrics


def assert_close(single, member):
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(single)[0], jax.tree.leaves(member), strict=True):
        where = jax.tree_util.keystr(path)
        if np.issubdtype(a.dtype, np.floating):
            np.testing.assert_allclose(b, a, rtol=0, atol=TOLERANCE, err_msg=where)
        else:  # tokens, counts and keys
            np.testing.assert_array_equal(b, a, err_msg=where)


SPREADS = {
    "two members on each of two devices, one after the other": lambda: MeshMembers.of(mesh(2, 1, 1, 1, 1)),
    "two members on each of two devices, in one pass": lambda: MeshMembers(mesh=mesh(2, 1, 1, 1, 1)),
    "two members on each of two groups of four devices": lambda: MeshMembers.of(mesh(2, 1, 2, 2, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SPREADS)
def test_every_member_is_a_single_run(setting, singles, name):
    spread = SPREADS[name]()
    states, metrics = train(setting, spread, setting[3])
    openings = [int(state.gate_openings) for state, _ in singles]
    assert min(openings) > 0
    for number, (single, rows) in enumerate(singles):
        assert_close(single, jax.tree.map(lambda x, n=number: x[n], states))
        for step, row in enumerate(rows):
            for key, value in row.items():
                assert float(metrics[step][key][number]) == pytest.approx(float(value), abs=1e-4, nan_ok=True), key


@pytest.mark.slow
@pytest.mark.parametrize("is_vectorised", [False, True])
def test_a_member_that_diverges_touches_no_other(setting, is_vectorised):
    spread = MeshMembers(is_vectorised, mesh=mesh(2, 1, 1, 1, 1))
    healthy, _ = train(setting, spread, setting[3], 2)
    sick = list(setting[3])
    sick[1] = dataclasses.replace(sick[1], policy=jax.tree.map(lambda x: np.full_like(x, np.nan), sick[1].policy))
    states, metrics = train(setting, spread, sick, 2)
    assert metrics[-1]["policy_skipped"][1] == 1 and not np.isfinite(metrics[-1]["policy_gradient_norm"][1])
    for number in (0, 2, 3):
        assert metrics[-1]["policy_skipped"][number] == 0
        for a, b in zip(jax.tree.leaves(healthy), jax.tree.leaves(states), strict=True):
            np.testing.assert_array_equal(a[number], b[number])


@pytest.mark.parametrize(
    "devices, members, groups",
    [(8, 24, 8), (8, 12, 4), (2, 24, 2), (8, 1, 1), (2, 3, 1), (8, 15, 8)],
)
def test_devices_are_divided_so_that_little_is_filled_up(devices, members, groups):
    whole = Mesh(np.array(jax.devices()[:devices]).reshape(1, devices, 1, 1), meshes.AXES)
    split = meshes.split(whole, members)
    assert split.shape[meshes.POPULATION] == groups and split.size == devices
    assert list(split.devices.flat) == jax.devices()[:devices]


def test_when_computes_for_all_what_one_member_needs():
    layout = dataclasses.replace(meshes.Layout(), members=population.MEMBERS)

    def one(is_true):
        return layout.when(is_true, lambda x: x + 1, lambda x: x, jnp.float32(1))

    found = jax.vmap(one, axis_name=population.MEMBERS)(jnp.array([True, False, True]))
    assert found.tolist() == [2, 1, 2]
    assert jax.vmap(one, axis_name=population.MEMBERS)(jnp.zeros(3, bool)).tolist() == [1, 1, 1]
