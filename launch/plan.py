"""Compiles post-training for chips that this machine lacks: memory, network traffic, a bound on its speed.

Nothing is materialised and no data is read: on a machine with a CPU alone, libtpu compiles for a topology by its name,
and XLA's CUDA plugin for a GPU by its description.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gapt_jax import models
from gapt_jax.algorithm import learner, population
from gapt_jax.algorithm.state import Frozen, LearnerState, Spec, init_state, state_in
from gapt_jax.config import Experiment
from gapt_jax.errors import UserError, install
from gapt_jax.launch import collectives, gpus, topology
from gapt_jax.launch.planned import Phase, Plan
from gapt_jax.runtime import chips, cost
from gapt_jax.runtime import mesh as meshes
from gapt_jax.runtime.chips import Chip
from gapt_jax.runtime.cost import Cost
from gapt_jax.runtime.devices import compiling_anew, set_up
from gapt_jax.types import Batch

Say = Callable[[str], None]  # takes a line for the user


def plan(experiment: Experiment, where: str, slices: int, say: Say, members: int = 1) -> Plan:
    """The plan for `slices` slices of a topology such as ``v5e:16x16``; of several members, for a population."""
    devices = devices_of(where, slices)
    return plan_for(experiment, devices, chips.BY_DEVICE_KIND[devices[0].device_kind], where, say, members)


def devices_of(where: str, slices: int) -> Sequence[Any]:
    """Devices to compile for; they need not exist."""
    wanted = topology.parse(where)
    generation = wanted.generation.name
    if slices < 1:
        raise UserError(f"--slices must be at least 1, not {slices}")
    if wanted.generation.dimensions == 1:
        if slices > 1:
            raise UserError("--slices is for TPUs")
        return gpus.devices(wanted)
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"gapt plan needs the TPU compiler, but no TPU: {install('plan')}")
    from jax.experimental import topologies  # slow

    set_up()
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if generation == "v4":
        options["chip_config_name"] = "megacore"
    name = f"{generation}:{wanted.topology}"
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices


def plan_for(
    experiment: Experiment, devices: Sequence[Any], chip: Chip, where: str, say: Say, members: int = 1
) -> Plan:
    """The plan for these devices, of which `where` is the name."""
    mesh = meshes.build(experiment.runtime.mesh, devices)
    compiler: PhaseCompiler = PhaseCompiler(experiment, mesh, chip, say)
    if members > 1:
        compiler = PopulationCompiler(experiment, mesh, chip, say, members)
    problem = None
    try:
        with compiling_anew():  # programs for absent devices cannot be read back, and leave no HLO
            compiler.iteration()
    except _NoRoom:
        problem = _problem(compiler.phases[-1], experiment, compiler.mesh, compiler.state_bytes)
    return Plan(
        experiment=experiment.name,
        topology=where,
        slices=compiler.slices,
        devices=compiler.mesh.size,
        members=members,
        hosts=len(compiler.hosts),
        members_per_host=compiler.members_per_host(),
        chip=chip,
        vocabulary=compiler.spec.task.vocab_size,
        state_bytes=compiler.state_bytes,
        phases=compiler.phases,
        problem=problem,
    )


def _abstract(experiment: Experiment, spec: Spec, mesh: Mesh) -> tuple[LearnerState, Frozen, Batch]:
    """Shapes and shardings of all that stays on the devices."""
    networks, weights = spec.models, experiment.algorithm.rewards
    layout, frames = meshes.MeshLayout(mesh=mesh), experiment.data.max_frames
    rows = layout.filled(experiment.algorithm.batch_size)

    def start(key: jax.Array) -> tuple[LearnerState, Frozen]:
        keys = jax.random.split(key, experiment.pretrain.members)
        used = [name for name in networks.rewards if getattr(weights, name) > 0]
        anchors = {"offline": networks.anchor.init, "online": networks.policy.init, "none": lambda key: None}
        anchor = anchors[experiment.algorithm.anchor](key)
        frozen = Frozen(anchor, {name: jax.vmap(networks.rewards[name].init)(keys) for name in used})
        return init_state(spec, networks.policy.init(key), experiment.seed, frames), frozen

    state, frozen = jax.eval_shape(start, jax.random.key(0))
    shapes = Batch(*(jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, frames), (rows, frames), (rows,))))
    by_row = jax.tree.map(lambda x: layout.row_sharding(x.shape), shapes)
    state, frozen = (_placed(tree, meshes.shardings(mesh, tree)) for tree in (state, frozen))
    return state, frozen, _placed(shapes, by_row)


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def _bytes_per_device(tree: Any) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


class _NoRoom(Exception):
    """The last phase does not fit."""


class PhaseCompiler:
    """Compiles the phases of an iteration in their order, each for the shardings that its predecessors leave."""

    def __init__(self, experiment: Experiment, mesh: Mesh, chip: Chip, say: Say):
        self.experiment, self.mesh, self.chip, self.say = experiment, mesh, chip, say
        self.slices, self.hosts = mesh.shape["slice"], {device.process_index for device in mesh.devices.flat}
        task = experiment.domain().assumed(experiment.data)
        layout = meshes.MeshLayout(experiment.runtime.microbatch_rows, mesh=mesh)
        platform = mesh.devices.flat[0].platform
        networks = models.build(experiment.models, task.vocab_size, task.reward_models, platform=platform)
        self.spec = Spec(networks, experiment.algorithm, task, layout)
        self.resident = _abstract(experiment, self.spec, mesh)
        self.state_bytes = _bytes_per_device(self.resident)
        self.phases: list[Phase] = []
        self.updated: list[LearnerState] = []  # each takes the place of the one that its phase was given

    def iteration(self) -> None:
        """Raises `_NoRoom` after a phase that does not fit."""
        learner.iteration(self.spec, *self.resident, lambda phase, *inputs: self.phase(phase.__name__, phase, *inputs))

    def phase(self, name: str, function: Any, *arguments: Any) -> Any:
        """Shapes and shardings of what the function, a phase or an iteration of a population, returns."""
        began = time.monotonic()
        self.say(f"compiling {name}")
        traced = function.trace(*arguments)
        compiled, needed, text = _compile(traced)
        size = self.mesh.size // self.slices
        found = collectives.parse(text, size, self.slices) if compiled is not None else []
        resident = {id(leaf) for leaf in jax.tree.leaves((self.resident, self.updated))}
        arrays = [leaf for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.ShapeDtypeStruct)]
        passed = [leaf for leaf in arrays if id(leaf) not in resident]
        phase = Phase(
            name=name,
            bytes=self.state_bytes + _bytes_per_device(passed) + needed,
            largest_array=cost.largest_array(traced.jaxpr),
            cost=self.cost(traced),
            collectives=found,
            song_share=_song_share(name, self.experiment, self.mesh),
            compile_seconds=time.monotonic() - began,
            chip=self.chip,
        )
        self.phases.append(phase)
        if compiled is None or phase.bytes > self.chip.hbm_bytes:
            raise _NoRoom
        outputs = _placed(traced.out_info, compiled.output_shardings)
        if updated := state_in(outputs):
            self.updated.append(updated)
        return outputs

    def cost(self, traced: Any) -> Cost:
        """Work of one device."""
        return cost.of(traced.jaxpr)

    def members_per_host(self) -> int:
        return 1


class PopulationCompiler(PhaseCompiler):
    """Compiles the iteration of a population, which is one program. Its gates count as open."""

    def __init__(self, experiment: Experiment, mesh: Mesh, chip: Chip, say: Say, members: int):
        super().__init__(experiment, mesh, chip, say)
        self.members = members
        self._single = self.resident
        self.spread = meshes.MeshMembers.of(meshes.split(mesh, members))
        self.mesh = self.spread.mesh
        self.spec = dataclasses.replace(self.spec, layout=self.spread.layout(experiment.runtime.microbatch_rows))
        state, frozen, batch = self.resident
        count, rows = self.spread.filled(members), self.spread.rows_filled(experiment.algorithm.batch_size)

        def of_members(tree: Any) -> Any:
            shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), tree)
            return _placed(shapes, self.spread.shardings(shapes))

        songs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch)
        whole = _placed(frozen, jax.tree.map(lambda x: self.spread.whole, frozen))
        self.resident = of_members(state), whole, of_members(songs)
        self.state_bytes = _bytes_per_device(self.resident)

    def members_per_host(self) -> int:
        return max(len(self.spread.members_of(host, self.members)) for host in self.hosts)

    def iteration(self) -> None:
        self.phase("population", population.iteration, self.spec, self.spread, *self.resident)

    def cost(self, traced: Any) -> Cost:
        # That of its members one by one: what is outside `shard_map` would count for those of all devices.
        group = Mesh(self.spread.mesh.devices[0], meshes.AXES, axis_types=self.spread.mesh.axis_types[1:])
        layout = meshes.MeshLayout(self.experiment.runtime.microbatch_rows, mesh=group)
        spec = dataclasses.replace(self.spec, layout=layout)
        state, frozen, batch = (jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), t) for t in self._single)
        rows = self.resident[2].index.shape[1]
        batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), batch)
        single = jax.jit(learner.iteration, static_argnums=0).trace(spec, state, frozen, batch)
        steps = self.resident[0].step  # [P]
        return cost.of(single.jaxpr).times(steps.sharding.shard_shape(steps.shape)[0])


def _compile(traced: Any) -> tuple[Any, int, str]:
    """(program, bytes that it needs beside its arguments, its HLO); no program where the compiler finds no room.

    The HLO is what the compiler dumps: `as_text` of JAX 0.10 cannot read programs that use the SparseCores of v6e.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            compiled = traced.lower().compile(compiler_options={"xla_dump_to": folder})
            dumps = Path(folder).glob("*after_optimizations.txt")
            text = max(dumps, key=lambda path: path.stat().st_size).read_text(encoding="utf-8")
    except jax.errors.JaxRuntimeError as error:
        needed = re.search(r"RESOURCE_EXHAUSTED.*?(?:temporaries \(|Used )([\d.]+)([KMG])", str(error), re.DOTALL)
        if needed is None:
            raise
        return None, int(float(needed[1]) * 2 ** {"K": 10, "M": 20, "G": 30}[needed[2]]), ""
    memory = compiled.memory_analysis()
    made = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return compiled, made + memory.generated_code_size_in_bytes, text


def _rows(name: str, experiment: Experiment, mesh: Mesh) -> tuple[int, int]:
    """(songs of a phase, or of one gradient step in it; rows that each device computes for them at a time)."""
    algorithm, microbatch = experiment.algorithm, experiment.runtime.microbatch_rows
    if not name.startswith("improve"):
        return algorithm.batch_size, math.ceil(algorithm.batch_size / _devices(mesh))
    songs = (algorithm if name == "improve_policy" else algorithm.discriminator).minibatch_size
    rows = math.ceil(songs / _song_devices(mesh))
    return songs, min(rows, microbatch) if microbatch else rows


def _devices(mesh: Mesh) -> int:
    """Those of one run."""
    return math.prod(mesh.shape[axis] for axis in meshes.AXES)


def _song_devices(mesh: Mesh) -> int:
    return math.prod(mesh.shape[axis] for axis in meshes.SONGS)


def _song_share(name: str, experiment: Experiment, mesh: Mesh) -> float:
    songs, rows = _rows(name, experiment, mesh)
    devices = _song_devices(mesh) if name.startswith("improve") else _devices(mesh)
    return songs / (math.ceil(songs / (devices * rows)) * devices * rows)


def _problem(phase: Phase, experiment: Experiment, mesh: Mesh, state_bytes: int) -> str:
    """What does not fit, and the setting that would help most."""
    room, rows = phase.chip.hbm_bytes, _rows(phase.name, experiment, mesh)[1]
    if state_bytes > room / 2:
        way = f"split the {gib(state_bytes)} of state with runtime.mesh.fsdp={2 * mesh.shape['fsdp']}"
    elif phase.name.startswith("improve") and rows > 1:
        way = f"compute fewer rows at a time with runtime.microbatch_rows={rows // 2}"
    elif phase.name.startswith("improve") and not experiment.models.remat:
        way = "keep fewer activations with models.remat=true"
    else:
        way = f"spread the songs over more devices, or lower algorithm.batch_size={experiment.algorithm.batch_size}"
    return (
        f"{phase.name} needs {gib(phase.bytes)} per device where a {phase.chip.name} has {gib(room)} "
        f"(its largest array: {phase.largest_array}): {way}, or take a bigger chip"
    )


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
