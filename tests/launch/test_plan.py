"""Plans of a tiny experiment. Collectives and memory are pinned: who makes them grow has to say so here."""

import dataclasses
import importlib.util
import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import pytest

from gapt_jax.algorithm import learner
from gapt_jax.commands import main as command_line
from gapt_jax.commands import plan as plan_command
from gapt_jax.config import DiscriminatorConfig, MeshConfig, ModelsConfig, RuntimeConfig, TransformerConfig
from gapt_jax.errors import UserError
from gapt_jax.launch import gpus
from gapt_jax.launch import plan as planning
from gapt_jax.launch.collectives import Collective, parse, summarize
from gapt_jax.launch.plan import PhaseCompiler
from gapt_jax.launch.planned import Phase, Plan
from gapt_jax.runtime import chips, files
from gapt_jax.runtime import mesh as meshes
from gapt_jax.runtime.chips import Chip
from gapt_jax.runtime.console import Console
from gapt_jax.runtime.cost import Cost
from gapt_jax.tasks.accompaniment.config import AlgorithmConfig, DataConfig, Experiment, PretrainConfig, RewardsConfig

TINY = TransformerConfig(dim=32, depth=1, heads=2, head_dim=16, dropout=0.0)
MINIBATCHES = STEPS = 2
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")


def experiment(rows: int = 64, **mesh: int) -> Experiment:
    one_reward = {kind: 0.0 for kind in ("contrastive", "rhythm_contrastive", "rhythm_discriminative")}
    return Experiment(
        name="tiny",
        data=DataConfig(max_frames=8),
        models=ModelsConfig(TINY, TINY, TINY, TINY),
        pretrain=PretrainConfig(members=1),
        algorithm=AlgorithmConfig(
            batch_size=rows,
            minibatch_size=rows // MINIBATCHES,
            rewards=RewardsConfig(**one_reward),
            discriminator=DiscriminatorConfig(minibatch_size=rows // 2, steps_per_update=STEPS),
        ),
        runtime=RuntimeConfig(mesh=MeshConfig(**mesh)),
    )


def quiet(line: str) -> None: ...


def plan_for_cpu(tiny: Experiment, chip: Chip = chips.V5E) -> Plan:
    return planning.plan_for(tiny, jax.devices()[:8], chip, "8 CPU devices", quiet)


@pytest.fixture(scope="module")
def data_parallel() -> list[Phase]:
    return list(plan_for_cpu(experiment()).phases)


@pytest.fixture(scope="module")
def sharded() -> list[Phase]:
    """The two phases that matter most, data = 4 and fsdp = 2."""
    tiny = experiment(fsdp=2)
    compiler = PhaseCompiler(tiny, meshes.build(tiny.runtime.mesh, jax.devices()[:8]), chips.V5E, quiet)
    state, _, batch = compiler.resident
    played = compiler.phase("rollout", learner.rollout, compiler.spec, state, batch)
    experience = learner.Experience(played, advantages=played.log_probs, returns=played.log_probs)
    compiler.phase("improve_policy", learner.improve_policy, compiler.spec, state, experience)
    return compiler.phases


def counts(phases: Sequence[Phase]) -> dict[str, dict[str, int]]:
    return {phase.name: {k: s.count for k, s in summarize(phase.collectives).items()} for phase in phases}


COLLECTIVES = {
    "rollout": {},
    "judge": {"all-reduce": 3},  # metrics; a spread needs its mean first
    "estimate": {"all-reduce": 2, "all-gather": 1},  # whitening, metrics; the deviations of the ratio to all, [B, T]
    "improve_policy": {"all-reduce": MINIBATCHES, "all-gather": 6},  # one per gradient; the rollout to all, once
    "improve_discriminator": {"all-reduce": STEPS, "all-gather": 2},
}


def test_collectives_of_data_parallel_phases(data_parallel):
    assert counts(data_parallel) == COLLECTIVES


def test_collectives_of_sharded_phases(sharded):
    split = 16  # arrays of policy and critic that fsdp splits
    assert counts(sharded) == {
        "rollout": {"all-gather": split // 2},  # of the policy, before the first frame
        "improve_policy": {
            "all-gather": 6 + MINIBATCHES * split,
            "reduce-scatter": MINIBATCHES * split,
            "all-reduce": MINIBATCHES * 5,  # gradients: what is split, and what is not; norms
        },
    }


def test_no_song_waits_for_another_device_while_it_is_played_or_judged(data_parallel, sharded):
    for phase in (*data_parallel[:3], sharded[0]):
        assert not [c for c in phase.collectives if c.is_in_loop], phase.name


def test_bytes_per_device(data_parallel, sharded):
    """In MB; a tenth more is left to other versions of XLA."""
    for phases, pinned in ((data_parallel, (7.03, 6.78, 8.10, 9.84, 8.35)), (sharded, (4.52, 7.51))):
        for phase, megabytes in zip(phases, pinned, strict=True):
            assert phase.bytes < 1.1e6 * megabytes, phase.name


def test_members_on_devices_of_their_own_do_not_talk(data_parallel):
    """Two members a device, one after the other: twice the work of the phases of a run, and no collectives."""
    tiny = experiment()
    found = planning.plan_for(tiny, jax.devices()[:8], chips.V5E, "8 CPU devices", quiet, members=16)
    assert found.fits and found.members == 16
    (phase,) = found.phases
    assert not phase.collectives
    on_8_devices = sum(p.cost.flops for p in data_parallel)
    assert phase.cost.flops == pytest.approx(2 * 8 * on_8_devices, rel=0.01)


@needs_libtpu
def test_plan_for_tpus_that_are_not_there():
    here = jax.devices()
    found = planning.plan(experiment(), "v5e:4x4", 1, quiet)
    assert (found.devices, found.chip, found.fits) == (16, chips.V5E, True)
    assert counts(found.phases) == COLLECTIVES
    assert all(phase.bytes < 16e6 for phase in found.phases)
    assert jax.devices() == here


@needs_libtpu
def test_sum_over_two_slices_of_tpus():
    """The compiler makes it a sum within each slice and a transfer of one device's part between them."""
    mesh = meshes.build(MeshConfig(), planning.devices_of("v5e:4x4", 2))
    rows = jax.sharding.PartitionSpec(meshes.SONGS)

    def program(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.sin(jax.lax.psum(x, meshes.SONGS)), x)

    spread = jax.shard_map(program, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    shape = jax.ShapeDtypeStruct((32 * 256, 256), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, rows))
    found = parse(jax.jit(spread).lower(shape).compile().as_text(), 16, slices=2)
    across = [c for c in found if c.crosses_slices]
    assert {(c.kind, c.group_size, c.bytes, c.runs) for c in across} == {("all-reduce", 2, 256 * 256 * 4 // 16, 5)}
    assert {(c.kind, c.group_size, c.runs) for c in found if not c.crosses_slices} == {
        ("reduce-scatter", 16, 5),
        ("all-gather", 16, 5),
    }


@needs_libtpu
@pytest.mark.parametrize(
    ("name", "devices", "kind"),
    [("v4:2x2x2", 8, chips.V4), ("v5p:2x2x2", 8, chips.V5P), ("v6e-8", 8, chips.V6E), ("tpu7x:2x2x1", 8, chips.TPU7X)],
)
def test_devices_of_each_generation(name, devices, kind):
    found = planning.devices_of(name, 1)
    assert len(found) == devices
    assert chips.BY_DEVICE_KIND[found[0].device_kind] is kind


@pytest.mark.parametrize("name", ["v5e:3x3", "v5e", "v9:2x2"])
def test_bad_topologies_are_one_sentence_with_an_example(name):
    with pytest.raises(UserError, match=r"v5e[:-]\d|known: v4"):
        planning.devices_of(name, 1)


@pytest.mark.parametrize(
    ("name", "slices", "problem"),
    [
        ("a100-1", 1, "does not know the a100: of GPUs it compiles for h100"),
        ("h100-16", 1, "GPUs of one machine, at most h100-8"),
        ("h100-8", 2, "--slices is for TPUs"),
        ("h100-1", 1, r"needs the GPU compiler, but no GPU: pip install 'jax\[cuda12\]'"),
    ],
)
def test_gpus_it_cannot_compile_for(monkeypatch, name, slices, problem):
    monkeypatch.setattr(gpus, "PLUGINS", ("jax_plugins.absent", "absent_plugins.absent"))
    with pytest.raises(UserError, match=problem):
        planning.devices_of(name, slices)


@pytest.mark.skipif(not any(map(gpus.is_installed, gpus.PLUGINS)), reason="jax[cuda12] is not installed")
def test_a_gpu_that_is_not_there():
    (gpu,) = planning.devices_of("h100-1", 1)
    assert chips.BY_DEVICE_KIND[gpu.device_kind] is chips.H100


def phase(name: str = "improve_policy", **changes) -> Phase:
    """Per run: 1 s of matmuls, 2 s of HBM, 1.5 s of ICI, 4 s of DCN."""
    chip = Chip("test", flops=10.0, hbm_bytes=2**30, hbm_bandwidth=5.0, ici_bandwidth=4.0, dcn_bandwidth=0.5)
    found = [Collective("all-gather", 4, 4, False, 2, True), Collective("all-reduce", 2, 2, True, 1, False)]
    whole = Phase(name, 2 * 2**30, "float32[3]", Cost(flops=10.0, bytes=10.0), found, 1.0, 0.0, chip)
    return dataclasses.replace(whole, **changes)


def result(*phases: Phase, problem: str | None = None) -> Plan:
    return Plan("tiny", "v5e:2x2", 1, 4, 1, 1, 1, phases[0].chip, 2828, 100, phases, problem)


def test_roofline_is_the_longest_of_its_times():
    assert phase().times == {"matmuls": 1.0, "HBM": 2.0, "ICI": 1.5, "DCN": 4.0}
    assert (phase().bound, phase().roofline, phase().alone) == ("DCN", 4.0, 2.0)
    assert (phase(collectives=[]).bound, phase(collectives=[]).roofline) == ("HBM", 2.0)


def test_weak_scaling_compares_with_the_same_rows_on_one_chip():
    found = result(phase(), phase(collectives=[])).efficiency
    assert found == {"without_overlap": (2 + 2) / (2 + 5.5 + 2), "with_overlap": (2 + 2) / (4 + 2)}


class FakeMesh:
    def __init__(self, data: int, fsdp: int = 1, tensor: int = 1):
        self.shape = {"slice": 1, "data": data, "fsdp": fsdp, "tensor": tensor}
        self.size = data * fsdp * tensor


def test_share_of_songs_in_the_rows():
    def share(name: str, microbatch: int = 0, **mesh: int) -> float:
        tiny = experiment(rows=384)
        algorithm = dataclasses.replace(tiny.algorithm, minibatch_size=48)
        runtime = RuntimeConfig(microbatch_rows=microbatch)
        tiny = dataclasses.replace(tiny, algorithm=algorithm, runtime=runtime)
        return planning._song_share(name, tiny, FakeMesh(**mesh))

    assert share("rollout", data=256) == 384 / 512
    assert share("rollout", data=128) == 1
    assert share("rollout", data=64, tensor=4) == 384 / 512  # tensor takes songs as well, outside of updates
    assert share("improve_policy", data=256) == 48 / 256
    assert share("improve_policy", data=8, microbatch=4) == 48 / 64  # six rows in two microbatches of four
    assert share("improve_policy", data=8, microbatch=16) == 1


@pytest.mark.parametrize(
    ("name", "state", "remat", "rows", "advice"),
    [
        ("improve_policy", 2**30, False, 64, "runtime.mesh.fsdp=2"),
        ("improve_policy", 100, False, 64, "runtime.microbatch_rows=4"),
        ("improve_policy", 100, False, 8, "models.remat=true"),
        ("improve_policy", 100, True, 8, "algorithm.batch_size=8"),
        ("rollout", 100, False, 64, "algorithm.batch_size=64"),
    ],
)
def test_what_does_not_fit_names_the_setting_that_helps(name, state, remat, rows, advice):
    tiny = experiment(rows=rows)
    tiny = dataclasses.replace(tiny, models=dataclasses.replace(tiny.models, remat=remat))
    problem = planning._problem(phase(name), tiny, FakeMesh(4), state)
    assert advice in problem
    assert problem.startswith(
        f"{name} needs 2.00 GiB per device where a test has 1.00 GiB (its largest array: float32[3])"
    )


def test_a_plan_ends_with_the_first_phase_that_does_not_fit():
    found = plan_for_cpu(experiment(), dataclasses.replace(chips.V5E, hbm_bytes=2**20))
    assert [p.name for p in found.phases] == ["rollout"]
    assert not found.fits and "runtime.mesh.fsdp=2" in found.problem


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (30.5G) exceeds 15.75G",
            30.5 * 2**30,
        ),
        ("Ran out of memory in memory space hbm. Used 512.0M of 15.75G hbm.", 512 * 2**20),
    ],
)
def test_the_compiler_says_how_much_it_lacks(message, needed):
    class Traced:
        def lower(self):
            raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: {message}")

    assert planning._compile(Traced()) == (None, needed, "")


@pytest.fixture
def _settings_stay(monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)


@pytest.mark.usefixtures("_settings_stay")
def test_command_prints_a_table_or_one_object(monkeypatch, capsys):
    monkeypatch.setattr(planning, "plan", lambda *_: result(phase(bytes=2**29), phase("rollout", song_share=0.25)))
    args = command_line.parse(["plan", "smoke", "--topology", "v5e:2x2", "--set", "algorithm.batch_size=32"])
    assert args.command(args, Console()) == 0
    shown = capsys.readouterr().out
    assert "0.50 GiB (50%)" in shown and "all-reduce 1 (1 between slices)" in shown
    assert "75% of the rows of rollout only fill up" in shown
    args = command_line.parse(["plan", "smoke", "--topology", "v5e:2x2", "--json"])
    assert args.command(args, Console(json_mode=True)) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] and found["devices"] == 4
    assert found["phases"]["rollout"]["collectives"] == {"all-reduce": 1, "all-gather": 2}
    assert found["phases"]["rollout"]["roofline_ms"] == 4000
    assert found["phases"]["rollout"]["network_bytes"] == 2 * 4 * 3 / 4 + 2
    assert found["versions"]["jax"] == jax.__version__ and found["git_revision"] == files.git_revision()
    assert found["command"] == "gapt plan smoke --topology v5e:2x2"


@pytest.mark.usefixtures("_settings_stay")
def test_command_refuses_what_does_not_fit(monkeypatch, capsys):
    monkeypatch.setattr(planning, "plan", lambda *_: result(phase(), problem="improve_policy needs more"))
    args = command_line.parse(["plan", "smoke", "--topology", "v5e:2x2"])
    assert args.command(args, Console()) == plan_command.EXIT_DOES_NOT_FIT
    assert "does not fit: improve_policy needs more" in capsys.readouterr().out
