"""Where the devices are changes nothing: the same songs, the same parameters; and no talk inside the frame loop."""

import collections
import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from gapt_jax import models
from gapt_jax.algorithm import gradients, learner, supervised
from gapt_jax.algorithm.layout import Layout
from gapt_jax.algorithm.state import Frozen, Spec, init_state
from gapt_jax.config import (
    DiscriminatorConfig,
    FitConfig,
    MeshConfig,
    ModelsConfig,
    OptimizerConfig,
    RuntimeConfig,
    TransformerConfig,
)
from gapt_jax.errors import UserError
from gapt_jax.runtime import mesh
from gapt_jax.runtime.checkpoint import checkpoints
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.mesh import MeshLayout, MeshMembers
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig
from gapt_jax.tasks.accompaniment.task import Accompaniment
from gapt_jax.training import pretrain
from gapt_jax.types import Batch
from gapt_jax.vocabulary import PAD, Vocabulary

FRAMES, ROWS, STEPS = 16, 16, 3
TOLERANCE = 2e-6  # of parameters after STEPS iterations at rate 1e-3: what another order of addition costs
VOCABULARY = Vocabulary.from_qualities([(0, 4, 7)])
STACK = TransformerConfig(dim=16, depth=1, heads=2, head_dim=8, ff_mult=2, dropout=0.1)
ADAM = OptimizerConfig(1e-3, 0, 1.0, 0.9, 0.95)
CONFIG = AlgorithmConfig(
    steps=100,
    batch_size=ROWS,
    minibatch_size=8,
    validity_mask=True,
    policy=ADAM,
    critic=ADAM,
    discriminator_optimizer=ADAM,
    discriminator=DiscriminatorConfig(minibatch_size=8, steps_per_update=2, buffer_rollouts=2, gate_threshold=-1e9),
)
TASK = Accompaniment(VOCABULARY)
NETWORKS = models.build(ModelsConfig(STACK, STACK, STACK, STACK), VOCABULARY.size, TASK.reward_models)
KEY = jax.random.key(0)
COLLECTIVES = r"(all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("


def batch(number: int) -> Batch:
    rng = np.random.default_rng(number)
    melody = rng.integers(132 + 60, 132 + 72, (ROWS, FRAMES), dtype=np.int32)
    chords = rng.integers(VOCABULARY.chord_onset, VOCABULARY.size, (ROWS, FRAMES), dtype=np.int32)
    for row, length in ((3, 9), (7, 4)):  # ragged
        melody[row, length:] = chords[row, length:] = PAD
    return Batch(melody, chords, np.arange(ROWS, dtype=np.int32) + ROWS * number)


def on(data: int, fsdp: int = 1, tensor: int = 1, microbatch_rows: int = 0) -> MeshLayout:
    return MeshLayout(microbatch_rows, mesh=mesh.build(MeshConfig(data, fsdp, tensor)))


def begin(layout: Layout):
    """(spec, state, frozen) of one and the same run, laid out."""

    def frozen(key):
        kinds = ("contrastive", "rhythm_discriminative")
        members = {k: jax.vmap(NETWORKS.rewards[k].init)(jax.random.split(key, 2)) for k in kinds}
        return Frozen(NETWORKS.anchor.init(key), members)

    spec = Spec(NETWORKS, CONFIG, TASK, layout)
    state = layout.start(lambda key: init_state(spec, NETWORKS.policy.init(key), 0, FRAMES), KEY)
    return spec, state, layout.start(frozen, KEY)


def train(layout: Layout):
    spec, state, frozen = begin(layout)
    played = []
    for number in range(STEPS):
        songs = layout.place(batch(number), ROWS)
        played.append(np.asarray(learner.rollout(spec, state, songs).actions)[:ROWS])
        state, metrics = learner.iteration(spec, state, frozen, songs)
    assert metrics["discriminator/is_open"] == 1
    return played, jax.tree.map(np.asarray, (state.policy, state.critic, state.discriminator)), metrics


@pytest.fixture(scope="module")
def alone():
    return train(Layout())


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8,), (4, 2, 1, 1), (2, 2, 2), (3,)], ids=["8", "4x2,microbatch 1", "2x2x2", "3"])
def test_topology_changes_no_token_and_no_parameter(alone, shape):
    """3 devices do not divide the 16 songs: they are filled up."""
    played, params, metrics = train(on(*shape))
    np.testing.assert_array_equal(played, alone[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE), params, alone[1])
    for name, value in metrics.items():
        np.testing.assert_allclose(value, alone[2][name], rtol=1e-3, atol=1e-4, err_msg=name)


def collectives(compiled) -> dict[str, int]:
    return dict(collections.Counter(re.findall(COLLECTIVES, compiled.as_text())))


@pytest.mark.slow
def test_the_rollout_says_nothing_and_a_minibatch_one_thing():
    layout = on(8, microbatch_rows=1)
    spec, state, frozen = begin(layout)
    songs = layout.place(batch(0), ROWS)
    assert collectives(learner.rollout.lower(spec, state, songs).compile()) == {}
    uneven = layout.place(jax.tree.map(lambda x: x[:13], batch(0)), 13)
    assert collectives(learner.rollout.lower(spec, state, uneven).compile()) == {}
    trajectory = learner.rollout(spec, state, songs)
    terms, _ = learner.judge(spec, state, frozen, songs, trajectory)
    experience, _ = learner.estimate(spec, state, frozen, trajectory, terms)
    fields = len(jax.tree.leaves(experience))
    update = collectives(learner.improve_policy.lower(spec, state, experience).compile())
    # Once per call every field of the experience is gathered, and per minibatch all gradients are summed as one.
    assert update == {"all-gather": fields, "all-reduce": 1}


@pytest.mark.slow
def test_a_supervised_step_does_not_depend_on_the_mesh():
    """MLE by rows with its token counts, and the contrastive loss, whose batch is spread by the compiler."""
    judge, fits = NETWORKS.rewards["contrastive"], {}
    for name, layout in {"alone": Layout(), "mesh": on(4, 2, microbatch_rows=1)}.items():
        for loss, init, members in (
            (supervised.policy_loss(NETWORKS), NETWORKS.policy.init, None),
            (TASK.reward_models["contrastive"].loss(judge), judge.init, 2),
        ):
            fit = pretrain.Fit(loss, FitConfig(10, ROWS // (members or 1), ADAM), members, layout)
            state = layout.start(lambda fit=fit, init=init: pretrain.init_fit(fit, init, 0))
            for number in range(3):
                state, metrics = pretrain.fit_step(fit, state, layout.place(batch(number), ROWS))
            fits[name, members] = jax.tree.map(np.asarray, (state.params, metrics))
    for members in (None, 2):
        pair = fits["alone", members], fits["mesh", members]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-6, rtol=1e-4), *pair)


def test_parameters_are_split_by_their_names():
    layout = on(2, 2, 2)
    params = jax.eval_shape(NETWORKS.policy.init, KEY)
    specs = {
        jax.tree_util.keystr(path, simple=True, separator="/"): sharding.spec
        for path, sharding in jax.tree_util.tree_flatten_with_path(mesh.shardings(layout.mesh, params))[0]
    }
    block = "stack/blocks/0"
    assert specs[f"{block}/attention/query/kernel"] == PartitionSpec("fsdp", "tensor")
    assert specs[f"{block}/attention/out/kernel"] == PartitionSpec("tensor", "fsdp")
    assert specs[f"{block}/feed_forward/inner/bias"] == PartitionSpec("tensor")
    assert specs["embed/embedding"] == PartitionSpec(None, "fsdp")
    assert specs[f"{block}/attention/query_gain"] == PartitionSpec()
    stacked = jax.eval_shape(jax.vmap(NETWORKS.policy.init), jax.random.split(KEY, 3))  # members come first
    query = mesh.shardings(layout.mesh, stacked)["stack"]["blocks"][0]["attention"]["query"]["kernel"]
    assert query.spec == PartitionSpec(None, "fsdp", "tensor")
    # the moments of the optimiser are split like what they belong to
    spec = Spec(NETWORKS, CONFIG, TASK, layout)
    state = jax.eval_shape(lambda: init_state(spec, NETWORKS.policy.init(KEY), 0, FRAMES))
    split = sum(s.spec != PartitionSpec() for s in jax.tree.leaves(mesh.shardings(layout.mesh, state)))
    assert split >= 3 * 3 * 8  # parameters and two moments of three networks


def test_every_device_holds_its_share_from_the_start():
    layout = on(1, 8)
    params = layout.start(NETWORKS.policy.init, KEY)
    kernel = params["stack"]["blocks"][0]["attention"]["query"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 16)}
    whole = jax.jit(NETWORKS.policy.init)(KEY)
    jax.tree.map(np.testing.assert_array_equal, params, whole)


@pytest.mark.parametrize("shape", [(2, 4), (1, 1), (8, 1)])
def test_a_checkpoint_comes_back_on_another_mesh(tmp_path, shape):
    there, here = on(8), on(*shape)
    params = there.start(NETWORKS.policy.init, KEY)
    with checkpoints(tmp_path, RuntimeConfig(), Console()) as saved:
        saved.save(1, params, {})
    with checkpoints(tmp_path, RuntimeConfig(), Console()) as saved:
        step, restored = saved.restore(here.abstract(params), {})
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, restored, params)
    kernel = restored["stack"]["blocks"][0]["attention"]["query"]["kernel"]
    assert kernel.sharding.mesh == here.mesh and len(kernel.addressable_shards) == here.mesh.size


def test_rows_go_where_they_belong():
    layout = on(4, 2)
    placed = layout.place({"x": np.arange(16)}, 16)["x"]
    assert [shard.data.tolist() for shard in placed.addressable_shards[:2]] == [[0, 1], [2, 3]]
    assert layout.rows_here(16).tolist() == list(range(16))
    filled = layout.place({"x": np.arange(1, 11)}, 10)["x"]  # two for each device, zeros at the end
    assert filled.tolist() == [*range(1, 11), *[0] * 6]
    assert layout.rows_here(10).tolist() == list(range(10))
    assert layout.share({"x": np.arange(3)})["x"].sharding.is_fully_replicated


@dataclasses.dataclass(frozen=True)
class FakeChip:
    id: int
    slice_index: int
    process_index: int = 0
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0

    @property
    def coords(self) -> tuple[int, int, int]:
        return self.id % 2, self.id // 2 % 2, 0


def test_slices_are_an_axis_of_their_own():
    chips = [FakeChip(n, n // 4) for n in range(8)]
    grid = mesh.build(MeshConfig(fsdp=2), chips)
    assert dict(grid.shape) == {"slice": 2, "data": 2, "fsdp": 2, "tensor": 1}
    assert [{chip.slice_index for chip in half.flat} for half in grid.devices] == [{0}, {1}]
    with pytest.raises(UserError, match="4 devices of a slice"):
        mesh.build(MeshConfig(data=3), chips)
    gpus = [dataclasses.replace(chip, platform="gpu") for chip in chips]
    assert dict(mesh.build(MeshConfig(), gpus).shape)["slice"] == 1  # their index counts hosts


@pytest.mark.parametrize(
    "slices, members, groups, of_each",
    [(2, 16, 16, 1), (2, 2, 2, 1), (2, 1, 1, 2), (4, 2, 2, 2), (4, 4, 4, 1), (2, 24, 8, 1)],
)
def test_members_are_divided_over_slices_first(slices, members, groups, of_each):
    chips = np.array([FakeChip(n, n // (16 // slices)) for n in range(16)]).reshape(slices, 16 // slices, 1, 1)
    whole = Mesh(chips, mesh.AXES)
    split = mesh.split(whole, members)
    assert split.shape[mesh.POPULATION] == groups and split.shape["slice"] == of_each and split.size == 16
    assert {len({chip.slice_index for chip in group.flat}) for group in split.devices} == {of_each}
    assert list(split.devices.flat) == list(whole.devices.flat)


def test_a_host_has_the_members_whose_devices_it_has():
    hosts = 0, 0, 1, 1, 0, 0, 2, 2  # of each device
    chips = np.array([FakeChip(n, 0, host) for n, host in enumerate(hosts)]).reshape(1, 8, 1, 1)

    def on_hosts(members):
        spread = MeshMembers.of(mesh.split(Mesh(chips, mesh.AXES), members))
        return [spread.members_of(host, members).tolist() for host in range(3)]

    assert on_hosts(8) == [[0, 1, 4, 5], [2, 3], [6, 7]]
    assert on_hosts(15) == [[0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7], [12, 13, 14, 15]]  # 15 fills up
    assert on_hosts(2) == [[0, 1], [0], [1]]
    assert on_hosts(1) == [[0]] * 3


def test_members_are_put_together_and_taken_out_bit_by_bit():
    spread, count = MeshMembers.of(mesh.split(mesh.build(MeshConfig()), 15)), 15
    odd = np.array([-0.0, np.nan, np.inf, 1e-45], np.float32)
    trees = [{"x": np.append(odd, np.float32(n)), "key": np.uint32([n, 2**32 - 1 - n])} for n in range(count)]
    together = spread.together(iter(trees), count)
    assert together["x"].shape == (16, 5) and {s.data.shape for s in together["x"].addressable_shards} == {(2, 5)}
    assert together["x"].sharding == spread.shardings(together)["x"]
    for number in (0, 7, 14, 15):
        found, expected = spread.one(together, number), trees[min(number, 14)]
        assert found["x"].sharding.is_fully_replicated
        for name, x in expected.items():
            assert np.asarray(found[name]).tobytes() == x.tobytes(), (number, name)


def test_songs_of_members_go_where_these_are():
    spread = MeshMembers.of(mesh.split(mesh.build(MeshConfig()), 15))
    here = spread.members_here(15)
    assert here.tolist() == list(range(16))
    placed = spread.place_here([{"x": np.full((3, 2), min(n, 14))} for n in here], 15)["x"]
    assert placed.sharding == spread.shardings({"x": placed})["x"]
    assert placed[:, 0, 0].tolist() == [*range(15), 14] and placed.shape == (16, 3, 2)


def test_a_mesh_that_does_not_come_out_is_refused(monkeypatch):
    with pytest.raises(UserError, match="their product must be 8"):
        mesh.build(MeshConfig(fsdp=3))
    with pytest.raises(UserError, match="their product must be 8"):
        mesh.build(MeshConfig(data=16))
    assert mesh.build(MeshConfig(data=2)).size == 2  # a part of one host's devices is a choice
    assert mesh.build_any(MeshConfig(data=16)).size == 8


@pytest.mark.parametrize("kind", ["policy", "anchor"])
def test_songs_that_do_not_come_out_even_change_no_loss(kind):
    """13 songs on 8 devices, in microbatches of one, against 13 songs at once."""
    loss, params = getattr(supervised, f"{kind}_loss")(NETWORKS), getattr(NETWORKS, kind).init(KEY)
    songs = jax.tree.map(lambda x: x[:13], batch(0))

    def of(layout):
        row_loss = lambda params, songs: loss(params, songs, KEY, None)  # noqa: E731
        return jax.jit(lambda params, songs: gradients.of_rows(row_loss, layout, params, songs))

    alone, spread = of(Layout())(params, songs), of(on(8, microbatch_rows=1))(params, songs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), alone, spread)
